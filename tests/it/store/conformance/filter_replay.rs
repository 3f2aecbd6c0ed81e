//! Replays by filter: which deliveries they send again, to which endpoints, and how they progress.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EndpointId, RowKey};
use postrider_domain::list_filter::filter_from_pairs;
use postrider_domain::replay::{
    REPLAYED_BY_DEFAULT, Replay, ReplayCount, ReplayRange, ReplaySelection, ReplayStatus, replayable,
};
use postrider_domain::tenant::Tenant;
use postrider_store::{FilterScope, Lane, LaneQuota, NewEndpoint, NewReplay, OutcomeRecord, StopReplayError};

use crate::store::fixture::{AUTHOR, EVENT_TYPE, Fixture, START, done, tenant_of, write};

on_each_backend! {
    every_delivery_that_passes_is_queued_again,
    each_parameter_narrows_what_is_sent,
    of_several_deliveries_of_an_event_the_last_is_repeated,
    what_has_arrived_or_is_queued_is_not_repeated,
    what_was_created_or_ended_later_is_not_repeated,
    tests_and_the_other_mode_are_not_repeated,
    a_busy_endpoint_does_not_hold_up_the_others,
    deliveries_to_an_endpoint_that_is_off_wait_until_it_is_on,
    deliveries_to_a_deleted_endpoint_are_unavailable,
    it_goes_on_after_a_restart_and_sends_each_once,
    it_waits_behind_live_traffic_and_can_be_stopped,
    it_ends_with_its_workspace,
    a_project_sees_and_sends_only_what_is_its_own,
    all_replays_are_listed_together,
    a_long_count_is_made_in_steps,
}

fn of_status(status: DeliveryStatus) -> DeliveryFilter {
    DeliveryFilter { statuses: vec![status], ..DeliveryFilter::default() }
}

fn failed() -> DeliveryFilter {
    of_status(DeliveryStatus::Failed)
}

/// The filter as the service keeps it, a moment later.
fn narrowed(at: &Fixture, filter: DeliveryFilter) -> DeliveryFilter {
    at.advance(Duration::from_millis(1));
    replayable(filter, at.clock_now()).unwrap()
}

async fn count_in(at: &Fixture, tenant: Tenant, filter: DeliveryFilter) -> ReplayCount {
    let scope = FilterScope { tenant, filter: narrowed(at, filter), asked_at: at.clock_now() };
    let (mut sum, mut after) = (ReplayCount::default(), Some(RowKey::from_i64(0)));
    while let Some(from) = after {
        let (step, next) = at.store().count_filtered(scope.clone(), from).await.unwrap();
        sum.total += step.total;
        sum.unavailable += step.unavailable;
        after = next;
    }
    sum
}

async fn count(at: &Fixture, filter: DeliveryFilter) -> ReplayCount {
    count_in(at, at.tenant(), filter).await
}

/// Counts and starts.
async fn start_in(at: &Fixture, tenant: Tenant, filter: DeliveryFilter) -> Replay {
    let count = count_in(at, tenant, filter.clone()).await;
    let selection = ReplaySelection::Filter(Box::new(narrowed(at, filter)));
    done(at.store().create_replay(write(tenant), NewReplay { selection, count }).await.unwrap())
}

async fn start(at: &Fixture, filter: DeliveryFilter) -> Replay {
    start_in(at, at.tenant(), filter).await
}

async fn refresh(at: &Fixture, replay: &Replay) -> Replay {
    at.store().find_replay(at.tenant(), None, replay.id).await.unwrap().expect("the replay was created")
}

/// Advances all replays until none makes progress.
async fn run(at: &Fixture) {
    while at.store().advance_replays().await.unwrap().is_some_and(|passed| passed > 0) {}
}

/// Advances all replays, and delivers what they queue, until none runs.
async fn run_to_the_end(at: &Fixture) {
    while at.store().advance_replays().await.unwrap().is_some() {
        deliver(at).await;
    }
}

async fn deliver(at: &Fixture) {
    let outcomes = at.claim(1_000).await.claims.iter().map(|claim| at.delivered(claim)).collect();
    at.store().record_outcomes_if_claimed(outcomes).await.unwrap();
}

/// Fails everything that is due. Returns the deliveries, oldest first.
async fn fail_due(at: &Fixture) -> Vec<DeliveryId> {
    let claims = at.claim(1_000).await.claims;
    at.store().record_outcomes_if_claimed(claims.iter().map(|claim| at.failed(claim)).collect()).await.unwrap();
    let mut ids: Vec<_> = claims.iter().map(|claim| claim.delivery_id).collect();
    ids.sort_unstable();
    ids
}

