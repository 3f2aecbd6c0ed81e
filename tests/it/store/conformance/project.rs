//! A tenant that is narrowed to a project sees and changes only the endpoints of that project, the events that carry
//! it, and the deliveries of both.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::audit::AuditFilter;
use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::{Endpoint, EndpointChange, EndpointFilter, ProjectId};
use postrider_domain::event::{EventFilter, NewEvent};
use postrider_domain::id::{DeliveryId, EventId};
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::{
    CreateEndpointError, DeleteEndpointError, EndpointLimits, NewEndpoint, NewReplay, ReplayScope, RequeueError,
    RotateSecretError, SkipDeliveryError, StopReplayError, UpdateEndpointError,
};

use crate::store::fixture::{EVENT_TYPE, Fixture, START, done, write};

on_each_backend! {
    what_is_of_another_project_or_of_none_does_not_exist,
    an_endpoint_is_created_in_the_project_and_stays_there,
    the_log_of_a_project_is_that_of_its_endpoints_and_events,
    a_page_of_a_project_is_full_however_busy_the_workspace_is,
    an_endpoint_brings_no_events_of_its_former_project,
    a_replay_of_a_project_sends_only_its_events,
    a_test_reaches_an_endpoint_of_the_project,
    keys_and_audit_entries_belong_to_no_project,
}

fn project(text: &str) -> Option<ProjectId> {
    Some(ProjectId::parse(text).unwrap())
}

fn narrowed(at: &Fixture, text: &str) -> Tenant {
    Tenant { project: project(text), ..at.tenant() }
}

async fn endpoint_of(at: &Fixture, text: Option<&str>) -> Endpoint {
    at.create(NewEndpoint { project_id: text.and_then(project), ..at.new_endpoint() }).await
}

fn ever() -> ReplayRange {
    let until = Timestamp::from_millis(253_402_300_799_999);
    ReplayRange { since: START, until, statuses: REPLAYED_BY_DEFAULT.to_vec() }
}

/// Publishes an event of this project. Fails all of its deliveries.
async fn failed(at: &Fixture, text: Option<&str>) -> (EventId, Vec<DeliveryId>) {
    let receipt = at.accept(vec![at.event_of(EVENT_TYPE, text)]).await.remove(0);
    let claims = at.claim(100).await.claims;
    for claim in &claims {
        at.record(at.failed(claim)).await;
    }
    (receipt.id, claims.iter().map(|claim| claim.delivery_id).collect())
}

async fn deliveries(at: &Fixture, tenant: Tenant, filter: DeliveryFilter) -> Vec<DeliveryId> {
    let mut ids: Vec<_> = at.deliveries_of(tenant, filter).await.into_iter().map(|delivery| delivery.id).collect();
    ids.sort();
    ids
}

async fn what_is_of_another_project_or_of_none_does_not_exist(at: Fixture) {
    let other = narrowed(&at, "b");
    for own in [Some("a"), None, Some("b-"), Some("B")] {
        let endpoint = endpoint_of(&at, own).await;
        let before = format!("{:?}", at.found(&endpoint).await.unwrap());

        assert!(at.store().find_endpoint(other, endpoint.id).await.unwrap().is_none());
        let page = at.store().list_endpoints(other, EndpointFilter::default(), Fixture::page()).await.unwrap();
        assert!(page.items.is_empty(), "{page:?}");
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
        let tested = at.try_test(endpoint.id, NewEvent { tenant: other, ..at.event_of(EVENT_TYPE, Some("b")) }).await;
        assert!(matches!(tested, Err(RequeueError::NotFound)), "{tested:?}");

        let (event, sent) = failed(&at, own).await;
        let delivery = sent[0];
        assert!(at.store().find_event(other, event).await.unwrap().is_none());
        assert!(at.store().find_delivery(other, delivery).await.unwrap().is_none());
        let retried = at.try_retry(other, delivery).await;
        assert!(matches!(retried, Err(RequeueError::NotFound)), "{retried:?}");
        let skipped = at.try_skip(other, delivery).await;
        assert!(matches!(skipped, Err(SkipDeliveryError::NotFound)), "{skipped:?}");

        let replay = at.replay(&endpoint, ever()).await;
        assert!(at.store().find_replay(other, Some(endpoint.id), replay.id).await.unwrap().is_none());
        assert!(at.store().list_replays(other, Some(endpoint.id), Fixture::page()).await.unwrap().is_none());
        let stopped = at.try_stop_replay(other, endpoint.id, replay.id).await;
        assert!(matches!(stopped, Err(StopReplayError::NotFound)), "{stopped:?}");
        let new = NewReplay::of_endpoint(endpoint.id, ever(), 0);
        let created = at.store().create_replay(write(other), new).await;
        assert!(matches!(created, Err(RequeueError::NotFound)), "{created:?}");
        at.stop_replay(&endpoint, replay.id).await.unwrap();

        let after = at.store().find_endpoint(at.tenant(), endpoint.id).await.unwrap().unwrap();
        assert_eq!(Endpoint { failure_streak: None, ..after }.updated_at, endpoint.updated_at, "{before}");
        at.delete(&endpoint).await;
    }
}

