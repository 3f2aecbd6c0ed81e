//! Accepting events: which endpoints get them, what survives a restart, and how an `externalId` is deduplicated.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::endpoint::{DisabledReason, ProjectId, SecretVersion};
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::limits;
use postrider_store::{AcceptError, LaneKind, NewEndpoint};

use crate::store::fixture::{EVENT_TYPE, Fixture, START, tenant_of};

on_each_backend! {
    an_accepted_event_and_its_deliveries_survive_a_restart,
    a_receipt_describes_the_accepted_event,
    an_event_reaches_its_project_and_endpoints_without_one,
    an_event_reaches_only_endpoints_subscribed_to_its_type,
    no_endpoint_of_another_workspace_gets_an_event,
    an_event_without_a_matching_endpoint_is_accepted,
    an_event_reaches_only_endpoints_created_before_it,
    a_disabled_endpoint_is_skipped_with_its_reason,
    a_repeated_external_id_gets_the_first_receipt,
    a_reused_external_id_refuses_the_whole_batch,
    an_external_id_is_scoped_to_workspace_and_mode,
    an_external_id_survives_a_restart,
    a_batch_with_one_repeat_accepts_the_rest_in_order,
    concurrent_publishes_of_an_external_id_create_one_event,
    a_request_creates_at_most_ten_thousand_deliveries,
    an_empty_batch_does_nothing,
}

async fn an_accepted_event_and_its_deliveries_survive_a_restart(mut at: Fixture) {
    let endpoints = at.endpoints(2).await;
    let event = at.event();
    at.accept(vec![event.clone()]).await;
    at.advance(Duration::from_secs(1));
    at.reopen().await;
    let deliveries = at.deliveries().await;
    assert_eq!(deliveries.len(), 2);
    for delivery in &deliveries {
        assert_eq!((delivery.event_id, delivery.event_type.as_str()), (event.id, EVENT_TYPE));
        assert_eq!(
            (delivery.status, delivery.reason, delivery.cause),
            (DeliveryStatus::Pending, None, DeliveryCause::Event)
        );
        assert_eq!((delivery.mode, delivery.attempt_count, delivery.retry_of), (Mode::Live, 0, None));
        assert_eq!((delivery.next_attempt_at, delivery.completed_at), (Some(START), None));
        assert_eq!(delivery.id.created_at(), START);
    }
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 2);
    for endpoint in &endpoints {
        let claim = claims.iter().find(|claim| claim.endpoint.id == endpoint.id).expect("each endpoint has a delivery");
        assert_eq!((claim.event_id, &claim.envelope, claim.mode), (event.id, &event.envelope, Mode::Live));
        assert_eq!((claim.secret_version, claim.also_secret_version), (SecretVersion::FIRST, None));
        assert_eq!(claim.endpoint.url, endpoint.url);
        assert_eq!((claim.lane.workspace_key, claim.lane.endpoint_key), (at.workspace.key, endpoint.key));
        assert_eq!(claim.lane, claim.endpoint.lane(LaneKind::Events));
    }
}

async fn a_receipt_describes_the_accepted_event(at: Fixture) {
    at.endpoints(3).await;
    let project_id = Some(ProjectId::parse("proj_a").unwrap());
    let event = NewEvent { project_id, ..at.event_with("order-1", 1) };
    let expected = EventReceipt {
        id: event.id,
        external_id: Some("order-1".to_owned()),
        event_type: EventTypeName::from_stored(EVENT_TYPE),
        project_id: Some("proj_a".to_owned()),
        deliveries: 3,
        replayed: false,
    };
    assert_eq!(at.accept(vec![event]).await, [expected]);
}

async fn an_event_reaches_its_project_and_endpoints_without_one(at: Fixture) {
    let of_project = |project: Option<&str>| NewEndpoint {
        project_id: project.map(|project| ProjectId::parse(project).unwrap()),
        ..at.new_endpoint()
    };
    let everywhere = at.create(of_project(None)).await;
    let in_a = at.create(of_project(Some("a"))).await;
    let in_b = at.create(of_project(Some("b"))).await;
    for (project, expected) in [
        (Some("a"), vec![everywhere.id, in_a.id]),
        (Some("b"), vec![everywhere.id, in_b.id]),
        (None, vec![everywhere.id]),
    ] {
        let receipts = at.accept(vec![at.event_of(EVENT_TYPE, project)]).await;
        let mut reached: Vec<_> = at.claim(10).await.claims.iter().map(|claim| claim.endpoint.id).collect();
        reached.sort_unstable();
        assert_eq!(reached, expected, "an event of {project:?}");
        assert_eq!(receipts[0].deliveries as usize, expected.len());
    }
}