/// Publishes `events` events, and fails all of their deliveries.
async fn fail(at: &Fixture, events: usize) -> Vec<DeliveryId> {
    at.publish(events).await;
    fail_due(at).await
}

/// The pending deliveries that replays have made, oldest first.
async fn queued(at: &Fixture) -> Vec<Delivery> {
    let mut queued = at.deliveries_of(at.tenant(), of_status(DeliveryStatus::Pending)).await;
    queued.retain(|delivery| delivery.cause == DeliveryCause::Replay);
    queued.reverse();
    queued
}

/// What the queued deliveries repeat, oldest first.
async fn sources(at: &Fixture) -> Vec<DeliveryId> {
    queued(at).await.iter().map(|delivery| delivery.retry_of.expect("a replay repeats a delivery")).collect()
}

async fn every_delivery_that_passes_is_queued_again(at: Fixture) {
    at.endpoints(3).await;
    let all = fail(&at, 2).await;
    at.publish(1).await;
    deliver(&at).await;
    assert_eq!(count(&at, failed()).await, ReplayCount { total: 6, ..ReplayCount::default() });
    let replay = start(&at, failed()).await;
    assert_eq!((replay.status, replay.total, replay.replayed), (ReplayStatus::Running, 6, 0));
    assert_eq!((replay.selection.endpoint_id(), replay.counted_to, replay.completed_at), (None, None, None));
    let ReplaySelection::Filter(filter) = &replay.selection else { panic!("not by filter: {replay:?}") };
    let until = Some(at.clock_now());
    assert_eq!(**filter, DeliveryFilter { until, ..failed() }, "the filter reads back");
    run(&at).await;
    assert_eq!(sources(&at).await, all, "oldest first");
    let ended = refresh(&at, &replay).await;
    assert_eq!((ended.status, ended.replayed, ended.unavailable), (ReplayStatus::Completed, 6, 0));
    assert_eq!((ended.completed_at, at.store().advance_replays().await.unwrap()), (Some(at.clock_now()), None));
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 6);
    assert!(claims.iter().all(|claim| (claim.cause, claim.attempt) == (DeliveryCause::Replay, 1)));
}

async fn each_parameter_narrows_what_is_sent(at: Fixture) {
    let [first, _] = &at.endpoints(2).await[..] else { panic!("two endpoints") };
    let event = at.accept(vec![at.event_of(EVENT_TYPE, None)]).await[0].id.to_string();
    fail_due(&at).await;
    at.advance(Duration::from_secs(1));
    let (first, now) = (first.id.to_string(), at.clock_now().to_string());
    at.publish(1).await;
    let mut unavailable = Vec::new();
    for claim in at.claim(2).await.claims {
        let OutcomeRecord { after, .. } = at.failed(&claim);
        at.record(at.outcome(&claim, 503, after)).await;
        unavailable.push(claim.delivery_id);
    }
    for (pairs, expected) in [
        (&[("status", "failed")][..], 4),
        (&[("status", "skipped")], 0),
        (&[("endpointId", first.as_str())], 2),
        (&[("endpointId", first.as_str()), ("status", "failed,delivered")], 2),
        (&[("eventId", event.as_str())], 2),
        (&[("eventId", event.as_str()), ("endpointId", first.as_str())], 1),
        (&[("eventType", EVENT_TYPE)], 4),
        (&[("eventType", "other.type")], 0),
        (&[("projectId", "p")], 0),
        (&[("since", now.as_str())], 2),
        (&[("until", now.as_str())], 2),
        (&[("responseStatus", "503")], 2),
        (&[("responseStatus", "5xx"), ("endpointId", first.as_str())], 2),
        (&[("outcome", "http_error")], 4),
        (&[("outcome", "timeout")], 0),
        (&[("cause", "event")], 4),
        (&[("cause", "retry,replay")], 0),
    ] {
        assert_eq!(count(&at, filter(pairs)).await.total, expected, "{pairs:?}");
    }
    start(&at, filter(&[("responseStatus", "503"), ("eventType", EVENT_TYPE)])).await;
    run(&at).await;
    unavailable.sort_unstable();
    assert_eq!(sources(&at).await, unavailable);
}

fn filter(pairs: &[(&str, &str)]) -> DeliveryFilter {
    filter_from_pairs(pairs.iter().copied(), &|name| Ok(EventTypeName::from_stored(name))).unwrap()
}