async fn an_endpoint_is_created_in_the_project_and_stays_there(at: Fixture) {
    let own = narrowed(&at, "a");
    for asked in [None, project("a"), project("b")] {
        let endpoint = at.create_in(own, NewEndpoint { project_id: asked, ..at.new_endpoint() }).await;
        assert_eq!(endpoint.project_id.as_deref(), Some("a"));
        assert_eq!(at.store().find_endpoint(own, endpoint.id).await.unwrap().unwrap().id, endpoint.id);
        for asked in [None, project("b")] {
            let change = EndpointChange { project_id: Some(asked), ..EndpointChange::default() };
            let moved = at.try_update(own, endpoint.id, change, 10).await;
            assert!(matches!(moved, Err(UpdateEndpointError::OtherProject)), "{moved:?}");
        }
        let change = EndpointChange { project_id: Some(project("a")), ..EndpointChange::default() };
        assert!(at.try_update(own, endpoint.id, change, 10).await.is_ok());
    }
    let limits = EndpointLimits { per_project: 3, per_workspace: 10 };
    let refused = at.try_create(own, NewEndpoint { limits, ..at.new_endpoint() }).await;
    assert!(matches!(refused, Err(CreateEndpointError::ProjectFull(3))), "{refused:?}");
}

async fn the_log_of_a_project_is_that_of_its_endpoints_and_events(at: Fixture) {
    let (of_a, of_b, of_none) =
        (endpoint_of(&at, Some("a")).await, endpoint_of(&at, Some("b")).await, at.endpoint().await);
    let (event_a, sent_a) = failed(&at, Some("a")).await;
    failed(&at, Some("b")).await;
    failed(&at, None).await;
    assert_eq!(sent_a.len(), 2, "the endpoint without a project gets it too");
    let own = narrowed(&at, "a");
    let shown = deliveries(&at, own, DeliveryFilter::default()).await;
    assert_eq!(shown.len(), 1);
    let (delivery, attempts) = at.store().find_delivery(own, shown[0]).await.unwrap().unwrap();
    assert_eq!((delivery.endpoint_id, delivery.event_id, attempts.len()), (of_a.id, event_a, 1));
    let any = DeliveryFilter::default;
    for (filter, expected) in [
        (DeliveryFilter { endpoint_ids: vec![of_a.id], ..any() }, 1),
        (DeliveryFilter { endpoint_ids: vec![of_b.id], ..any() }, 0),
        (DeliveryFilter { endpoint_ids: vec![of_none.id], ..any() }, 0),
        (DeliveryFilter { event_ids: vec![event_a], ..any() }, 1),
        (DeliveryFilter { event_types: vec![at.event().event_type], ..any() }, 1),
        (DeliveryFilter { statuses: vec![DeliveryStatus::Failed], ..any() }, 1),
        (DeliveryFilter { statuses: vec![DeliveryStatus::Delivered], ..any() }, 0),
    ] {
        assert_eq!(deliveries(&at, own, filter.clone()).await.len(), expected, "{filter:?}");
    }
    let events = at.store().list_events(own, EventFilter::default(), Fixture::page()).await.unwrap().items;
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [event_a]);

    at.accept(vec![at.event_of(EVENT_TYPE, Some("a")), at.event_of(EVENT_TYPE, Some("b"))]).await;
    let pending = DeliveryFilter { statuses: vec![DeliveryStatus::Pending], ..any() };
    assert_eq!(deliveries(&at, own, pending).await.len(), 1);

    for endpoint in [&of_a, &of_none] {
        at.switch(endpoint, false).await;
    }
    let skipped = at.accept(vec![at.event_of(EVENT_TYPE, Some("a"))]).await.remove(0).id;
    let seen = at.store().find_event(own, skipped).await.unwrap().unwrap().skipped;
    assert_eq!(seen.iter().map(|skipped| skipped.endpoint_id).collect::<Vec<_>>(), [of_a.id]);

    at.delete(&of_a).await;
    assert_eq!(deliveries(&at, own, any()).await.len(), 3, "the log outlives the endpoint");
    let other_mode = Tenant { mode: Mode::Test, ..own };
    assert_eq!(deliveries(&at, other_mode, any()).await, []);
}