async fn an_event_reaches_only_endpoints_subscribed_to_its_type(at: Fixture) {
    let subscribed = |types: &[&str]| NewEndpoint {
        events: types.iter().map(|name| EventTypeName::from_stored(name)).collect(),
        ..at.new_endpoint()
    };
    let both = at.create(subscribed(&["post.created", "job.failed"])).await;
    at.create(subscribed(&["post.created"])).await;
    at.accept(vec![at.event_of("job.failed", None)]).await;
    let reached: Vec<_> = at.claim(10).await.claims.iter().map(|claim| claim.endpoint.id).collect();
    assert_eq!(reached, [both.id]);
}

async fn no_endpoint_of_another_workspace_gets_an_event(at: Fixture) {
    let other = at.other_workspace().await;
    at.create_in(tenant_of(other.key), at.new_endpoint()).await;
    assert_eq!(at.publish(1).await[0].deliveries, 0);
    assert!(at.claim(10).await.claims.is_empty());
    let theirs = at.accept(vec![NewEvent { tenant: tenant_of(other.key), ..at.event() }]).await;
    assert_eq!(theirs[0].deliveries, 1);
    assert!(at.deliveries().await.is_empty());
    assert_eq!(at.deliveries_of(tenant_of(other.key), DeliveryFilter::default()).await.len(), 1);
}

async fn an_event_without_a_matching_endpoint_is_accepted(at: Fixture) {
    let event = at.event_with("nobody-cares", 1);
    assert_eq!(at.accept(vec![event.clone()]).await[0].deliveries, 0);
    assert!(at.deliveries().await.is_empty());
    assert_eq!(at.claim(1).await.next_due_in, None);
    assert_eq!(
        at.accept(vec![at.event_with("nobody-cares", 1)]).await[0].id,
        event.id,
        "the external id is remembered"
    );
}

async fn an_event_reaches_only_endpoints_created_before_it(at: Fixture) {
    for created in 0..4 {
        assert_eq!(at.publish(1).await[0].deliveries, created, "no stale cache of endpoints is used");
        at.endpoint().await;
    }
}

async fn a_disabled_endpoint_is_skipped_with_its_reason(mut at: Fixture) {
    for (reason, expected) in [
        (DisabledReason::Gone, EndReason::DisabledGone),
        (DisabledReason::Failing, EndReason::DisabledFailing),
        (DisabledReason::SsrfBlocked, EndReason::DisabledSsrfBlocked),
    ] {
        let name = reason.as_str().replace('_', ".");
        let events = vec![EventTypeName::from_stored(&name)];
        at.create(NewEndpoint { events, ..at.new_endpoint() }).await;
        at.accept(vec![at.event_of(&name, None)]).await;
        at.disable_by_outcome(reason).await;
        at.advance(Duration::from_secs(1));
        at.reopen().await;
        let receipts = at.accept(vec![at.event_of(&name, None)]).await;
        assert_eq!(receipts[0].deliveries, 0, "a skipped endpoint is not counted");
        let filter = DeliveryFilter { event_ids: vec![receipts[0].id], ..DeliveryFilter::default() };
        let deliveries = at.deliveries_of(at.tenant(), filter).await;
        let [skipped] = deliveries.as_slice() else { panic!("one delivery for one matching endpoint: {deliveries:?}") };
        assert_eq!((skipped.status, skipped.reason), (DeliveryStatus::Skipped, Some(expected)));
        assert_eq!((skipped.completed_at, skipped.next_attempt_at), (Some(at.clock_now()), None));
        assert_eq!(skipped.attempt_count, 0);
        assert!(at.claim(10).await.claims.is_empty(), "a skipped delivery is not in the queue");
    }
}

