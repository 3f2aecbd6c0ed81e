//! Secret rotation: which version signs a delivery, how long a version is kept, and when it is erased.

use std::time::Duration;

use postrider_domain::endpoint::{Endpoint, SecretVersion};
use postrider_store::RotateSecretError;

use crate::store::fixture::{Fixture, tenant_of};

on_each_backend! {
    a_rotation_must_name_the_next_version,
    only_one_of_many_concurrent_rotations_wins,
    an_endpoint_of_another_workspace_is_not_rotated,
    queued_deliveries_keep_their_secret_after_a_rotation,
    a_delivery_queued_in_an_overlap_carries_both_versions,
    an_overlap_ends_at_its_exact_instant,
    a_second_rotation_ends_the_overlap_of_the_first,
    a_rotation_can_revoke_the_secret_of_queued_deliveries,
    a_revocation_ends_older_overlaps_but_not_the_new_one,
    a_secret_in_use_is_never_erased,
    a_secret_of_a_queued_test_or_held_delivery_is_kept,
    a_secret_in_an_overlap_is_not_erased_before_its_end,
    a_secret_of_a_late_delivery_from_an_overlap_is_kept,
    secrets_are_erased_in_bounded_steps,
    a_revoked_secret_is_erased_despite_queued_deliveries,
}

const NONE: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);

type Signed = (u32, Option<u32>);

/// The versions that sign each due delivery, oldest delivery first. Returns all claims to the queue.
async fn signed(at: &Fixture) -> Vec<Signed> {
    let claims = at.claim(100).await.claims;
    for claim in &claims {
        at.give_back(claim).await;
    }
    let mut claims: Vec<_> = claims.iter().map(|claim| (claim.delivery_id, claim)).collect();
    claims.sort_unstable_by_key(|(id, _)| *id);
    claims.iter().map(|(_, claim)| (claim.secret_version.0, claim.also_secret_version.map(|also| also.0))).collect()
}

async fn kept(at: &Fixture, endpoint: &Endpoint) -> Vec<u32> {
    let mut kept = Vec::new();
    for version in 1..=9 {
        if at.store().find_secret(endpoint.key, SecretVersion(version)).await.unwrap().is_some() {
            kept.push(version);
        }
    }
    kept
}

async fn erase(at: &Fixture) -> usize {
    at.store().erase_unused_secrets(100).await.unwrap()
}

async fn deliver_all(at: &Fixture) {
    for claim in at.claim(100).await.claims {
        at.record(at.delivered(&claim)).await;
    }
}

async fn a_rotation_must_name_the_next_version(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    at.advance(Duration::from_secs(1));
    let rotated = at.rotate(&endpoint, 2, NONE, false).await;
    assert_eq!((rotated.secret_last4.as_str(), rotated.updated_at), ("0002", at.clock_now()));
    assert_eq!((rotated.id, rotated.created_at, rotated.is_active), (endpoint.id, endpoint.created_at, true));
    for version in [1, 2, 4] {
        let refused = at.try_rotate(at.tenant(), endpoint.id, version, NONE, false).await;
        assert!(matches!(refused, Err(RotateSecretError::SecretVersionChanged)), "{version}: {refused:?}");
    }
    at.reopen().await;
    assert_eq!(at.found(&endpoint).await.unwrap().secret_last4, "0002", "a refusal writes nothing");
    let version = at.store().secret_version(at.tenant(), endpoint.id).await.unwrap();
    assert_eq!(version, Some(SecretVersion(2)));
    assert_eq!(at.store().find_secret(endpoint.key, SecretVersion(2)).await.unwrap(), Some(vec![2]));
    at.rotate(&endpoint, 3, NONE, false).await;
}