async fn a_page_of_a_project_is_full_however_busy_the_workspace_is(at: Fixture) {
    endpoint_of(&at, Some("a")).await;
    endpoint_of(&at, Some("a")).await;
    endpoint_of(&at, Some("b")).await;
    for _ in 0..5 {
        at.accept(vec![at.event_of(EVENT_TYPE, Some("a"))]).await;
        at.accept((0..20).map(|_| at.event_of(EVENT_TYPE, Some("b"))).collect()).await;
    }
    let own = narrowed(&at, "a");
    let (mut page, mut seen) = (PageRequest::parse(Some("3"), None).unwrap(), Vec::new());
    loop {
        let found = at.store().list_deliveries(own, DeliveryFilter::default(), page).await.unwrap();
        seen.extend(found.items.iter().map(|delivery| delivery.id));
        match found.next {
            Some(next) => {
                assert_eq!(found.items.len(), 3, "a page with a next one is full");
                page = PageRequest::parse(Some("3"), Some(&encode_cursor(next))).unwrap();
            }
            None => break,
        }
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "newest first, none twice: {seen:?}");
}

async fn an_endpoint_brings_no_events_of_its_former_project(at: Fixture) {
    let endpoint = endpoint_of(&at, None).await;
    let (_, sent) = failed(&at, Some("b")).await;
    let (_, without) = failed(&at, None).await;
    at.update(&endpoint, EndpointChange { project_id: Some(project("a")), ..EndpointChange::default() }).await;
    let own = narrowed(&at, "a");
    assert!(at.store().find_endpoint(own, endpoint.id).await.unwrap().is_some());
    for delivery in [sent[0], without[0]] {
        assert!(at.store().find_delivery(own, delivery).await.unwrap().is_none());
        assert!(matches!(at.try_retry(own, delivery).await, Err(RequeueError::NotFound)));
    }
    assert_eq!(deliveries(&at, own, DeliveryFilter::default()).await, []);
    let of_endpoint = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..DeliveryFilter::default() };
    assert_eq!(deliveries(&at, own, of_endpoint.clone()).await, []);
    assert_eq!(deliveries(&at, at.tenant(), of_endpoint).await.len(), 2);
}

async fn a_replay_of_a_project_sends_only_its_events(at: Fixture) {
    let endpoint = endpoint_of(&at, None).await;
    failed(&at, Some("b")).await;
    at.update(&endpoint, EndpointChange { project_id: Some(project("a")), ..EndpointChange::default() }).await;
    let (event, _) = failed(&at, Some("a")).await;
    at.advance(Duration::from_secs(1));
    let count = async |project| {
        let scope = ReplayScope { endpoint_key: endpoint.key, mode: Mode::Live, range: ever(), project };
        let start = postrider_domain::id::RowKey::from_i64(0);
        at.store().count_replayable(scope, start).await.unwrap().0.total
    };
    assert_eq!((count(None).await, count(project("a")).await), (2, 1));
    let range = ReplayRange { until: at.clock_now(), ..ever() };
    let new = NewReplay::of_endpoint(endpoint.id, range, 1);
    let replay = done(at.store().create_replay(write(narrowed(&at, "a")), new).await.unwrap());
    while at.store().advance_replays().await.unwrap().is_some() {}
    let found = at.store().find_replay(narrowed(&at, "a"), Some(endpoint.id), replay.id).await.unwrap().unwrap();
    assert_eq!(found.replayed, 1);
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.iter().map(|claim| claim.event_id).collect::<Vec<_>>(), [event]);
}

async fn a_test_reaches_an_endpoint_of_the_project(at: Fixture) {
    let endpoint = endpoint_of(&at, Some("a")).await;
    let own = narrowed(&at, "a");
    let event = NewEvent { tenant: own, ..at.event_of(EVENT_TYPE, Some("a")) };
    let delivery = at.try_test(endpoint.id, event).await.unwrap();
    assert!(at.store().find_delivery(own, delivery.id).await.unwrap().is_some());
    let other = endpoint_of(&at, Some("b")).await;
    let receipt = at.accept(vec![at.event_of(EVENT_TYPE, Some("b"))]).await.remove(0);
    assert_eq!(receipt.deliveries, 1, "the cached endpoints are those of the whole workspace: {:?}", other.id);
}

async fn keys_and_audit_entries_belong_to_no_project(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    endpoint_of(&at, Some("a")).await;
    let own = narrowed(&at, "a");
    assert!(at.store().list_audit(Some(own), AuditFilter::default(), Fixture::page()).await.unwrap().items.is_empty());
    assert!(at.store().list_api_keys(Some(own), Fixture::page()).await.unwrap().items.is_empty());
    assert!(at.store().get_api_key(Some(own), key.id).await.unwrap().is_none());
    assert!(at.store().revoke_api_key(write(own), key.id).await.is_err());
}
