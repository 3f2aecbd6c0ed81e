//! What a stop waits for, what it cuts off, and what it leaves to the next start.

use std::time::Duration;

use postrider::server::StartError;
use postrider_store::OpenError;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::app::App;
use crate::support::receiver::{Behaviour, Receiver, connect, refuses};
use crate::support::wait::bounded;

#[tokio::test]
async fn a_directory_belongs_to_one_server_until_that_one_has_stopped() {
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
async fn clients_that_say_nothing_do_not_hold_up_a_stop() {
    // The grace is longer than the tests wait for anything.
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
async fn clients_within_a_request_are_cut_off_after_the_grace() {
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
async fn an_attempt_that_outlasts_the_grace_is_repeated_at_the_start() {
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
