//! Replays: which deliveries they send again, which they ignore, and how they progress.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::{Endpoint, EndpointChange};
use postrider_domain::id::{DeliveryId, ReplayId, StoreTag};
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, Replay, ReplayCount, ReplayRange, ReplaySelection, ReplayStatus};
use postrider_domain::time::Timestamp;
use postrider_store::{RequeueError, StopReplayError};

use crate::store::fixture::{Fixture, START, tenant_of};

on_each_backend! {
    a_replay_queues_failed_and_skipped_deliveries_again,
    a_range_includes_its_start_and_excludes_its_end,
    a_replay_selects_by_status,
    only_first_deliveries_of_events_are_replayed,
    a_delivery_already_retried_is_not_replayed,
    a_replay_repeats_only_its_own_mode,
    a_replay_with_a_test_key_sends_nothing,
    a_replay_ignores_deliveries_of_other_endpoints,
    a_replay_waits_while_live_deliveries_are_due,
    a_replay_queues_a_bounded_number_ahead_of_live_traffic,
    a_replay_goes_on_after_a_restart,
    a_stopped_replay_queues_nothing_more,
    a_replay_waits_while_its_endpoint_is_inactive,
    a_replay_stops_when_its_endpoint_is_deleted,
    a_replay_of_an_inactive_endpoint_is_refused,
    a_replay_is_visible_to_its_workspace_and_endpoint_only,
    replays_are_listed_newest_first,
    a_long_replay_does_not_hold_up_another,
    a_replay_over_many_steps_sends_what_was_counted,
}

const EVER: Timestamp = Timestamp::from_millis(253_402_300_799_999);

fn range(since: Timestamp, until: Timestamp) -> ReplayRange {
    ReplayRange { since, until, statuses: REPLAYED_BY_DEFAULT.to_vec() }
}

fn all() -> ReplayRange {
    range(START, EVER)
}

/// Advances all replays until none makes progress. Returns the number of log rows passed.
async fn run(at: &Fixture) -> usize {
    let mut passed = 0;
    loop {
        match at.store().advance_replays().await.unwrap() {
            None | Some(0) => return passed,
            Some(rows) => passed += rows,
        }
    }
}

async fn queued(at: &Fixture) -> Vec<Delivery> {
    let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Pending], ..DeliveryFilter::default() };
    let mut queued = at.deliveries_of(at.tenant(), filter).await;
    queued.retain(|delivery| delivery.cause == DeliveryCause::Replay);
    queued.reverse();
    queued
}

/// The deliveries that the queued replays repeat, oldest first.
async fn sources(at: &Fixture) -> Vec<DeliveryId> {
    queued(at).await.iter().map(|delivery| delivery.retry_of.expect("a replay repeats a delivery")).collect()
}

async fn refresh(at: &Fixture, endpoint: &Endpoint, replay: &Replay) -> Replay {
    at.store().find_replay(at.tenant(), Some(endpoint.id), replay.id).await.unwrap().expect("the replay was created")
}

/// Publishes `count` events and fails their deliveries. Returns the deliveries, oldest first.
async fn fail(at: &Fixture, count: usize) -> Vec<DeliveryId> {
    let mut failed = Vec::new();
    at.publish(count).await;
    for claim in at.claim(count).await.claims {
        at.record(at.failed(&claim)).await;
        failed.push(claim.delivery_id);
    }
    failed.sort_unstable();
    failed
}

