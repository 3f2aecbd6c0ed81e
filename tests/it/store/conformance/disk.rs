//! What each state of the disk allows.

use std::time::Duration;

use postrider_domain::disk::DiskState;
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::DiskReport;
use postrider_store::{
    AcceptError, AgedStep, CreateEndpointError, DISK_FULL, LogPart, PayloadStep, Recorded, RequeueError, StoreError,
};

use serde_json::json;

use crate::store::fixture::Fixture;

on_each_backend! {
    a_full_disk_refuses_what_adds_to_the_log_alone,
    a_stopped_store_takes_outcomes_and_removals_alone,
    the_store_says_what_it_takes_on_the_disk,
    a_change_of_the_disk_is_reported_to_the_operator,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { why: DISK_FULL, .. })
}

async fn a_change_of_the_disk_is_reported_to_the_operator(at: Fixture) {
    let report = DiskReport { state: "full", state_before: "tight", used_bytes: 96, limit_bytes: 100 };
    at.store().report_disk(report).await.unwrap();
    let operations = at.operations().await;
    assert!(at.reported(&operations).await.is_empty(), "nobody asked for reports");
    at.store().set_disk_state(DiskState::Full);
    assert_eq!(at.store().disk_state(), DiskState::Full);
    at.store().report_disk(report).await.unwrap();
    let reported = at.reported(&operations).await;
    assert_eq!(reported.len(), 1);
    assert_eq!(reported[0]["type"], "disk.state");
    let expected = json!({"state": "full", "stateBefore": "tight", "usedBytes": 96, "limitBytes": 100});
    assert_eq!(reported[0]["data"], expected);
}

async fn publish(at: &Fixture) -> Result<(), AcceptError> {
    at.store().accept_events(vec![at.event()], None).await.map(drop)
}

async fn a_full_disk_refuses_what_adds_to_the_log_alone(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let first = at.claim_one().await;
    assert_eq!(at.record(at.delivered(&first)).await, Recorded::Done);
    at.store().set_disk_state(DiskState::Full);
    assert!(matches!(publish(&at).await, Err(AcceptError::Store(error)) if is_full(&error)));
    let retried = at.try_retry(at.tenant(), first.delivery_id).await;
    assert!(matches!(retried, Err(RequeueError::Store(error)) if is_full(&error)));
    at.endpoint().await;
    let second = at.claim_one().await;
    assert_eq!(at.record(at.delivered(&second)).await, Recorded::Done);
    at.store().set_disk_state(DiskState::Tight);
    publish(&at).await.unwrap();
}

async fn a_stopped_store_takes_outcomes_and_removals_alone(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let claim = at.claim_one().await;
    at.store().set_disk_state(DiskState::Stopped);
    assert!(at.claim(10).await.claims.is_empty());
    let created = at.try_create(at.tenant(), at.new_endpoint()).await;
    assert!(matches!(created, Err(CreateEndpointError::Store(error)) if is_full(&error)));
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    at.advance(DAY * 2);
    let step = PayloadStep { age: DAY, limit: 10 };
    assert_eq!(at.store().expire_payloads(step).await.unwrap().rows, 1);
    let step = AgedStep { part: LogPart::Deliveries, age: DAY, after: RowKey::from_i64(0), limit: 10 };
    at.store().remove_aged(step).await.unwrap();
    assert_eq!(at.deliveries().await.len(), 1, "the pending one stays");
    at.store().set_disk_state(DiskState::Ok);
    assert_eq!(at.claim(10).await.claims.len(), 1);
}

async fn the_store_says_what_it_takes_on_the_disk(at: Fixture) {
    let before = at.store().disk_use().await.unwrap();
    assert!(before.used > 0 && before.held > 0 && before.reserve == 0);
    at.store().hold_reserve(3_000_000).await.unwrap();
    let after = at.store().disk_use().await.unwrap();
    let is_here = before.free.is_some();
    assert_eq!(after.reserve, if is_here { 3_000_000 } else { 0 });
    at.store().hold_reserve(0).await.unwrap();
    assert_eq!(at.store().disk_use().await.unwrap().reserve, 0);
}