async fn of_several_deliveries_of_an_event_the_last_is_repeated(at: Fixture) {
    at.endpoint().await;
    let first = fail(&at, 1).await[0];
    at.retry_by_hand(first).await;
    let again = fail_due(&at).await[0];
    assert_eq!(count(&at, failed()).await.total, 1);
    assert_eq!(count(&at, filter(&[("status", "failed"), ("cause", "event")])).await.total, 1);
    let replay = start(&at, failed()).await;
    run_to_the_end(&at).await;
    let sent = at.deliveries_of(at.tenant(), filter(&[("cause", "replay")])).await;
    assert_eq!(sent.iter().map(|delivery| delivery.retry_of).collect::<Vec<_>>(), [Some(again)]);
    assert_eq!(refresh(&at, &replay).await.replayed, 1);
    start(&at, of_status(DeliveryStatus::Delivered)).await;
    run(&at).await;
    assert_eq!(sources(&at).await, [sent[0].id], "what has arrived is sent again when the filter asks for it");
}

async fn what_has_arrived_or_is_queued_is_not_repeated(at: Fixture) {
    at.endpoint().await;
    let all = fail(&at, 3).await;
    at.retry_by_hand(all[0]).await;
    deliver(&at).await;
    at.retry_by_hand(all[1]).await;
    assert_eq!(count(&at, failed()).await.total, 1);
    let replays = [start(&at, failed()).await, start(&at, failed()).await];
    run(&at).await;
    assert_eq!(sources(&at).await, [all[2]], "two replays at once send nothing twice");
    let mut replayed = 0;
    for replay in replays {
        let ended = refresh(&at, &replay).await;
        assert_eq!(ended.status, ReplayStatus::Completed);
        replayed += ended.replayed;
    }
    assert_eq!(replayed, 1);
}

async fn what_was_created_or_ended_later_is_not_repeated(at: Fixture) {
    at.endpoint().await;
    let before = fail(&at, 1).await;
    at.publish(1).await;
    let pending = at.claim_one().await;
    let replay = start(&at, failed()).await;
    at.advance(Duration::from_secs(1));
    at.record(at.failed(&pending)).await;
    fail(&at, 1).await;
    run(&at).await;
    assert_eq!(sources(&at).await, before);
    assert_eq!((refresh(&at, &replay).await.total, refresh(&at, &replay).await.replayed), (1, 1));
}

async fn tests_and_the_other_mode_are_not_repeated(at: Fixture) {
    let endpoint = at.endpoint().await;
    let all = fail(&at, 1).await;
    at.accept_test(&endpoint).await;
    fail_due(&at).await;
    assert_eq!(count(&at, failed()).await.total, 1);
    let test = Tenant { mode: Mode::Test, ..at.tenant() };
    assert_eq!(count_in(&at, test, failed()).await.total, 0);
    let other = start_in(&at, test, failed()).await;
    assert_eq!(other.mode, Mode::Test);
    assert!(at.store().find_replay(at.tenant(), None, other.id).await.unwrap().is_none());
    start(&at, failed()).await;
    run(&at).await;
    assert_eq!(sources(&at).await, all);
}

/// Claims deliveries of one endpoint alone.
struct OnlyOf(RowKey);

impl LaneQuota for OnlyOf {
    fn quota(&self, lane: Lane) -> usize {
        if lane.endpoint_key == self.0 { usize::MAX } else { 0 }
    }
}

async fn a_busy_endpoint_does_not_hold_up_the_others(at: Fixture) {
    let [busy, idle] = &at.endpoints(2).await[..] else { panic!("two endpoints") };
    fail(&at, 300).await;
    at.switch(idle, false).await;
    at.publish(60).await;
    at.switch(idle, true).await;
    let replay = start(&at, failed()).await;
    while refresh(&at, &replay).await.replayed < 300 {
        assert_ne!(at.store().advance_replays().await.unwrap(), Some(0), "the idle endpoint has more to get");
        let claims = at.claim_within(1_000, OnlyOf(idle.key)).await.claims;
        let outcomes = claims.iter().map(|claim| at.delivered(claim)).collect();
        at.store().record_outcomes_if_claimed(outcomes).await.unwrap();
    }
    run(&at).await;
    let waits = refresh(&at, &replay).await;
    assert_eq!((waits.status, waits.replayed), (ReplayStatus::Running, 300), "it waits for the busy one");
    let live = at.claim(1_000).await.claims;
    assert_eq!(live.len(), 60);
    assert!(live.iter().all(|claim| (claim.lane.endpoint_key, claim.cause) == (busy.key, DeliveryCause::Event)));
    at.store().record_outcomes_if_claimed(live.iter().map(|claim| at.delivered(claim)).collect()).await.unwrap();
    run_to_the_end(&at).await;
    let ended = refresh(&at, &replay).await;
    assert_eq!((ended.status, ended.replayed, ended.unavailable), (ReplayStatus::Completed, 600, 0));
}