async fn a_replay_queues_failed_and_skipped_deliveries_again(at: Fixture) {
    let endpoint = at.endpoint().await;
    let failed = fail(&at, 2).await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    at.switch(&endpoint, false).await;
    at.publish(1).await;
    let skipped = at.deliveries().await.remove(0).id;
    at.switch(&endpoint, true).await;
    at.publish(1).await;
    at.advance(Duration::from_secs(1));
    let count = at.count_replay(&endpoint, all(), Mode::Live).await;
    assert_eq!(count, ReplayCount { total: 3, ..ReplayCount::default() });
    let replay = at.replay(&endpoint, all()).await;
    assert_eq!((replay.status, replay.total, replay.replayed), (ReplayStatus::Running, 3, 0));
    let selection = ReplaySelection::Endpoint { id: endpoint.id, range: all() };
    assert_eq!((replay.selection.clone(), replay.completed_at), (selection, None));
    run(&at).await;
    assert_eq!(sources(&at).await, [failed[0], failed[1], skipped], "oldest first");
    let done = refresh(&at, &endpoint, &replay).await;
    assert_eq!((done.status, done.replayed, done.unavailable), (ReplayStatus::Completed, 3, 0));
    assert_eq!(done.completed_at, Some(at.clock_now()));
    assert_eq!(at.store().advance_replays().await.unwrap(), None);
    let claims = at.claim(10).await.claims;
    let replayed: Vec<_> = claims.iter().filter(|claim| claim.cause == DeliveryCause::Replay).collect();
    assert_eq!(replayed.len(), 3);
    assert!(replayed.iter().all(|claim| (claim.attempt, claim.step, claim.mode) == (1, 0, Mode::Live)));
}

async fn a_range_includes_its_start_and_excludes_its_end(at: Fixture) {
    let endpoint = at.endpoint().await;
    let mut failed = Vec::new();
    for _ in 0..4 {
        failed.extend(fail(&at, 1).await);
        at.advance(Duration::from_millis(1));
    }
    let after = |millis| START.plus(Duration::from_millis(millis));
    for (since, until, expected) in [(0, 4, 4), (1, 3, 2), (3, 4, 1), (4, 9, 0), (2, 2, 0), (3, 1, 0)] {
        let count = at.count_replay(&endpoint, range(after(since), after(until)), Mode::Live).await;
        assert_eq!(count.total, expected, "{since} to {until}");
    }
    at.replay(&endpoint, range(after(1), after(3))).await;
    run(&at).await;
    assert_eq!(sources(&at).await, failed[1..3]);
}

async fn a_replay_selects_by_status(at: Fixture) {
    let endpoint = at.endpoint().await;
    let failed = fail(&at, 1).await;
    at.publish(1).await;
    let delivered = at.claim_one().await;
    at.record(at.delivered(&delivered)).await;
    for (statuses, expected) in [
        (vec![DeliveryStatus::Failed], 1),
        (vec![DeliveryStatus::Delivered], 1),
        (vec![DeliveryStatus::Delivered, DeliveryStatus::Failed], 2),
        (vec![DeliveryStatus::Cancelled], 0),
        (vec![DeliveryStatus::Skipped], 0),
    ] {
        let selected = ReplayRange { statuses: statuses.clone(), ..all() };
        assert_eq!(at.count_replay(&endpoint, selected, Mode::Live).await.total, expected, "{statuses:?}");
    }
    let selected = ReplayRange { statuses: vec![DeliveryStatus::Delivered, DeliveryStatus::Failed], ..all() };
    let replay = at.replay(&endpoint, selected.clone()).await;
    assert_eq!(refresh(&at, &endpoint, &replay).await.selection.range(), Some(&selected), "the range reads back");
    run(&at).await;
    assert_eq!(sources(&at).await, [failed[0], delivered.delivery_id]);
}

async fn only_first_deliveries_of_events_are_replayed(at: Fixture) {
    let endpoint = at.endpoint().await;
    let first = fail(&at, 1).await[0];
    at.retry_by_hand(first).await;
    at.accept_test(&endpoint).await;
    for claim in at.claim(10).await.claims {
        at.record(at.failed(&claim)).await;
    }
    for round in 1..=2 {
        assert_eq!(at.count_replay(&endpoint, all(), Mode::Live).await.total, 1, "round {round}");
        at.replay(&endpoint, all()).await;
        run(&at).await;
        assert_eq!(sources(&at).await, [first], "not the retry, the test or an earlier replay");
        let claim = at.claim_one().await;
        at.record(at.failed(&claim)).await;
    }
}

async fn a_delivery_already_retried_is_not_replayed(at: Fixture) {
    let endpoint = at.endpoint().await;
    let failed = fail(&at, 3).await;
    at.retry_by_hand(failed[0]).await;
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    at.retry_by_hand(failed[1]).await;
    assert_eq!(at.count_replay(&endpoint, all(), Mode::Live).await.total, 1);
    at.replay(&endpoint, all()).await;
    at.replay(&endpoint, all()).await;
    run(&at).await;
    assert_eq!(sources(&at).await, [failed[2]], "two concurrent replays send nothing twice");
}

