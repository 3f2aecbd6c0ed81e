//! When something last needed somebody, and misfits: what stands beside the counts of a workspace.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::endpoint::{DisabledReason, EndpointChange};
use postrider_domain::event::NewEvent;
use postrider_domain::limits;
use postrider_domain::stats::{BucketSize, StatsPeriod};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use super::endpoint_health::{pause, probe};
use crate::store::fixture::{EVENT_TYPE, Fixture};

on_each_backend! {
    the_success_of_a_paused_endpoint_ends_a_trouble,
    an_endpoint_that_is_switched_off_or_deleted_needs_nobody,
    an_order_that_goes_on_ends_a_trouble,
    the_end_of_a_trouble_outlives_a_restart_and_is_not_another_s,
    misfits_are_counted_by_type,
}

async fn last(at: &Fixture) -> Option<Timestamp> {
    at.store().last_trouble(at.tenant()).await.unwrap()
}

async fn the_success_of_a_paused_endpoint_ends_a_trouble(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.failing(&claim, Duration::from_millis(1))).await;
    at.advance(Duration::from_secs(1));
    let claim = at.claim_one().await;
    at.record(at.succeeding(&claim)).await;
    assert_eq!(last(&at).await, None, "one failure needs nobody");
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let claim = probe(&at).await;
    assert_eq!(last(&at).await, None, "it goes on");
    at.record(at.succeeding(&claim)).await;
    assert_eq!(last(&at).await, Some(at.clock_now()));
}

async fn an_endpoint_that_is_switched_off_or_deleted_needs_nobody(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.switch(&endpoint, false).await;
    at.switch(&endpoint, true).await;
    assert_eq!(last(&at).await, None, "it was well");
    pause(&at, &endpoint).await;
    at.update(&endpoint, EndpointChange { events: Some(endpoint.events.clone()), ..EndpointChange::default() }).await;
    assert_eq!(last(&at).await, None, "another change leaves it as it is");
    at.switch(&endpoint, false).await;
    let off = at.clock_now();
    assert_eq!(last(&at).await, Some(off));
    at.advance(Duration::from_secs(60));
    at.delete(&endpoint).await;
    assert_eq!(last(&at).await, Some(off), "it was off");
    let other = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_of(&other).await;
    at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    assert_eq!(at.found(&other).await.unwrap().disabled_reason, Some(DisabledReason::Gone));
    at.advance(Duration::from_secs(60));
    at.delete(&other).await;
    assert_eq!(last(&at).await, Some(at.clock_now()));
}

async fn an_order_that_goes_on_ends_a_trouble(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    at.publish(2).await;
    for is_skipped in [true, false] {
        let head = at.claim_of(&endpoint).await;
        let before = last(&at).await;
        at.record(at.failed(&head)).await;
        at.advance(Duration::from_secs(60));
        assert_eq!(last(&at).await, before, "the order stands still");
        if is_skipped {
            at.skip(head.delivery_id).await;
        } else {
            at.retry_by_hand(head.delivery_id).await;
        }
        assert_eq!(last(&at).await, Some(at.clock_now()));
    }
}

async fn the_end_of_a_trouble_outlives_a_restart_and_is_not_another_s(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.switch(&endpoint, false).await;
    let ended = Some(at.clock_now());
    at.reopen().await;
    assert_eq!(last(&at).await, ended);
    let other = at.other_workspace().await;
    for tenant in [at.test_tenant(), Tenant::whole(other.key, Mode::Live)] {
        assert_eq!(at.store().last_trouble(tenant).await.unwrap(), None);
    }
}

async fn misfits_are_counted_by_type(at: Fixture) {
    let misfit = |event: NewEvent| NewEvent { is_misfit: true, ..event };
    at.accept(vec![at.event(), misfit(at.event()), misfit(at.event()), misfit(at.test_event())]).await;
    let period = StatsPeriod::ending_at(at.clock_now(), BucketSize::Hour);
    let of = |tenant| at.store().misfits_by_type(tenant, period);
    assert_eq!(of(at.tenant()).await.unwrap(), [(EVENT_TYPE.to_owned(), 2)]);
    assert_eq!(of(at.test_tenant()).await.unwrap(), [(EVENT_TYPE.to_owned(), 1)]);
    let events = at.store().events_by_type(at.tenant(), period).await.unwrap();
    assert_eq!(events, [(EVENT_TYPE.to_owned(), 3)], "a misfit is an event too");
    at.advance(Duration::from_secs(49 * 3600));
    while at.store().fold_rollups(100).await.unwrap() {}
    let days = StatsPeriod::ending_at(at.clock_now(), BucketSize::Day);
    assert_eq!(at.store().misfits_by_type(at.tenant(), days).await.unwrap(), [(EVENT_TYPE.to_owned(), 2)]);
}
