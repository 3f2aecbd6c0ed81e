//! How a delivery stands, explained from what the store says about it.

use std::time::Duration;

use postrider_domain::delivery::EndReason;
use postrider_domain::endpoint::DisabledReason;
use postrider_domain::explanation::{Explanation, NextStep, Situation, StateCause, WhyThen, explain};
use postrider_domain::id::DeliveryId;
use postrider_domain::limits;
use postrider_domain::retry_schedule::RetrySchedule;

use crate::store::fixture::Fixture;

on_each_backend! {
    a_delivery_is_explained_from_its_first_attempt_to_its_end,
    behind_an_inactive_endpoint_a_delivery_waits_for_activation,
    a_delivery_of_a_paused_endpoint_waits_for_the_probe,
    a_delivery_behind_the_head_of_an_order_names_the_head,
    a_head_that_failed_blocks_the_order_until_somebody_decides,
    a_delivery_of_a_deleted_endpoint_was_cancelled,
}

const WAIT: Duration = Duration::from_secs(5);

async fn explained(at: &Fixture, id: DeliveryId) -> Explanation {
    let (delivery, attempts) = at.delivery(id).await;
    let endpoint = at.store().find_endpoint(at.tenant(), delivery.endpoint_id).await.unwrap();
    let schedule = &RetrySchedule::default();
    explain(Situation { delivery: &delivery, attempts: &attempts, endpoint: endpoint.as_ref(), schedule })
}

fn outline(explanation: &Explanation) -> (StateCause, NextStep, Option<WhyThen>) {
    (explanation.cause, explanation.next, explanation.why_then)
}

/// The ids of the deliveries, in the order of their events.
async fn ids(at: &Fixture) -> Vec<DeliveryId> {
    let mut ids: Vec<DeliveryId> = at.deliveries().await.iter().map(|delivery| delivery.id).collect();
    ids.reverse();
    ids
}

async fn a_delivery_is_explained_from_its_first_attempt_to_its_end(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let id = ids(&at).await[0];
    let new = explained(&at, id).await;
    assert_eq!(outline(&new), (StateCause::NotAttempted, NextStep::Attempt, Some(WhyThen::AtOnce)));
    assert_eq!(new.next_at, Some(at.clock_now()));
    let claim = at.claim_one().await;
    assert_eq!(outline(&explained(&at, id).await), (StateCause::AttemptUnderWay, NextStep::Outcome, None));
    at.record(at.failing(&claim, WAIT)).await;
    let failed = explained(&at, id).await;
    let steps = RetrySchedule::default().steps();
    let why = WhyThen::Schedule { step: 1, steps };
    assert_eq!(outline(&failed), (StateCause::AttemptFailed, NextStep::Attempt, Some(why)));
    assert_eq!(failed.next_at, Some(at.clock_now().plus(WAIT)));
    at.advance(WAIT);
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    assert_eq!(outline(&explained(&at, id).await), (StateCause::Received, NextStep::Nothing, None));
}

async fn behind_an_inactive_endpoint_a_delivery_waits_for_activation(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let waiting = ids(&at).await;
    at.switch(&endpoint, false).await;
    let off = explained(&at, waiting[0]).await;
    assert_eq!(outline(&off), (StateCause::EndpointOff, NextStep::Activation, None));
    assert_eq!(off.gives_up_at, Some(at.clock_now().plus(limits::WAITING_MAX)));
    at.switch(&endpoint, true).await;
    let gone = at.disable_by_outcome(DisabledReason::Gone).await.delivery_id;
    let other = waiting.into_iter().find(|id| *id != gone).unwrap();
    assert_eq!(outline(&explained(&at, other).await), (StateCause::EndpointGone, NextStep::Activation, None));
    let ended = (StateCause::Ended(EndReason::Exhausted), NextStep::Nothing, None);
    assert_eq!(outline(&explained(&at, gone).await), ended);
}

async fn a_delivery_of_a_paused_endpoint_waits_for_the_probe(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let id = ids(&at).await[0];
    for _ in 1..limits::PAUSE_FAILURES {
        let claim = at.claim_one().await;
        at.record(at.failing(&claim, limits::PAUSE_SPAN)).await;
        at.advance(limits::PAUSE_SPAN);
    }
    let claim = at.claim_one().await;
    at.record(at.failing(&claim, WAIT)).await;
    let paused = explained(&at, id).await;
    assert_eq!(outline(&paused), (StateCause::EndpointPaused, NextStep::Probe, Some(WhyThen::Paused)));
    assert_eq!(paused.next_at, Some(at.clock_now().plus(limits::PROBE_WAIT_MIN)));
    at.advance(limits::PROBE_WAIT_MIN);
    let probe = at.claim_one().await;
    assert!(probe.probe);
    at.record(at.succeeding(&probe)).await;
    assert_eq!(explained(&at, id).await.cause, StateCause::Received);
}

async fn a_delivery_behind_the_head_of_an_order_names_the_head(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(3).await;
    let ids = ids(&at).await;
    for behind in &ids[1..] {
        let waits = explained(&at, *behind).await;
        assert_eq!(outline(&waits), (StateCause::BehindHead, NextStep::HeadEnds, None));
        assert_eq!(waits.waits_for, Some(ids[0]));
    }
    let head = at.claim_one().await;
    assert_eq!(head.delivery_id, ids[0]);
    at.record(at.delivered(&head)).await;
    let next = explained(&at, ids[1]).await;
    assert_eq!((next.cause, next.waits_for), (StateCause::NotAttempted, None));
    assert_eq!(explained(&at, ids[2]).await.waits_for, Some(ids[1]));
}

async fn a_head_that_failed_blocks_the_order_until_somebody_decides(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(2).await;
    let ids = ids(&at).await;
    let head = at.claim_one().await;
    at.record(at.failed(&head)).await;
    let blocks = (StateCause::BlocksOrder(EndReason::Exhausted), NextStep::SkipOrRetry, None);
    assert_eq!(outline(&explained(&at, ids[0]).await), blocks);
    let waits = explained(&at, ids[1]).await;
    assert_eq!((waits.cause, waits.waits_for), (StateCause::BehindHead, Some(ids[0])));
    at.skip(ids[0]).await;
    let skipped = (StateCause::Ended(EndReason::Exhausted), NextStep::Nothing, None);
    assert_eq!(outline(&explained(&at, ids[0]).await), skipped);
    assert_eq!(explained(&at, ids[1]).await.cause, StateCause::NotAttempted);
}

async fn a_delivery_of_a_deleted_endpoint_was_cancelled(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let id = ids(&at).await[0];
    at.delete(&endpoint).await;
    let cancelled = (StateCause::Ended(EndReason::EndpointDeleted), NextStep::Nothing, None);
    assert_eq!(outline(&explained(&at, id).await), cancelled);
}
