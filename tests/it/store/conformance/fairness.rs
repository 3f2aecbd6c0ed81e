//! Fairness: the backlog of one endpoint, however long, does not delay another.

use std::collections::HashMap;
use std::time::Duration;

use postrider_domain::delivery::DeliveryCause;
use postrider_domain::endpoint::Endpoint;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_store::{Claim, Lane, LaneQuota};

use crate::store::fixture::{EachLane, Fixture};

on_each_backend! {
    a_lane_gets_no_more_than_its_quota,
    a_lane_without_quota_is_not_claimed,
    a_backlog_of_ten_thousand_leaves_other_lanes_their_share,
    a_share_that_one_lane_leaves_goes_to_another,
    lanes_rotate_when_there_are_more_than_the_limit,
    thousands_of_lanes_without_quota_do_not_block_another,
    a_lane_with_an_exhausted_quota_is_not_reported_as_due,
    both_lanes_of_an_endpoint_share_its_quota,
    a_backlog_does_not_hold_up_a_test,
}

/// A quota per endpoint. The quota of any other endpoint is zero.
struct PerEndpoint(HashMap<RowKey, usize>);

impl PerEndpoint {
    fn new<'e>(quotas: impl IntoIterator<Item = (&'e Endpoint, usize)>) -> Self {
        Self(quotas.into_iter().map(|(endpoint, quota)| (endpoint.key, quota)).collect())
    }
}

impl LaneQuota for PerEndpoint {
    fn quota(&self, lane: Lane) -> usize {
        self.0.get(&lane.endpoint_key).copied().unwrap_or_default()
    }
}

fn count(claims: &[Claim], endpoint: &Endpoint) -> usize {
    claims.iter().filter(|claim| claim.endpoint.id == endpoint.id).count()
}

async fn a_lane_gets_no_more_than_its_quota(at: Fixture) {
    let endpoints = at.endpoints(3).await;
    at.publish(10).await;
    let quota = PerEndpoint::new(endpoints.iter().zip([1, 4, 100]));
    let claims = at.claim_within(100, quota).await.claims;
    assert_eq!(endpoints.iter().map(|endpoint| count(&claims, endpoint)).collect::<Vec<_>>(), [1, 4, 10]);
}

async fn a_lane_without_quota_is_not_claimed(at: Fixture) {
    let endpoints = at.endpoints(2).await;
    at.publish(1).await;
    let claimed = at.claim_within(10, PerEndpoint::new([(&endpoints[0], 1)])).await;
    assert_eq!((claimed.claims.len(), count(&claimed.claims, &endpoints[1])), (1, 0));
    let idle = at.claim_within(10, EachLane(0)).await;
    assert!(idle.claims.is_empty());
    assert_ne!(idle.next_due_in, Some(Duration::ZERO), "a lane without quota is not reported as due");
    let later = at.claim(10).await.claims;
    assert_eq!((later.len(), later[0].attempt), (1, 1));
}

async fn a_backlog_of_ten_thousand_leaves_other_lanes_their_share(at: Fixture) {
    let busy = at.endpoint().await;
    for _ in 0..10 {
        at.publish(1_000).await;
    }
    at.advance(Duration::from_secs(1));
    let quiet = at.endpoints(2).await;
    at.publish(5).await;
    let claims = at.claim(30).await.claims;
    assert_eq!(claims.len(), 30);
    assert_eq!(quiet.iter().map(|endpoint| count(&claims, endpoint)).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(count(&claims, &busy), 20);
}

async fn a_share_that_one_lane_leaves_goes_to_another(at: Fixture) {
    let endpoints = at.endpoints(4).await;
    at.publish(1).await;
    let long = at.endpoint().await;
    at.publish(50).await;
    let quota = PerEndpoint::new(endpoints.iter().map(|endpoint| (endpoint, 1)).chain([(&long, 100)]));
    let claims = at.claim_within(40, quota).await.claims;
    assert_eq!((claims.len(), count(&claims, &long)), (40, 36));
}

async fn lanes_rotate_when_there_are_more_than_the_limit(at: Fixture) {
    let endpoints = at.endpoints(12).await;
    at.publish(9).await;
    let mut claims = Vec::new();
    for _ in 0..9 {
        at.advance(Duration::from_millis(1));
        claims.extend(at.claim(4).await.claims);
    }
    let shares: Vec<_> = endpoints.iter().map(|endpoint| count(&claims, endpoint)).collect();
    assert_eq!(shares, [3; 12]);
}

async fn thousands_of_lanes_without_quota_do_not_block_another(at: Fixture) {
    at.endpoints(2_100).await;
    at.publish(1).await;
    at.advance(Duration::from_secs(1));
    let served = at.endpoint().await;
    at.publish(2).await;
    let claimed = at.claim_within(1, PerEndpoint::new([(&served, 2)])).await;
    assert_eq!((claimed.claims.len(), count(&claimed.claims, &served)), (1, 1));
    assert_eq!(claimed.next_due_in, Some(Duration::ZERO), "the second delivery of the served lane is due");
}

async fn a_lane_with_an_exhausted_quota_is_not_reported_as_due(at: Fixture) {
    at.endpoint().await;
    at.publish(3).await;
    let claimed = at.claim_within(10, EachLane(2)).await;
    assert_eq!(claimed.claims.len(), 2);
    assert_eq!(claimed.next_due_in, None, "the quota of the lane is exhausted");
    at.advance(limits::LEASE);
    assert_eq!(at.claim_within(10, EachLane(2)).await.claims.len(), 2);
}

async fn both_lanes_of_an_endpoint_share_its_quota(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(10).await;
    for _ in 0..3 {
        at.accept_test(&endpoint).await;
    }
    let claimed = at.claim_within(100, EachLane(5)).await;
    assert_eq!(claimed.claims.len(), 5);
    assert_eq!(claimed.next_due_in, Some(limits::LEASE), "nothing more is due while the endpoint has no quota");
    assert_eq!(at.claim_within(100, EachLane(100)).await.claims.len(), 8);
}

async fn a_backlog_does_not_hold_up_a_test(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(10).await;
    at.advance(Duration::from_secs(1));
    let test = at.accept_test(&endpoint).await;
    let claims = at.claim_within(100, EachLane(1)).await.claims;
    assert_eq!((claims.len(), claims[0].delivery_id, claims[0].cause), (1, test.id, DeliveryCause::Test));
}
