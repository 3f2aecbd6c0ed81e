//! Modes are separate: a tenant sees and changes only what has its own mode.

use std::time::Duration;

use postrider_domain::access::{ApiKeyHash, Mode};
use postrider_domain::audit::AuditFilter;
use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::{Endpoint, EndpointChange, EndpointFilter, OpaqueId, ProjectId};
use postrider_domain::event::{EventFilter, NewEvent};
use postrider_domain::id::{DeliveryId, EventId};
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::{
    Claim, CreateApiKeyError, CreateEndpointError, DeleteEndpointError, EndpointLimits, NewApiKey, NewEndpoint,
    RequeueError, RevokeApiKeyError, RotateSecretError, SkipDeliveryError, StopReplayError, UpdateEndpointError,
};

use crate::store::fixture::{Fixture, START, done, write};

on_each_backend! {
    an_endpoint_of_the_other_mode_does_not_exist,
    an_event_reaches_only_endpoints_of_its_mode,
    the_log_shows_only_its_own_mode,
    a_replay_of_the_other_mode_does_not_exist,
    each_mode_has_its_own_limits_of_endpoints,
    each_mode_has_its_own_limit_of_api_keys,
    a_live_tenant_manages_the_keys_of_both_modes,
    a_live_tenant_reads_the_audit_entries_of_both_modes,
}

/// Both modes of the workspace, each with the other.
fn modes(at: &Fixture) -> [(Tenant, Tenant); 2] {
    [(at.tenant(), at.test_tenant()), (at.test_tenant(), at.tenant())]
}

fn ever() -> ReplayRange {
    let until = Timestamp::from_millis(253_402_300_799_999);
    ReplayRange { since: START, until, statuses: REPLAYED_BY_DEFAULT.to_vec() }
}

async fn listed(at: &Fixture, tenant: Tenant) -> Vec<Endpoint> {
    at.store().list_endpoints(tenant, EndpointFilter::default(), Fixture::page()).await.unwrap().items
}

async fn only_claim(at: &Fixture) -> Claim {
    let mut claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 1);
    claims.remove(0)
}

async fn deliveries(at: &Fixture, tenant: Tenant, filter: DeliveryFilter) -> Vec<DeliveryId> {
    at.deliveries_of(tenant, filter).await.into_iter().map(|delivery| delivery.id).collect()
}

async fn an_endpoint_of_the_other_mode_does_not_exist(at: Fixture) {
    for (own, other) in modes(&at) {
        let endpoint = at.create_in(own, at.new_endpoint()).await;
        assert_eq!(endpoint.mode, own.mode);
        let before = format!("{:?}", at.store().find_endpoint(own, endpoint.id).await.unwrap().unwrap());

        assert!(at.store().find_endpoint(other, endpoint.id).await.unwrap().is_none());
        assert!(listed(&at, other).await.iter().all(|shown| shown.mode == other.mode && shown.id != endpoint.id));
        assert!(at.store().secret_version(other, endpoint.id).await.unwrap().is_none());
        for is_active in [None, Some(false)] {
            let change = EndpointChange { is_active, ..EndpointChange::default() };
            let updated = at.try_update(other, endpoint.id, change, 10).await;
            assert!(matches!(updated, Err(UpdateEndpointError::NotFound)), "{updated:?}");
        }
        let rotated = at.try_rotate(other, endpoint.id, 2, Duration::ZERO, true).await;
        assert!(matches!(rotated, Err(RotateSecretError::NotFound)), "{rotated:?}");
        let deleted = at.try_delete(other, endpoint.id).await;
        assert!(matches!(deleted, Err(DeleteEndpointError::NotFound)), "{deleted:?}");
        let tested = at.try_test(endpoint.id, NewEvent { tenant: other, ..at.event() }).await;
        assert!(matches!(tested, Err(RequeueError::NotFound)), "{tested:?}");

        let after = at.store().find_endpoint(own, endpoint.id).await.unwrap().unwrap();
        assert_eq!(format!("{after:?}"), before, "nothing was changed");
    }
}

async fn an_event_reaches_only_endpoints_of_its_mode(at: Fixture) {
    let endpoints = [at.endpoint().await, at.test_endpoint().await];
    // The second round is matched against endpoints that are cached.
    for round in 0..2 {
        for ((own, _), endpoint) in modes(&at).into_iter().zip(&endpoints) {
            let receipt = at.accept(vec![NewEvent { tenant: own, ..at.event() }]).await.remove(0);
            assert_eq!(receipt.deliveries, 1, "{:?}, round {round}", own.mode);
            let claim = only_claim(&at).await;
            assert_eq!((claim.endpoint.id, claim.mode), (endpoint.id, own.mode));
        }
    }
    at.try_delete(at.test_tenant(), endpoints[1].id).await.unwrap();
    assert_eq!(at.accept(vec![at.test_event()]).await[0].deliveries, 0);
    assert_eq!(at.accept(vec![at.event()]).await[0].deliveries, 1);
}

