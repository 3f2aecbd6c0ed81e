//! Claims: numbered, fenced by a token, limited by a lease, and at most one per delivery.

use std::collections::HashSet;
use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::DeliveryFilter;
use postrider_domain::event::NewEvent;
use postrider_domain::limits;
use postrider_store::Recorded;

use crate::store::filled::trace;
use crate::store::fixture::{EachLane, Fixture, outline};

on_each_backend! {
    the_first_claim_of_a_delivery_is_attempt_one,
    a_claim_names_the_workspace_and_the_endpoint,
    a_claim_carries_the_trace_of_its_event,
    a_delivery_is_never_claimed_twice_under_a_live_lease,
    concurrent_claims_share_nothing,
    a_claim_takes_no_more_than_its_limit,
    a_lane_is_claimed_oldest_first,
    a_lost_claim_is_taken_over_exactly_at_the_end_of_its_lease,
    a_lost_claim_is_an_abandoned_attempt,
    a_claim_taken_over_can_no_longer_write,
    an_expired_claim_counts_until_it_is_taken_over,
    a_returned_claim_leaves_no_gap_in_the_numbers,
    a_returned_claim_is_due_at_once,
    a_lost_claim_cannot_be_returned,
    a_claim_can_be_returned_once,
    the_mode_of_an_event_is_the_mode_of_its_claim,
    an_empty_queue_has_no_next_due_time,
    the_queue_reports_its_next_due_time,
    a_lane_bound_that_is_too_low_is_corrected,
    deliveries_due_beyond_the_limit_are_reported,
}

