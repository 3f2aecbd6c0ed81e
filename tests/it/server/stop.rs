//! Graceful stop: what it waits for, what it cuts off, and which attempts the next start repeats.

use std::time::Duration;

use postrider::server::StartError;
use postrider_store::OpenError;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::app::App;
use crate::support::receiver::{Behaviour, Receiver, connect, refuses};
use crate::support::wait::bounded;

#[tokio::test]
async fn a_data_directory_belongs_to_one_server_until_it_has_stopped() {
    let mut app = App::start().await;
    match app.setup().start_server().await {
        Err(StartError::Store(OpenError::InUse { path })) => assert_eq!(path, app.data_dir().display().to_string()),
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("two servers on one directory"),
    }
    let address = app.server().address();
    app.stop().await;
    assert!(refuses(address).await);
    assert!(!app.data_dir().join("admin.sock").exists());
    app.start_again().await;
    assert_eq!(app.get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn silent_and_idle_clients_do_not_delay_a_stop() {
    // The grace period is longer than any wait in the tests.
    let app = App::set_up().await.change(|settings| settings.stop_grace = Duration::from_secs(600));
    let mut app = app.start().await;
    let address = app.server().address();
    let mut silent = connect(address).await;
    let mut idle = connect(address).await;
    idle.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    bounded("an answer", idle.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    app.stop().await;
    let mut rest = Vec::new();
    bounded("the end of the silent connection", silent.read_to_end(&mut rest)).await.ok();
    bounded("the end of the idle connection", idle.read_to_end(&mut rest)).await.ok();
}

#[tokio::test]
async fn half_sent_requests_are_cut_off_after_the_grace_period() {
    let app = App::set_up().await.change(|settings| settings.stop_grace = Duration::from_millis(200));
    let mut app = app.start().await;
    let key = app.caller().secret().unwrap().to_owned();
    let mut slow = connect(app.server().address()).await;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut slower = connect(app.server().address()).await;
    slower.write_all(b"GET /v1/hea").await.unwrap();
    app.get("/v1/health").await;
    app.stop().await;
    app.start_again().await;
    assert_eq!(app.get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn an_attempt_longer_than_the_grace_is_abandoned_and_repeated() {
    let app =
        App::set_up().await.allow("127.0.0.0/8").change(|settings| settings.stop_grace = Duration::from_millis(200));
    let mut app = app.start().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::StallBeforeHeaders);
    let event = app.publish("post.created", json!({})).await;
    receiver.wait_for(1).await;
    app.restart().await;
    let delivery = app.delivery_ended(&event, "delivered").await;
    let outcomes: Vec<_> = delivery["attempts"].as_array().unwrap().iter().map(|made| &made["outcome"]).collect();
    assert_eq!(outcomes, ["abandoned", "delivered"]);
}