async fn a_replay_repeats_only_its_own_mode(at: Fixture) {
    let endpoint = at.endpoint().await;
    fail(&at, 2).await;
    assert_eq!(at.count_replay(&endpoint, all(), Mode::Live).await.total, 2);
    assert_eq!(at.count_replay(&endpoint, all(), Mode::Test).await.total, 0);
    let refused = at.try_replay(&endpoint, all(), Mode::Test, 0).await;
    assert!(matches!(refused, Err(RequeueError::NotFound)), "{refused:?}");
}

async fn a_replay_with_a_test_key_sends_nothing(at: Fixture) {
    let endpoint = at.test_endpoint().await;
    let switch = async |is_active| {
        let change = EndpointChange { is_active: Some(is_active), ..EndpointChange::default() };
        at.try_update(at.test_tenant(), endpoint.id, change, 10).await.unwrap();
    };
    switch(false).await;
    at.accept(vec![at.test_event(), at.test_event()]).await;
    switch(true).await;
    assert_eq!(at.count_replay(&endpoint, all(), Mode::Test).await.total, 2);
    let replay = at.try_replay(&endpoint, all(), Mode::Test, 2).await.unwrap();
    assert_eq!(replay.mode, Mode::Test);
    run(&at).await;
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.iter().map(|claim| claim.mode).collect::<Vec<_>>(), [Mode::Test, Mode::Test]);
}

async fn a_replay_ignores_deliveries_of_other_endpoints(at: Fixture) {
    let [first, second] = &at.endpoints(2).await[..] else { panic!("two endpoints") };
    at.publish(1).await;
    for claim in at.claim(2).await.claims {
        at.record(at.failed(&claim)).await;
    }
    at.replay(first, all()).await;
    run(&at).await;
    assert!(queued(&at).await.iter().all(|delivery| delivery.endpoint_id == first.id));
    assert_eq!(at.count_replay(first, all(), Mode::Live).await.total, 0);
    assert_eq!(at.count_replay(second, all(), Mode::Live).await.total, 1);
}

async fn a_replay_waits_while_live_deliveries_are_due(at: Fixture) {
    let endpoint = at.endpoint().await;
    let failed = fail(&at, 1).await;
    at.publish(60).await;
    let replay = at.replay(&endpoint, all()).await;
    assert_eq!(run(&at).await, 0);
    assert_eq!(refresh(&at, &endpoint, &replay).await.status, ReplayStatus::Running);
    for claim in at.claim(60).await.claims {
        at.record(at.delivered(&claim)).await;
    }
    run(&at).await;
    assert_eq!(sources(&at).await, failed);
    assert_eq!(refresh(&at, &endpoint, &replay).await.status, ReplayStatus::Completed);
}

async fn a_replay_queues_a_bounded_number_ahead_of_live_traffic(at: Fixture) {
    let endpoint = at.endpoint().await;
    fail(&at, 400).await;
    let replay = at.replay(&endpoint, all()).await;
    let mut steps = 0;
    while refresh(&at, &endpoint, &replay).await.status == ReplayStatus::Running {
        run(&at).await;
        let claims = at.claim(1_000).await.claims;
        assert!((1..=150).contains(&claims.len()), "{} at once", claims.len());
        for claim in claims {
            at.record(at.delivered(&claim)).await;
        }
        steps += 1;
    }
    assert!(steps > 2, "{steps} steps");
    assert_eq!(refresh(&at, &endpoint, &replay).await.replayed, 400);
}

async fn a_replay_goes_on_after_a_restart(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    fail(&at, 250).await;
    let replay = at.replay(&endpoint, all()).await;
    let mut replayed = Vec::new();
    loop {
        at.store().advance_replays().await.unwrap();
        at.reopen().await;
        replayed.extend(at.claim(1_000).await.claims);
        if refresh(&at, &endpoint, &replay).await.status == ReplayStatus::Completed {
            break;
        }
    }
    let mut events: Vec<_> = replayed.iter().map(|claim| claim.event_id).collect();
    events.sort_unstable();
    events.dedup();
    assert_eq!(events.len(), 250);
    assert_eq!(refresh(&at, &endpoint, &replay).await.replayed, 250, "each delivery is replayed once");
}

