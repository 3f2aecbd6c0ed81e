//! Retention of payloads: which go at their age, which stay, and what is still possible without one.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event::EventDetail;
use postrider_domain::id::{EventId, RowKey};
use postrider_domain::payload::PayloadState;
use postrider_domain::replay::ReplayRange;
use postrider_store::{PayloadStep, Recorded, RequeueError};

use crate::store::fixture::Fixture;

on_each_backend! {
    a_payload_goes_exactly_at_its_age_and_the_rows_stay,
    a_pending_delivery_keeps_its_payload_until_it_ends,
    a_stopped_order_keeps_the_payload_of_its_delivery,
    an_event_without_its_payload_is_not_sent_again,
    payloads_are_walked_once_in_bounded_steps,
}

const AGE: Duration = Duration::from_secs(24 * 3600);
const INSTANT: Duration = Duration::from_millis(1);
const STEP: PayloadStep = PayloadStep { age: AGE, limit: 3 };

/// Runs both walks to their ends. Returns the number of payloads taken.
async fn expire(at: &Fixture) -> u64 {
    let mut taken = 0;
    loop {
        let removed = at.store().expire_payloads(STEP).await.unwrap();
        taken += removed.rows;
        if removed.next.is_none() {
            break;
        }
    }
    let mut after = Some(RowKey::from_i64(0));
    while let Some(from) = after {
        let removed = at.store().expire_late_payloads(STEP, from).await.unwrap();
        taken += removed.rows;
        after = removed.next;
    }
    taken
}

async fn deliver_all(at: &Fixture) {
    for claim in at.claim(100).await.claims {
        assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    }
}

async fn event(at: &Fixture, id: EventId) -> EventDetail {
    at.store().find_event(at.tenant(), id).await.unwrap().unwrap()
}

async fn payload(at: &Fixture, id: EventId) -> PayloadState {
    event(at, id).await.event.payload
}

async fn a_payload_goes_exactly_at_its_age_and_the_rows_stay(at: Fixture) {
    at.endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    deliver_all(&at).await;
    at.advance(AGE);
    assert_eq!(expire(&at).await, 0, "it is not older than the limit");
    assert!(!event(&at, id).await.envelope.is_empty());
    at.advance(INSTANT);
    assert_eq!(expire(&at).await, 1);
    let gone = event(&at, id).await;
    assert_eq!((gone.event.payload, gone.envelope.len()), (PayloadState::Expired, 0));
    let delivery = at.deliveries().await.remove(0);
    assert_eq!((delivery.event_id, delivery.last_response_status), (id, Some(200)), "the row stays");
    let (_, attempts) = at.delivery(delivery.id).await;
    let attempt = &attempts[0];
    assert_eq!((attempt.payload, attempt.response_status), (PayloadState::Expired, Some(200)));
    assert!(attempt.response_headers.is_empty() && attempt.response_body.is_none() && attempt.request.is_none());
}

async fn a_pending_delivery_keeps_its_payload_until_it_ends(at: Fixture) {
    at.endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    at.advance(AGE * 2);
    assert_eq!((expire(&at).await, payload(&at, id).await), (0, PayloadState::Kept));
    let claim = at.claim_one().await;
    assert!(!claim.envelope.is_empty(), "the delivery can still be sent");
    assert_eq!(expire(&at).await, 0, "an attempt is under way");
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    assert_eq!((expire(&at).await, payload(&at, id).await), (1, PayloadState::Expired));
    assert_eq!(expire(&at).await, 0);
    let (_, attempts) = at.delivery(at.deliveries().await[0].id).await;
    assert_eq!(attempts[0].payload, PayloadState::Expired, "the payload of a late attempt goes too");
}

async fn a_stopped_order_keeps_the_payload_of_its_delivery(at: Fixture) {
    at.strict_endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    let claim = at.claim_one().await;
    assert_eq!(at.record(at.failed(&claim)).await, Recorded::Done);
    at.advance(AGE + INSTANT);
    assert_eq!((expire(&at).await, payload(&at, id).await), (0, PayloadState::Kept));
    at.skip(claim.delivery_id).await;
    assert_eq!((expire(&at).await, payload(&at, id).await), (1, PayloadState::Expired));
}

async fn an_event_without_its_payload_is_not_sent_again(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    assert_eq!(at.record(at.failed(&claim)).await, Recorded::Done);
    at.advance(AGE + INSTANT);
    assert_eq!(expire(&at).await, 1);
    let refused = at.try_retry(at.tenant(), claim.delivery_id).await;
    assert!(matches!(refused, Err(RequeueError::PayloadGone)), "{refused:?}");
    let range = ReplayRange {
        since: at.clock_now().minus(AGE * 2),
        until: at.clock_now(),
        statuses: vec![DeliveryStatus::Failed],
    };
    let count = at.count_replay(&endpoint, range.clone(), Mode::Live).await;
    assert_eq!((count.total, count.unavailable), (1, 1));
    let replay = at.replay(&endpoint, range).await;
    while at.store().advance_replays().await.unwrap().is_some_and(|passed| passed > 0) {}
    let ended = at.store().find_replay(at.tenant(), Some(endpoint.id), replay.id).await.unwrap().unwrap();
    assert_eq!((ended.replayed, ended.unavailable), (0, 1));
    assert!(at.claim(10).await.claims.is_empty());
}

async fn payloads_are_walked_once_in_bounded_steps(at: Fixture) {
    at.endpoint().await;
    at.publish(7).await;
    deliver_all(&at).await;
    at.advance(AGE + INSTANT);
    let mut steps = Vec::new();
    for _ in 0..4 {
        let removed = at.store().expire_payloads(STEP).await.unwrap();
        steps.push((removed.rows, removed.next.is_some()));
    }
    assert_eq!(steps, [(3, true), (3, true), (1, false), (0, false)]);
}
