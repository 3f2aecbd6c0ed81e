//! Retention: which rows of the log are removed at their age, and which are kept.

use std::time::Duration;

use postrider_domain::id::RowKey;
use postrider_store::{AgedStep, LogPart, Recorded};

use crate::store::fixture::Fixture;

on_each_backend! {
    finished_rows_are_removed_exactly_at_their_age,
    a_pending_delivery_keeps_its_event,
    an_external_id_is_forgotten_with_its_event,
    the_log_is_walked_in_bounded_steps,
}

const AGE: Duration = Duration::from_secs(24 * 3600);
const INSTANT: Duration = Duration::from_millis(1);

fn step(part: LogPart, after: RowKey) -> AgedStep {
    AgedStep { part, age: AGE, after, limit: 3 }
}

async fn remove(at: &Fixture, part: LogPart) {
    let mut after = Some(RowKey::from_i64(0));
    while let Some(from) = after {
        after = at.store().remove_aged(step(part, from)).await.unwrap().next;
    }
}

async fn remove_all(at: &Fixture) {
    remove(at, LogPart::Deliveries).await;
    remove(at, LogPart::Events).await;
}

async fn deliver_all(at: &Fixture) {
    for claim in at.claim(100).await.claims {
        assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    }
}

async fn is_logged(at: &Fixture, id: postrider_domain::id::EventId) -> bool {
    at.store().find_event(at.tenant(), id).await.unwrap().is_some()
}

async fn finished_rows_are_removed_exactly_at_their_age(at: Fixture) {
    at.endpoint().await;
    let event = at.publish(1).await.remove(0);
    deliver_all(&at).await;
    at.advance(AGE);
    remove_all(&at).await;
    assert!(is_logged(&at, event.id).await, "the event is not older than the limit");
    at.advance(INSTANT);
    remove(&at, LogPart::Events).await;
    assert!(is_logged(&at, event.id).await, "an event stays while a delivery refers to it");
    remove_all(&at).await;
    assert!(!is_logged(&at, event.id).await);
    assert!(at.deliveries().await.is_empty());
}

async fn a_pending_delivery_keeps_its_event(at: Fixture) {
    at.endpoint().await;
    let event = at.publish(1).await.remove(0);
    at.advance(AGE * 20);
    remove_all(&at).await;
    assert!(is_logged(&at, event.id).await);
    assert!(!at.claim_one().await.envelope.is_empty(), "the delivery can still be sent");
}

async fn an_external_id_is_forgotten_with_its_event(at: Fixture) {
    let first = at.accept(vec![at.event_with("order-17", 1)]).await.remove(0);
    at.advance(AGE + INSTANT);
    assert_eq!(at.accept(vec![at.event_with("order-17", 1)]).await[0].id, first.id);
    remove_all(&at).await;
    let again = at.accept(vec![at.event_with("order-17", 2)]).await.remove(0);
    assert!(!again.replayed && again.id != first.id);
}

async fn the_log_is_walked_in_bounded_steps(at: Fixture) {
    at.endpoint().await;
    at.publish(7).await;
    deliver_all(&at).await;
    at.advance(AGE + INSTANT);
    let mut left = Vec::new();
    let mut after = Some(RowKey::from_i64(0));
    while let Some(from) = after {
        after = at.store().remove_aged(step(LogPart::Deliveries, from)).await.unwrap().next;
        left.push(at.deliveries().await.len());
    }
    assert_eq!(left, [4, 1, 0]);
}
