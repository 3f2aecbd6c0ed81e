//! A node whose clock differs from that of the database. Receivers would refuse its signatures, so it sends nothing until
//! the clock is right again.

use std::sync::Arc;

use serde_json::json;

use crate::support::app::App;
use crate::support::postgres::TestDatabase;
use crate::support::receiver::Receiver;
use crate::support::verify::verify_as_integrator;
use crate::support::wait::eventually;

/// When the node last said that it is there, which it does every other second.
async fn seen_at(database: &tokio_postgres::Client) -> i64 {
    database.query_one("SELECT MAX(seen_at) FROM nodes", &[]).await.unwrap().get(0)
}

/// Long enough for the node to look for what is due, which it does each second.
async fn it_has_had_its_chances(database: &tokio_postgres::Client) {
    for _ in 0..2 {
        let before = seen_at(database).await;
        eventually("a sign of life", || async { (seen_at(database).await > before).then_some(()) }).await;
    }
}

/// What has arrived has been recorded.
async fn nothing_is_due(database: &tokio_postgres::Client) {
    let left = || async { database.query_one("SELECT COUNT(*) FROM due", &[]).await.unwrap().get::<_, i64>(0) };
    eventually("the last outcome", || async { (left().await == 0).then_some(()) }).await;
}

async fn claimed(database: &tokio_postgres::Client) -> i64 {
    database.query_one("SELECT COUNT(*) FROM due WHERE claim_token IS NOT NULL", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_node_with_a_wrong_clock_accepts_but_sends_nothing() {
    let Some(database) = TestDatabase::new().await.map(Arc::new) else { return };
    let (client, receiver) = (database.client().await, Receiver::start().await);
    let app = App::set_up().await.allow("127.0.0.0/8").on(&database).start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    app.publish("post.created", json!({})).await;
    receiver.wait_for(1).await;
    for (turn, ahead_ms) in [40_000, -40_000].into_iter().enumerate() {
        nothing_is_due(&client).await;
        app.setup().real_clock.set_ahead_ms(ahead_ms);
        // The very first that it does by that clock.
        app.publish("post.created", json!({})).await;
        assert_eq!(claimed(&client).await, 0, "{ahead_ms} ms ahead");
        let health = app.get("/v1/health").await;
        assert_eq!((health.status, &health.json()["status"]), (503, &json!("degraded")));
        it_has_had_its_chances(&client).await;
        app.publish("post.created", json!({})).await;
        assert_eq!((claimed(&client).await, receiver.counts().requests), (0, 1 + 2 * turn), "{ahead_ms} ms ahead");
        app.setup().real_clock.set_ahead_ms(0);
        // Nobody asks the node for anything.
        for request in receiver.wait_for(3 + 2 * turn).await {
            verify_as_integrator(&endpoint.secret, &request).unwrap();
        }
        assert_eq!(app.get("/v1/health").await.status, 200);
    }
}