/// An event of this tenant, with the delivery that it made.
async fn published(at: &Fixture, tenant: Tenant) -> (EventId, DeliveryId) {
    let external_id = Some(OpaqueId::parse("order-1").unwrap());
    let receipt = at.accept(vec![NewEvent { tenant, external_id, ..at.event() }]).await.remove(0);
    assert!(!receipt.replayed, "an externalId belongs to one mode");
    let claim = only_claim(at).await;
    at.record(at.failed(&claim)).await;
    (receipt.id, claim.delivery_id)
}

async fn the_log_shows_only_its_own_mode(at: Fixture) {
    let endpoints = [at.endpoint().await, at.test_endpoint().await];
    let log = [published(&at, at.tenant()).await, published(&at, at.test_tenant()).await];
    for (index, (own, other)) in modes(&at).into_iter().enumerate() {
        let (event, delivery) = log[index];
        let external_id = Some(OpaqueId::parse("order-1").unwrap());
        for filter in [
            EventFilter::default(),
            EventFilter { external_ids: external_id.into_iter().collect(), ..EventFilter::default() },
        ] {
            let events = at.store().list_events(own, filter, Fixture::page()).await.unwrap().items;
            assert_eq!(events.iter().map(|event| (event.id, event.mode)).collect::<Vec<_>>(), [(event, own.mode)]);
        }
        assert!(at.store().find_event(own, event).await.unwrap().is_some());
        assert!(at.store().find_event(other, event).await.unwrap().is_none());
        assert!(at.store().find_delivery(own, delivery).await.unwrap().is_some());
        assert!(at.store().find_delivery(other, delivery).await.unwrap().is_none());

        let any = DeliveryFilter::default;
        let event_type = at.event().event_type;
        for filter in [
            any(),
            DeliveryFilter { endpoint_ids: vec![endpoints[index].id], ..any() },
            DeliveryFilter { event_ids: vec![event], ..any() },
            DeliveryFilter { statuses: vec![DeliveryStatus::Failed], ..any() },
            DeliveryFilter { event_types: vec![event_type], ..any() },
        ] {
            assert_eq!(deliveries(&at, own, filter.clone()).await, [delivery], "{filter:?}");
            assert!(!deliveries(&at, other, filter.clone()).await.contains(&delivery), "{filter:?}");
        }

        let retried = at.try_retry(other, delivery).await;
        assert!(matches!(retried, Err(RequeueError::NotFound)), "{retried:?}");
        let skipped = at.try_skip(other, delivery).await;
        assert!(matches!(skipped, Err(SkipDeliveryError::NotFound)), "{skipped:?}");
    }
    for (own, _) in modes(&at) {
        at.accept(vec![NewEvent { tenant: own, ..at.event() }]).await;
        let pending = DeliveryFilter { statuses: vec![DeliveryStatus::Pending], ..DeliveryFilter::default() };
        assert_eq!(deliveries(&at, own, pending).await.len(), 1, "pending in {:?}", own.mode);
    }
}

async fn a_replay_of_the_other_mode_does_not_exist(at: Fixture) {
    for (own, other) in modes(&at) {
        let endpoint = at.create_in(own, at.new_endpoint()).await;
        let replay = at.try_replay(&endpoint, ever(), own.mode, 0).await.unwrap();
        assert_eq!(replay.mode, own.mode);
        assert!(at.store().find_replay(other, Some(endpoint.id), replay.id).await.unwrap().is_none());
        assert!(at.store().list_replays(other, Some(endpoint.id), Fixture::page()).await.unwrap().is_none());
        let created = at.try_replay(&endpoint, ever(), other.mode, 0).await;
        assert!(matches!(created, Err(RequeueError::NotFound)), "{created:?}");
        let stopped = at.try_stop_replay(other, endpoint.id, replay.id).await;
        assert!(matches!(stopped, Err(StopReplayError::NotFound)), "{stopped:?}");
        let found = at.store().find_replay(own, Some(endpoint.id), replay.id).await.unwrap().unwrap();
        assert_eq!((found.status, found.mode), (replay.status, own.mode));
    }
}

async fn each_mode_has_its_own_limits_of_endpoints(at: Fixture) {
    let limited = |project: Option<&str>| NewEndpoint {
        project_id: project.map(|project| ProjectId::parse(project).unwrap()),
        limits: EndpointLimits { per_project: 1, per_workspace: 2 },
        ..at.new_endpoint()
    };
    for (own, _) in modes(&at) {
        let first = at.try_create(own, limited(None)).await.unwrap();
        let refused = at.try_create(own, limited(None)).await;
        assert!(matches!(refused, Err(CreateEndpointError::ProjectFull(1))), "{refused:?}");
        at.try_create(own, limited(Some("a"))).await.unwrap();
        let refused = at.try_create(own, limited(Some("b"))).await;
        assert!(matches!(refused, Err(CreateEndpointError::WorkspaceFull(2))), "{refused:?}");
        let to = |project: &str| EndpointChange {
            project_id: Some(Some(ProjectId::parse(project).unwrap())),
            ..EndpointChange::default()
        };
        let refused = at.try_update(own, first.id, to("a"), 1).await;
        assert!(matches!(refused, Err(UpdateEndpointError::ProjectFull(1))), "{refused:?}");
    }
}