async fn the_first_claim_of_a_delivery_is_attempt_one(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    assert_eq!((claim.attempt, claim.step), (1, 0));
    let (delivery, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!((delivery.attempt_count, delivery.next_attempt_at), (1, None), "an attempt in flight is counted");
    assert!(attempts.is_empty(), "but it is not in the log yet");
}

async fn a_claim_names_the_workspace_and_the_endpoint(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let (published, queued) = (at.claim_one().await, at.claim_one().await);
    for claim in [published, queued] {
        assert_eq!(claim.endpoint.workspace_id, at.workspace.id);
        assert_eq!(claim.endpoint.id, endpoint.id);
    }
}

async fn a_claim_carries_the_trace_of_its_event(at: Fixture) {
    at.endpoint().await;
    for trace in [Some(trace()), None] {
        at.accept(vec![NewEvent { trace, ..at.event() }]).await;
        let first = at.claim_one().await;
        at.store().give_back_if_claimed(vec![(first.delivery_id, first.token)]).await.unwrap();
        let again = at.claim_one().await;
        assert_eq!((first.trace, again.trace), (trace, trace));
        at.record(at.delivered(&again)).await;
    }
}

async fn a_delivery_is_never_claimed_twice_under_a_live_lease(at: Fixture) {
    at.endpoints(2).await;
    at.publish(5).await;
    let mut seen = HashSet::new();
    for _ in 0..6 {
        for claim in at.claim(3).await.claims {
            assert!(seen.insert(claim.delivery_id), "{claim:?}");
        }
        at.advance(Duration::from_secs(9));
    }
    assert_eq!(seen.len(), 10);
}

async fn concurrent_claims_share_nothing(at: Fixture) {
    at.endpoints(3).await;
    at.publish(20).await;
    let claimed = futures_util::future::join_all((0..10).map(|_| at.claim(10))).await;
    let claims: Vec<_> = claimed.iter().flat_map(|claimed| &claimed.claims).collect();
    let deliveries: HashSet<_> = claims.iter().map(|claim| claim.delivery_id).collect();
    let tokens: HashSet<_> = claims.iter().map(|claim| claim.token).collect();
    assert_eq!((claims.len(), deliveries.len(), tokens.len()), (60, 60, 60));
}

async fn a_claim_takes_no_more_than_its_limit(at: Fixture) {
    at.endpoints(3).await;
    at.publish(4).await;
    for (limit, expected) in [(0, 0), (1, 1), (2, 2), (5, 5), (100, 4)] {
        assert_eq!(at.claim(limit).await.claims.len(), expected, "a limit of {limit}");
    }
}

async fn a_lane_is_claimed_oldest_first(at: Fixture) {
    at.endpoint().await;
    let mut published = Vec::new();
    for _ in 0..3 {
        published.extend(at.publish(2).await.into_iter().map(|receipt| receipt.id));
        at.advance(Duration::from_millis(1));
    }
    let first = at.claim(4).await.claims;
    at.give_back(&first[0]).await;
    at.advance(Duration::from_millis(1));
    let order = |claims: &[postrider_store::Claim]| claims.iter().map(|claim| claim.event_id).collect::<Vec<_>>();
    assert_eq!(order(&first), published[..4]);
    assert_eq!(order(&at.claim(10).await.claims), [published[4], published[5], published[0]]);
}

async fn a_lost_claim_is_taken_over_exactly_at_the_end_of_its_lease(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let lost = at.claim_one().await;
    at.advance(limits::LEASE - Duration::from_millis(1));
    let early = at.claim(1).await;
    assert!(early.claims.is_empty());
    assert_eq!(early.next_due_in, Some(Duration::from_millis(1)));
    at.advance(Duration::from_millis(1));
    let taken_over = at.claim_one().await;
    assert_eq!((taken_over.delivery_id, taken_over.attempt, taken_over.step), (lost.delivery_id, 2, 0));
    assert_ne!(taken_over.token, lost.token);
}

async fn a_lost_claim_is_an_abandoned_attempt(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let started_at = at.clock_now();
    at.claim_one().await;
    at.advance(limits::LEASE * 2);
    let second = at.claim_one().await;
    at.advance(limits::LEASE);
    let third = at.claim_one().await;
    assert_eq!((second.attempt, third.attempt), (2, 3));
    at.record(at.delivered(&third)).await;
    let (delivery, attempts) = at.delivery(third.delivery_id).await;
    use AttemptOutcome::{Abandoned, Delivered};
    assert_eq!(outline(&attempts), [(1, Abandoned), (2, Abandoned), (3, Delivered)]);
    assert_eq!((attempts[0].started_at, attempts[0].response_status), (started_at, None));
    assert!(attempts[0].error.is_some(), "the log explains the attempt");
    assert_eq!(attempts[0].next_attempt_at, Some(attempts[1].started_at));
    assert_eq!(delivery.attempt_count, 3);
}

async fn a_claim_taken_over_can_no_longer_write(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let lost = at.claim_one().await;
    at.advance(limits::LEASE);
    let holder = at.claim_one().await;
    let before = format!("{:?}", at.delivery(lost.delivery_id).await);
    let disabling = at.disabling(&lost, postrider_domain::endpoint::DisabledReason::Gone);
    for late in [at.delivered(&lost), at.retry(&lost, Duration::from_secs(5)), disabling] {
        assert_eq!(at.record(late).await, Recorded::ClaimLost);
    }
    assert_eq!(format!("{:?}", at.delivery(lost.delivery_id).await), before, "nothing was written");
    let endpoint = at.store().find_endpoint(at.tenant(), endpoint.id).await.unwrap().unwrap();
    assert!(endpoint.is_active);
    assert_eq!(at.record(at.delivered(&holder)).await, Recorded::Done);
    assert_eq!(at.record(at.delivered(&holder)).await, Recorded::ClaimLost, "a claim allows one outcome");
}

async fn an_expired_claim_counts_until_it_is_taken_over(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.advance(limits::LEASE * 10);
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    assert!(at.claim(10).await.claims.is_empty());
}

async fn a_returned_claim_leaves_no_gap_in_the_numbers(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    for _ in 0..3 {
        let claim = at.claim_one().await;
        assert_eq!(claim.attempt, 1);
        at.give_back(&claim).await;
        let (delivery, attempts) = at.delivery(claim.delivery_id).await;
        assert_eq!((delivery.attempt_count, attempts.len()), (0, 0));
        assert_eq!(delivery.next_attempt_at, Some(at.clock_now()));
    }
    at.claim_one().await;
    at.advance(limits::LEASE);
    let taken_over = at.claim_one().await;
    at.give_back(&taken_over).await;
    let last = at.claim_one().await;
    assert_eq!((taken_over.attempt, last.attempt), (2, 2));
    at.record(at.delivered(&last)).await;
    let (_, attempts) = at.delivery(last.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned), (2, AttemptOutcome::Delivered)]);
}