async fn a_stopped_replay_queues_nothing_more(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    fail(&at, 250).await;
    let replay = at.replay(&endpoint, all()).await;
    at.store().advance_replays().await.unwrap();
    let stopped_at = at.clock_now();
    let stopped = at.stop_replay(&endpoint, replay.id).await.unwrap();
    assert_eq!((stopped.status, stopped.completed_at), (ReplayStatus::Stopped, Some(stopped_at)));
    assert!((1..250).contains(&stopped.replayed), "{}", stopped.replayed);
    at.advance(Duration::from_secs(1));
    for _ in 0..2 {
        assert_eq!(at.store().advance_replays().await.unwrap(), None);
        let again = at.stop_replay(&endpoint, replay.id).await.unwrap();
        assert_eq!(format!("{again:?}"), format!("{stopped:?}"), "an ended replay stays unchanged");
        at.reopen().await;
    }
    let queued = at.claim(1_000).await.claims.len() as u64;
    assert_eq!(queued, stopped.replayed, "deliveries that it queued are still sent");
    let short = at.replay(&endpoint, range(START, START)).await;
    run(&at).await;
    let ended = at.stop_replay(&endpoint, short.id).await.unwrap();
    assert_eq!(ended.status, ReplayStatus::Completed);
}

async fn a_replay_waits_while_its_endpoint_is_inactive(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    fail(&at, 150).await;
    let replay = at.replay(&endpoint, all()).await;
    at.store().advance_replays().await.unwrap();
    for claim in at.claim(1_000).await.claims {
        at.record(at.delivered(&claim)).await;
    }
    at.switch(&endpoint, false).await;
    assert_eq!(at.store().advance_replays().await.unwrap(), Some(0), "the replay waits");
    at.reopen().await;
    at.advance(Duration::from_secs(86_400));
    assert_eq!(at.store().advance_replays().await.unwrap(), Some(0));
    assert_eq!(refresh(&at, &endpoint, &replay).await.status, ReplayStatus::Running);
    at.switch(&endpoint, true).await;
    run(&at).await;
    let done = refresh(&at, &endpoint, &replay).await;
    assert_eq!((done.status, done.replayed), (ReplayStatus::Completed, 150));
}

async fn a_replay_stops_when_its_endpoint_is_deleted(at: Fixture) {
    let endpoint = at.endpoint().await;
    fail(&at, 150).await;
    let replay = at.replay(&endpoint, all()).await;
    at.store().advance_replays().await.unwrap();
    for claim in at.claim(1_000).await.claims {
        at.record(at.delivered(&claim)).await;
    }
    at.delete(&endpoint).await;
    run(&at).await;
    let stopped = refresh(&at, &endpoint, &replay).await;
    assert_eq!((stopped.status, stopped.replayed), (ReplayStatus::Stopped, 100));
    assert_eq!(at.store().advance_replays().await.unwrap(), None);
    assert!(at.claim(10).await.claims.is_empty());
}

async fn a_replay_of_an_inactive_endpoint_is_refused(at: Fixture) {
    let endpoint = at.endpoint().await;
    fail(&at, 1).await;
    at.switch(&endpoint, false).await;
    let refused = at.try_replay(&endpoint, all(), Mode::Live, 1).await;
    assert!(matches!(refused, Err(RequeueError::EndpointOff)), "{refused:?}");
    assert_eq!(at.count_replay(&endpoint, all(), Mode::Live).await.total, 1, "the count is available nevertheless");
    at.delete(&endpoint).await;
    let refused = at.try_replay(&endpoint, all(), Mode::Live, 1).await;
    assert!(matches!(refused, Err(RequeueError::NotFound)), "{refused:?}");
    assert_eq!(at.store().advance_replays().await.unwrap(), None);
}