async fn deliveries_to_an_endpoint_that_is_off_wait_until_it_is_on(at: Fixture) {
    let [off, on] = &at.endpoints(2).await[..] else { panic!("two endpoints") };
    fail(&at, 200).await;
    at.switch(off, false).await;
    let replay = start(&at, failed()).await;
    loop {
        at.store().advance_replays().await.unwrap();
        let claims = at.claim(1_000).await.claims;
        if claims.is_empty() {
            break;
        }
        assert!(claims.iter().all(|claim| claim.lane.endpoint_key == on.key));
        at.store().record_outcomes_if_claimed(claims.iter().map(|claim| at.delivered(claim)).collect()).await.unwrap();
    }
    let waiting = queued(&at).await;
    assert!((50..=150).contains(&waiting.len()), "{} wait, and no more than a replay may queue", waiting.len());
    assert!(waiting.iter().all(|delivery| delivery.endpoint_id == off.id && delivery.next_attempt_at.is_none()));
    assert_eq!(at.store().advance_replays().await.unwrap(), Some(0), "the rest waits for the endpoint");
    at.switch(off, true).await;
    run_to_the_end(&at).await;
    let ended = refresh(&at, &replay).await;
    assert_eq!((ended.status, ended.total, ended.replayed), (ReplayStatus::Completed, 400, 400));
}

async fn deliveries_to_a_deleted_endpoint_are_unavailable(at: Fixture) {
    let [gone, kept] = &at.endpoints(2).await[..] else { panic!("two endpoints") };
    fail(&at, 2).await;
    at.delete(gone).await;
    assert_eq!(count(&at, failed()).await, ReplayCount { total: 4, unavailable: 2, counted_to: None });
    let replay = start(&at, failed()).await;
    run(&at).await;
    let ended = refresh(&at, &replay).await;
    assert_eq!((ended.status, ended.replayed, ended.unavailable), (ReplayStatus::Completed, 2, 2));
    assert!(queued(&at).await.iter().all(|delivery| delivery.endpoint_id == kept.id));
}

async fn it_goes_on_after_a_restart_and_sends_each_once(mut at: Fixture) {
    at.endpoints(2).await;
    fail(&at, 150).await;
    let replay = start(&at, failed()).await;
    let mut sent = Vec::new();
    while refresh(&at, &replay).await.status == ReplayStatus::Running {
        at.store().advance_replays().await.unwrap();
        at.reopen().await;
        let claims = at.claim(1_000).await.claims;
        at.store().record_outcomes_if_claimed(claims.iter().map(|claim| at.failed(claim)).collect()).await.unwrap();
        sent.extend(claims.iter().map(|claim| (claim.event_id, claim.lane.endpoint_key)));
    }
    assert_eq!(refresh(&at, &replay).await.replayed, 300);
    assert_eq!((sent.len(), sent.iter().collect::<BTreeSet<_>>().len()), (300, 300), "also when it fails again");
}

async fn it_waits_behind_live_traffic_and_can_be_stopped(at: Fixture) {
    at.endpoint().await;
    fail(&at, 250).await;
    at.publish(60).await;
    let replay = start(&at, failed()).await;
    run(&at).await;
    assert_eq!(refresh(&at, &replay).await.replayed, 0);
    deliver(&at).await;
    run(&at).await;
    let queued = refresh(&at, &replay).await.replayed;
    assert!((1..=100).contains(&queued), "{queued} at once");
    let stopped = at.store().stop_replay(write(at.tenant()), None, replay.id).await.map(done).unwrap();
    assert_eq!((stopped.status, stopped.completed_at), (ReplayStatus::Stopped, Some(at.clock_now())));
    deliver(&at).await;
    assert_eq!(at.store().advance_replays().await.unwrap(), None);
    assert_eq!(refresh(&at, &replay).await.replayed, queued);
    let entries = at.audit().await;
    let actions: Vec<_> = entries.iter().filter(|entry| entry.resource_id == replay.id.to_string()).collect();
    assert_eq!(actions.len(), 2, "{actions:?}");
}