async fn each_mode_has_its_own_limit_of_api_keys(at: Fixture) {
    let mut hash = 0;
    for (own, _) in modes(&at) {
        let mut limited = || {
            hash += 1;
            NewApiKey { tenant: own, limit: 1, ..at.new_api_key(hash) }
        };
        at.api_key(limited()).await;
        let refused = at.store().create_api_key(limited(), None).await;
        assert!(matches!(refused, Err(CreateApiKeyError::WorkspaceFull(1))), "{refused:?}");
    }
}

async fn a_live_tenant_manages_the_keys_of_both_modes(at: Fixture) {
    let (live, test) = (at.tenant(), at.test_tenant());
    let of_live = at.api_key(at.new_api_key(1)).await;
    let of_test = at.api_key(NewApiKey { tenant: test, ..at.new_api_key(2) }).await;
    let list = async |tenant| {
        let page = at.store().list_api_keys(Some(tenant), Fixture::page()).await.unwrap();
        page.items.into_iter().map(|key| key.id).collect::<Vec<_>>()
    };
    assert_eq!(list(live).await, [of_test.id, of_live.id]);
    assert_eq!(list(test).await, [of_test.id]);
    assert!(at.store().get_api_key(Some(test), of_live.id).await.unwrap().is_none());
    assert!(at.store().get_api_key(Some(live), of_test.id).await.unwrap().is_some());

    let refused = at.store().revoke_api_key(write(test), of_live.id).await;
    assert!(matches!(refused, Err(RevokeApiKeyError::NotFound)), "{refused:?}");
    assert_eq!(at.store().find_api_key(ApiKeyHash([1; 32])).await.unwrap().unwrap().revoked_at, None);
    let revoked = done(at.store().revoke_api_key(write(live), of_test.id).await.unwrap());
    assert_eq!((revoked.id, revoked.revoked_at), (of_test.id, Some(at.clock_now())));
}

async fn a_live_tenant_reads_the_audit_entries_of_both_modes(at: Fixture) {
    let (live, test) = (at.tenant(), at.test_tenant());
    let of_live = at.endpoint().await.id.to_string();
    let of_test = at.test_endpoint().await.id.to_string();
    let list = async |tenant, filter: AuditFilter| {
        let page = at.store().list_audit(Some(tenant), filter, Fixture::page()).await.unwrap();
        page.items.into_iter().map(|entry| (entry.resource_id, entry.author.mode)).collect::<Vec<_>>()
    };
    let created = (at.workspace.id.to_string(), Mode::Live);
    let both = [(of_test.clone(), Mode::Test), (of_live.clone(), Mode::Live), created];
    assert_eq!(list(live, AuditFilter::default()).await, both);
    assert_eq!(list(test, AuditFilter::default()).await, both[..1]);
    let about = |id: &String| AuditFilter { resource_id: Some(id.clone()), ..AuditFilter::default() };
    assert_eq!(list(test, about(&of_live)).await, []);
    assert_eq!(list(live, about(&of_test)).await, both[..1]);
}

/// Turns the log into that of an older store, where a test key could publish to any endpoint: all rows get test mode,
/// and the endpoints stay live.
pub const MAKE_OLD: &str = "UPDATE events SET mode = 1; UPDATE deliveries SET mode = 1; UPDATE due SET mode = 1;
     UPDATE replays SET mode = 1";

/// A live endpoint with a delivery that failed, one that is queued, and a running replay.
pub async fn with_failed_and_replay(at: &Fixture) -> Endpoint {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.failed(&claim)).await;
    at.replay(&endpoint, ever()).await;
    at.advance(Duration::from_millis(1));
    at.publish(1).await;
    endpoint
}

pub async fn check_old(at: &Fixture, endpoint: &Endpoint) {
    let (live, test) = (at.tenant(), at.test_tenant());
    let shown = at.deliveries_of(test, DeliveryFilter::default()).await;
    let [queued, failed] = &shown[..] else { panic!("two deliveries: {shown:?}") };
    assert_eq!((failed.endpoint_id, failed.status), (endpoint.id, DeliveryStatus::Failed));
    assert!(at.store().find_delivery(test, failed.id).await.unwrap().is_some());
    assert!(at.store().find_delivery(live, failed.id).await.unwrap().is_none());
    let of_endpoint = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..DeliveryFilter::default() };
    for tenant in [live, test] {
        assert_eq!(deliveries(at, tenant, of_endpoint.clone()).await, [], "{:?}", tenant.mode);
    }

    let retried = at.try_retry(test, failed.id).await;
    assert!(matches!(retried, Err(RequeueError::EndpointDeleted)), "{retried:?}");
    let claims = at.claim(10).await.claims;
    let claimed: Vec<_> = claims.iter().map(|claim| (claim.delivery_id, claim.mode)).collect();
    assert_eq!(claimed, [(queued.id, Mode::Test)], "what is queued is still simulated");
    while at.store().advance_replays().await.unwrap().is_some() {}
    assert!(at.claim(10).await.claims.is_empty(), "the replay has stopped and sends nothing");
}