async fn a_replay_is_visible_to_its_workspace_and_endpoint_only(at: Fixture) {
    let [endpoint, neighbour] = &at.endpoints(2).await[..] else { panic!("two endpoints") };
    let other = at.other_workspace().await;
    let replay = at.replay(endpoint, all()).await;
    let elsewhere = ReplayId::new(replay.id.key(), StoreTag::from_u32(at.store().tag().as_u32() ^ 1));
    let unknown = ReplayId::new(at.store().next_key(), at.store().tag());
    for (tenant, endpoint_id, id) in [
        (tenant_of(other.key), endpoint.id, replay.id),
        (at.tenant(), neighbour.id, replay.id),
        (at.tenant(), endpoint.id, elsewhere),
        (at.tenant(), endpoint.id, unknown),
    ] {
        assert!(at.store().find_replay(tenant, Some(endpoint_id), id).await.unwrap().is_none());
        let refused = at.try_stop_replay(tenant, endpoint_id, id).await;
        assert!(matches!(refused, Err(StopReplayError::NotFound)), "{refused:?}");
    }
    let page = PageRequest::parse(None, None).unwrap();
    assert!(at.store().list_replays(tenant_of(other.key), Some(endpoint.id), page).await.unwrap().is_none());
    assert!(at.store().list_replays(at.tenant(), Some(neighbour.id), page).await.unwrap().unwrap().items.is_empty());
    assert_eq!(refresh(&at, endpoint, &replay).await.status, ReplayStatus::Running);
}

async fn replays_are_listed_newest_first(at: Fixture) {
    let endpoint = at.endpoint().await;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.insert(0, at.replay(&endpoint, all()).await.id);
    }
    let (mut walked, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest::parse(Some("2"), cursor.as_deref()).unwrap();
        let page = at.store().list_replays(at.tenant(), Some(endpoint.id), page).await.unwrap().unwrap();
        walked.extend(page.items.iter().map(|replay| replay.id));
        let Some(next) = page.next else { break };
        cursor = Some(encode_cursor(next));
    }
    assert_eq!(walked, created);
}

async fn a_long_replay_does_not_hold_up_another(at: Fixture) {
    let [long, short] = &at.endpoints(2).await[..] else { panic!("two endpoints") };
    for endpoint in [long, short] {
        at.switch(endpoint, false).await;
    }
    for _ in 0..3 {
        at.publish(1_000).await;
    }
    for endpoint in [long, short] {
        at.switch(endpoint, true).await;
    }
    at.replay(long, all()).await;
    let last = START.plus(Duration::from_secs(1));
    at.advance(Duration::from_secs(1));
    at.switch(short, false).await;
    at.publish(1).await;
    at.switch(short, true).await;
    let replay = at.replay(short, range(last, EVER)).await;
    at.store().advance_replays().await.unwrap();
    assert_eq!(
        refresh(&at, short, &replay).await.status,
        ReplayStatus::Completed,
        "the first step completes the short replay"
    );
}

async fn a_replay_over_many_steps_sends_what_was_counted(at: Fixture) {
    const SKIPPED: u64 = 5_000;
    let endpoint = at.endpoint().await;
    at.switch(&endpoint, false).await;
    for _ in 0..SKIPPED / 1_000 {
        at.publish(1_000).await;
    }
    at.switch(&endpoint, true).await;
    let (_, next) = at.first_count(&endpoint, all(), Mode::Live).await;
    assert!(next.is_some(), "one read counts a bounded number of rows");
    let count = at.count_replay(&endpoint, all(), Mode::Live).await;
    assert_eq!(count, ReplayCount { total: SKIPPED, ..ReplayCount::default() });
    let replay = at.replay(&endpoint, all()).await;
    while refresh(&at, &endpoint, &replay).await.status == ReplayStatus::Running {
        run(&at).await;
        let outcomes = at.claim(1_000).await.claims.iter().map(|claim| at.delivered(claim)).collect();
        at.store().record_outcomes_if_claimed(outcomes).await.unwrap();
    }
    let done = refresh(&at, &endpoint, &replay).await;
    assert_eq!((done.total, done.replayed, done.unavailable), (SKIPPED, SKIPPED, 0));
    assert_eq!(at.count_replay(&endpoint, all(), Mode::Live).await.total, 0);
}