async fn it_ends_with_its_workspace(at: Fixture) {
    at.endpoint().await;
    fail(&at, 1).await;
    let replay = start(&at, failed()).await;
    at.store().delete_workspace(at.workspace.id, AUTHOR, None).await.unwrap();
    run(&at).await;
    assert_eq!(at.store().advance_replays().await.unwrap(), None);
    let stopped = refresh(&at, &replay).await;
    assert_eq!((stopped.status, stopped.replayed), (ReplayStatus::Stopped, 0));
}

async fn a_project_sees_and_sends_only_what_is_its_own(at: Fixture) {
    let project = |text: &str| ProjectId::parse(text).ok();
    let endpoint = |text| NewEndpoint { project_id: project(text), ..at.new_endpoint() };
    let (own, other) = (at.create(endpoint("a")).await, at.create(endpoint("b")).await);
    at.accept(vec![at.event_of(EVENT_TYPE, Some("a")), at.event_of(EVENT_TYPE, Some("b"))]).await;
    fail_due(&at).await;
    let narrowed = Tenant { project: project("a"), ..at.tenant() };
    for statuses in [vec![DeliveryStatus::Failed], vec![DeliveryStatus::Failed, DeliveryStatus::Delivered]] {
        let filter = DeliveryFilter { statuses, ..DeliveryFilter::default() };
        assert_eq!((count(&at, filter.clone()).await.total, count_in(&at, narrowed, filter).await.total), (2, 1));
    }
    let whole = start(&at, failed()).await;
    let replay = start_in(&at, narrowed, failed()).await;
    let others = start_in(&at, Tenant { project: project("b"), ..at.tenant() }, failed()).await;
    for (id, is_seen) in [(replay.id, true), (whole.id, false), (others.id, false)] {
        assert_eq!(at.store().find_replay(narrowed, None, id).await.unwrap().is_some(), is_seen);
    }
    let listed = at.store().list_replays(narrowed, None, Fixture::page()).await.unwrap().unwrap();
    assert_eq!(listed.items.iter().map(|replay| replay.id).collect::<Vec<_>>(), [replay.id]);
    for stopped in [whole.id, others.id] {
        let refused = at.store().stop_replay(write(narrowed), None, stopped).await;
        assert!(matches!(refused, Err(StopReplayError::NotFound)), "{refused:?}");
        at.store().stop_replay(write(at.tenant()), None, stopped).await.unwrap();
    }
    run(&at).await;
    let sent = queued(&at).await;
    assert_eq!(sent.iter().map(|delivery| delivery.endpoint_id).collect::<Vec<_>>(), [own.id], "{:?}", other.id);
}

async fn all_replays_are_listed_together(at: Fixture) {
    let endpoint = at.endpoint().await;
    let first =
        at.replay(&endpoint, ReplayRange { since: START, until: START, statuses: REPLAYED_BY_DEFAULT.to_vec() }).await;
    let second = start(&at, failed()).await;
    let listed = async |tenant, of: Option<EndpointId>| {
        let page = at.store().list_replays(tenant, of, Fixture::page()).await.unwrap().unwrap();
        page.items.iter().map(|replay| replay.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(at.tenant(), None).await, [second.id, first.id]);
    assert_eq!(listed(at.tenant(), Some(endpoint.id)).await, [first.id]);
    assert!(at.store().find_replay(at.tenant(), None, first.id).await.unwrap().is_some());
    assert!(at.store().find_replay(at.tenant(), Some(endpoint.id), second.id).await.unwrap().is_none());
    let elsewhere = tenant_of(at.other_workspace().await.key);
    assert_eq!(listed(elsewhere, None).await, []);
    assert!(at.store().find_replay(elsewhere, None, second.id).await.unwrap().is_none());
}

async fn a_long_count_is_made_in_steps(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.switch(&endpoint, false).await;
    for _ in 0..5 {
        at.publish(1_000).await;
        at.advance(Duration::from_secs(1));
    }
    let of_both = [DeliveryStatus::Skipped, DeliveryStatus::Delivered];
    let filter = DeliveryFilter { statuses: of_both.to_vec(), ..DeliveryFilter::default() };
    let scope = FilterScope { tenant: at.tenant(), filter: narrowed(&at, filter.clone()), asked_at: at.clock_now() };
    let (step, next) = at.store().count_filtered(scope, RowKey::from_i64(0)).await.unwrap();
    assert!(step.total < 5_000 && next.is_some(), "one read looks at a bounded number of rows: {step:?}");
    assert_eq!(count(&at, filter).await.total, 5_000);
}