async fn only_one_of_many_concurrent_rotations_wins(at: Fixture) {
    let endpoint = at.endpoint().await;
    let rotating = (0..10).map(|_| at.try_rotate(at.tenant(), endpoint.id, 2, NONE, false));
    let outcomes = futures_util::future::join_all(rotating).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

async fn an_endpoint_of_another_workspace_is_not_rotated(at: Fixture) {
    let (endpoint, other) = (at.endpoint().await, at.other_workspace().await);
    let refused = at.try_rotate(tenant_of(other.key), endpoint.id, 2, NONE, false).await;
    assert!(matches!(refused, Err(RotateSecretError::NotFound)), "{refused:?}");
    assert_eq!(at.store().secret_version(tenant_of(other.key), endpoint.id).await.unwrap(), None);
    assert_eq!(kept(&at, &endpoint).await, [1]);
}

async fn queued_deliveries_keep_their_secret_after_a_rotation(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.rotate(&endpoint, 2, NONE, false).await;
    at.record(at.retry(&claim, NONE)).await;
    at.publish(1).await;
    at.retry_by_hand(claim.delivery_id).await;
    at.accept_test(&endpoint).await;
    at.reopen().await;
    assert_eq!(signed(&at).await, [(1, None), (2, None), (2, None), (2, None)]);
}

async fn a_delivery_queued_in_an_overlap_carries_both_versions(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    at.publish(1).await;
    at.accept_test(&endpoint).await;
    assert_eq!(signed(&at).await, [(1, None), (2, Some(1)), (2, Some(1))]);
    at.advance(HOUR * 2);
    assert_eq!(signed(&at).await, [(1, None), (2, Some(1)), (2, Some(1))], "a queued delivery keeps its versions");
}

async fn an_overlap_ends_at_its_exact_instant(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    at.advance(HOUR - Duration::from_millis(1));
    at.publish(1).await;
    at.advance(Duration::from_millis(1));
    at.publish(1).await;
    assert_eq!(signed(&at).await, [(2, Some(1)), (2, None)]);
}

async fn a_second_rotation_ends_the_overlap_of_the_first(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    at.rotate(&endpoint, 3, NONE, false).await;
    at.publish(1).await;
    at.rotate(&endpoint, 4, HOUR, false).await;
    at.publish(1).await;
    assert_eq!(signed(&at).await, [(3, None), (4, Some(3))]);
}

async fn a_rotation_can_revoke_the_secret_of_queued_deliveries(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    at.publish(1).await;
    at.rotate(&endpoint, 3, NONE, true).await;
    at.publish(1).await;
    assert_eq!(signed(&at).await, [(3, None); 3]);
    at.rotate(&endpoint, 4, NONE, false).await;
    at.publish(1).await;
    assert_eq!(signed(&at).await, [(4, None), (4, None), (3, None), (4, None)], "a revoked version never signs again");
}

async fn a_revocation_ends_older_overlaps_but_not_the_new_one(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    at.publish(1).await;
    at.rotate(&endpoint, 3, HOUR, true).await;
    at.publish(1).await;
    assert_eq!(signed(&at).await, [(3, None), (3, Some(2))]);
    erase(&at).await;
    at.advance(HOUR);
    erase(&at).await;
    assert_eq!(kept(&at, &endpoint).await, [2, 3], "the second delivery still needs version 2");
    deliver_all(&at).await;
    erase(&at).await;
    assert_eq!(kept(&at, &endpoint).await, [3]);
}

async fn a_secret_in_use_is_never_erased(at: Fixture) {
    let (endpoint, other) = (at.endpoint().await, at.endpoint().await);
    assert_eq!(erase(&at).await, 0, "the newest version is always needed");
    at.publish(1).await;
    let claims = at.claim(2).await.claims;
    at.rotate(&endpoint, 2, NONE, false).await;
    assert_eq!(erase(&at).await, 0, "an attempt is in flight");
    for claim in &claims {
        at.record(at.retry(claim, HOUR)).await;
    }
    assert_eq!(erase(&at).await, 0, "a retry is waiting");
    at.advance(HOUR);
    deliver_all(&at).await;
    assert_eq!(erase(&at).await, 1);
    assert_eq!((kept(&at, &endpoint).await, kept(&at, &other).await), (vec![2], vec![1]));
    assert_eq!(erase(&at).await, 0);
}

async fn a_secret_of_a_queued_test_or_held_delivery_is_kept(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.switch(&endpoint, false).await;
    at.rotate(&endpoint, 2, NONE, false).await;
    at.accept_test(&endpoint).await;
    at.rotate(&endpoint, 3, NONE, false).await;
    assert_eq!(erase(&at).await, 0);
    deliver_all(&at).await;
    assert_eq!(erase(&at).await, 1, "the test was sent");
    assert_eq!(kept(&at, &endpoint).await, [1, 3]);
    at.switch(&endpoint, true).await;
    deliver_all(&at).await;
    assert_eq!(erase(&at).await, 1);
    assert_eq!(kept(&at, &endpoint).await, [3]);
}

async fn a_secret_in_an_overlap_is_not_erased_before_its_end(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    at.rotate(&endpoint, 3, HOUR, false).await;
    assert_eq!(erase(&at).await, 1, "the overlap of the first rotation is over");
    assert_eq!(kept(&at, &endpoint).await, [2, 3]);
    at.advance(HOUR - Duration::from_millis(1));
    assert_eq!(erase(&at).await, 0);
    at.advance(Duration::from_millis(1));
    assert_eq!(erase(&at).await, 1);
    assert_eq!(kept(&at, &endpoint).await, [3]);
}

async fn a_secret_of_a_late_delivery_from_an_overlap_is_kept(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    at.publish(1).await;
    at.advance(HOUR * 2);
    assert_eq!(erase(&at).await, 0);
    deliver_all(&at).await;
    assert_eq!(erase(&at).await, 1);
}

async fn secrets_are_erased_in_bounded_steps(at: Fixture) {
    for endpoint in at.endpoints(3).await {
        at.rotate(&endpoint, 2, NONE, false).await;
    }
    let mut steps = Vec::new();
    for _ in 0..3 {
        steps.push(at.store().erase_unused_secrets(2).await.unwrap());
    }
    assert_eq!(steps, [2, 1, 0]);
}

async fn a_revoked_secret_is_erased_despite_queued_deliveries(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(20).await;
    at.rotate(&endpoint, 2, NONE, true).await;
    assert_eq!(erase(&at).await, 1);
    assert_eq!(kept(&at, &endpoint).await, [2]);
    assert_eq!(signed(&at).await, [(2, None); 20]);
}