async fn a_returned_claim_is_due_at_once(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    assert_eq!(at.claim(1).await.next_due_in, Some(limits::LEASE));
    at.give_back(&claim).await;
    assert_eq!(at.claim(0).await.next_due_in, Some(Duration::ZERO));
    assert_eq!(at.claim_one().await.delivery_id, claim.delivery_id);
}

async fn a_lost_claim_cannot_be_returned(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let lost = at.claim_one().await;
    at.advance(limits::LEASE);
    let holder = at.claim_one().await;
    at.give_back(&lost).await;
    assert!(at.claim(1).await.claims.is_empty(), "the holder keeps its claim");
    assert_eq!(at.record(at.delivered(&holder)).await, Recorded::Done);
    at.give_back(&holder).await;
    assert!(at.claim(1).await.claims.is_empty(), "a finished delivery stays finished");
}

async fn a_claim_can_be_returned_once(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.give_back(&claim).await;
    at.give_back(&claim).await;
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::ClaimLost);
    assert_eq!(at.claim_one().await.attempt, 1);
}

async fn the_mode_of_an_event_is_the_mode_of_its_claim(at: Fixture) {
    at.test_endpoint().await;
    at.accept(vec![at.test_event()]).await;
    assert_eq!(at.claim_one().await.mode, Mode::Test);
    let logged = at.deliveries_of(at.test_tenant(), DeliveryFilter::default()).await;
    assert_eq!(logged[0].mode, Mode::Test);
}

async fn an_empty_queue_has_no_next_due_time(at: Fixture) {
    at.endpoint().await;
    assert_eq!(at.claim(10).await.next_due_in, None);
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    at.claim(10).await;
    assert_eq!(at.claim(10).await.next_due_in, None);
}

async fn the_queue_reports_its_next_due_time(at: Fixture) {
    at.endpoints(2).await;
    at.publish(1).await;
    let claims = at.claim(10).await.claims;
    for (claim, seconds) in claims.iter().zip([300, 40]) {
        at.record(at.retry(claim, Duration::from_secs(seconds))).await;
    }
    assert_eq!(at.claim(10).await.next_due_in, Some(Duration::from_secs(40)));
    at.advance(Duration::from_secs(39));
    assert_eq!(at.claim(10).await.next_due_in, Some(Duration::from_secs(1)));
    at.advance(Duration::from_secs(1));
    let second = at.claim_one().await;
    assert_eq!(second.delivery_id, claims[1].delivery_id);
    at.record(at.delivered(&second)).await;
    at.advance(Duration::from_secs(259));
    at.claim(10).await;
    assert_eq!(at.claim(10).await.next_due_in, Some(Duration::from_secs(1)));
}

async fn a_lane_bound_that_is_too_low_is_corrected(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    // The lane's bound may still say that the recorded delivery is due. The first claim corrects the bound.
    at.record(at.retry(&claim, Duration::from_secs(5))).await;
    at.claim(10).await;
    assert_eq!(at.claim(10).await.next_due_in, Some(Duration::from_secs(5)));
    at.advance(Duration::from_secs(5));
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    at.advance(limits::LEASE);
    at.claim(10).await;
    assert_eq!(at.claim(10).await.next_due_in, None);
}

async fn deliveries_due_beyond_the_limit_are_reported(at: Fixture) {
    at.endpoint().await;
    at.publish(3).await;
    assert_eq!(at.claim(1).await.next_due_in, Some(Duration::ZERO));
    let claimed = at.claim_within(10, EachLane(1)).await;
    assert_eq!(claimed.claims.len(), 1);
    assert_eq!(at.claim(10).await.claims.len(), 1);
}