async fn a_repeated_external_id_gets_the_first_receipt(at: Fixture) {
    at.endpoint().await;
    let first = at.accept(vec![at.event_with("order-1", 1)]).await.remove(0);
    at.endpoint().await;
    at.advance(Duration::from_secs(3600));
    let again = at.accept(vec![at.event_with("order-1", 1)]).await.remove(0);
    assert_eq!(again, EventReceipt { replayed: true, ..first });
    assert_eq!(at.deliveries().await.len(), 1, "a repeat creates no delivery");
}

async fn a_reused_external_id_refuses_the_whole_batch(at: Fixture) {
    at.endpoint().await;
    at.accept(vec![at.event_with("order-1", 1)]).await;
    let batch = vec![at.event_with("order-0", 1), at.event_with("order-1", 2), at.event()];
    let refused = at.store().accept_events(batch, None).await;
    assert!(matches!(refused, Err(AcceptError::ExternalIdReused { index: 1 })), "{refused:?}");
    assert_eq!(at.deliveries().await.len(), 1);
    assert!(!at.accept(vec![at.event_with("order-0", 9)]).await[0].replayed, "no event of the batch was stored");
}

async fn an_external_id_is_scoped_to_workspace_and_mode(at: Fixture) {
    let other = at.other_workspace().await;
    at.accept(vec![at.event_with("order-1", 1)]).await;
    let in_test = NewEvent { tenant: at.test_tenant(), ..at.event_with("order-1", 2) };
    let elsewhere = NewEvent { tenant: tenant_of(other.key), ..at.event_with("order-1", 3) };
    for event in [in_test, elsewhere] {
        let id = event.id;
        let receipt = at.accept(vec![event]).await.remove(0);
        assert_eq!((receipt.id, receipt.replayed), (id, false));
    }
}

async fn an_external_id_survives_a_restart(mut at: Fixture) {
    let first = at.accept(vec![at.event_with("order-1", 1)]).await.remove(0);
    at.advance(Duration::from_secs(1));
    at.reopen().await;
    let again = at.accept(vec![at.event_with("order-1", 1)]).await.remove(0);
    assert_eq!((again.id, again.replayed), (first.id, true));
}

async fn a_batch_with_one_repeat_accepts_the_rest_in_order(at: Fixture) {
    at.endpoint().await;
    let seen = at.accept(vec![at.event_with("b", 1)]).await.remove(0);
    let batch = vec![at.event_with("a", 1), at.event_with("b", 1), at.event(), at.event_with("c", 1)];
    let ids = [batch[0].id, seen.id, batch[2].id, batch[3].id];
    let receipts = at.accept(batch).await;
    assert_eq!(receipts.iter().map(|receipt| receipt.id).collect::<Vec<_>>(), ids);
    assert_eq!(receipts.iter().map(|receipt| receipt.replayed).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(at.deliveries().await.len(), 4);
}

async fn concurrent_publishes_of_an_external_id_create_one_event(at: Fixture) {
    at.endpoint().await;
    let publishing = (0..10).map(|_| at.accept(vec![at.event_with("order-1", 1)]));
    let receipts = futures_util::future::join_all(publishing).await;
    assert_eq!(receipts.iter().filter(|receipts| !receipts[0].replayed).count(), 1);
    assert!(receipts.windows(2).all(|pair| pair[0][0].id == pair[1][0].id));
    assert_eq!(at.deliveries().await.len(), 1);
}

async fn a_request_creates_at_most_ten_thousand_deliveries(at: Fixture) {
    const ENDPOINTS: usize = 100;
    at.endpoints(ENDPOINTS).await;
    let most = limits::DELIVERIES_PER_REQUEST / ENDPOINTS;
    let over = (0..=most).map(|_| at.event()).collect();
    match at.store().accept_events(over, None).await {
        Err(AcceptError::TooManyDeliveries { count: 10_100, max: 10_000 }) => {}
        other => panic!("{other:?}"),
    }
    assert!(at.deliveries().await.is_empty(), "a refusal writes nothing");
    let receipts = at.publish(most).await;
    assert_eq!(receipts.iter().map(|receipt| receipt.deliveries).sum::<u32>(), 10_000);
}

async fn an_empty_batch_does_nothing(at: Fixture) {
    assert_eq!(at.accept(Vec::new()).await, []);
}
