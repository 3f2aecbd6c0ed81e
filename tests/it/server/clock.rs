//! A node whose clock differs from the database's clock. Receivers would refuse its signatures, so it sends nothing
//! until the clock is right again.

use std::sync::Arc;

use serde_json::json;

use crate::support::app::App;
use crate::support::postgres::TestDatabase;
use crate::support::receiver::Receiver;
use crate::support::verify::verify_as_integrator;
use crate::support::wait::eventually;

/// The time of the node's last heartbeat. It writes one every two seconds.
async fn seen_at(database: &tokio_postgres::Client) -> i64 {
    database.query_one("SELECT MAX(seen_at) FROM nodes", &[]).await.unwrap().get(0)
}

/// Waits for two heartbeats. Meanwhile the node polls for due deliveries, which it does every second.
async fn wait_for_two_heartbeats(database: &tokio_postgres::Client) {
    for _ in 0..2 {
        let before = seen_at(database).await;
        eventually("a sign of life", || async { (seen_at(database).await > before).then_some(()) }).await;
    }
}

/// Waits until the outcome of every delivery is recorded.
async fn wait_until_nothing_is_due(database: &tokio_postgres::Client) {
    let left = || async { database.query_one("SELECT COUNT(*) FROM due", &[]).await.unwrap().get::<_, i64>(0) };
    eventually("the last outcome", || async { (left().await == 0).then_some(()) }).await;
}

async fn claimed(database: &tokio_postgres::Client) -> i64 {
    database.query_one("SELECT COUNT(*) FROM due WHERE claim_token IS NOT NULL", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_wrong_clock_stops_sending_and_degrades_health_until_fixed() {
    let Some(database) = TestDatabase::new().await.map(Arc::new) else { return };
    let (client, receiver) = (database.client().await, Receiver::start().await);
    let app = App::set_up().await.allow("127.0.0.0/8").on(&database).start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    app.publish("post.created", json!({})).await;
    receiver.wait_for(1).await;
    for (round, ahead_ms) in [40_000, -40_000].into_iter().enumerate() {
        wait_until_nothing_is_due(&client).await;
        app.setup().real_clock.set_ahead_ms(ahead_ms);
        // The node's first action with the wrong clock.
        app.publish("post.created", json!({})).await;
        assert_eq!(claimed(&client).await, 0, "{ahead_ms} ms ahead");
        let health = app.get("/v1/health").await;
        assert_eq!((health.status, &health.json()["status"]), (503, &json!("degraded")));
        wait_for_two_heartbeats(&client).await;
        app.publish("post.created", json!({})).await;
        assert_eq!((claimed(&client).await, receiver.counts().requests), (0, 1 + 2 * round), "{ahead_ms} ms ahead");
        app.setup().real_clock.set_ahead_ms(0);
        // The node resumes by itself, without a request.
        for request in receiver.wait_for(3 + 2 * round).await {
            verify_as_integrator(&endpoint.secret, &request).unwrap();
        }
        assert_eq!(app.get("/v1/health").await.status, 200);
    }
}
