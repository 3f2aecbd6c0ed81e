//! Outcomes that the store cannot record.

use serde_json::json;

use crate::support::app::{App, text};
use crate::support::receiver::{Behaviour, Gate, Receiver};

#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_affects_no_other() {
    // The limit for attempts in flight at five endpoints without history is eight each.
    const ENDPOINTS: usize = 5;
    const EVENTS: usize = 8;
    const DELIVERIES: usize = ENDPOINTS * EVENTS;
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    for _ in 0..ENDPOINTS {
        app.endpoint_to(&receiver, &["post.created"]).await;
    }
    let gate = Gate::closed();
    receiver.otherwise(Behaviour::hold(&gate));
    for _ in 0..EVENTS {
        app.publish("post.created", json!({})).await;
    }
    receiver.wait_for(DELIVERIES).await;
    // The log already has an attempt with this number, so the outcome can never be written.
    let damaged = text(&app.deliveries("limit=200").await[DELIVERIES / 2], "id");
    let database = rusqlite::Connection::open(app.data_dir().join("postrider.db")).unwrap();
    let key = damaged.parse::<postrider_domain::id::DeliveryId>().unwrap().key().as_i64();
    let attempt =
        "INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome) VALUES (?1, 1, 0, 0, 0)";
    database.execute(attempt, [key]).unwrap();
    gate.open();
    app.deliveries_when("status=delivered&limit=200", "are all but one", |all| all.len() == DELIVERIES - 1).await;
    let pending = app.deliveries("status=pending").await;
    assert_eq!(pending.iter().map(|delivery| text(delivery, "id")).collect::<Vec<_>>(), [damaged]);
}
