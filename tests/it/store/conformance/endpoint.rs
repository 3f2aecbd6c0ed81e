//! Endpoints, their limits and their sealed secrets.

use std::time::Duration;

use postrider_domain::endpoint::{Endpoint, ProjectId, SecretVersion};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EndpointId, RowKey};
use postrider_store::{CreateEndpointError, Destination, EndpointLimits, NewEndpoint};

use crate::store::fixture::{Fixture, START, tenant_of};

on_each_backend! {
    an_endpoint_reads_back_as_created,
    an_endpoint_of_another_workspace_is_not_found,
    a_project_holds_endpoints_up_to_its_limit,
    a_workspace_holds_endpoints_up_to_its_limit,
    foreign_endpoints_do_not_count_against_the_limit,
    concurrent_creations_cannot_exceed_the_limit,
    a_sealed_secret_is_stored_by_version,
}

fn assert_same(a: &Endpoint, b: &Endpoint) {
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

async fn an_endpoint_reads_back_as_created(mut at: Fixture) {
    let events = ["post.updated", "post.created"].map(EventTypeName::from_stored).to_vec();
    let project_id = Some(ProjectId::parse("proj_A-1").unwrap());
    let new = NewEndpoint { events: events.clone(), project_id, ..at.new_endpoint() };
    let created = at.create(new.clone()).await;
    let Destination::Url(url) = &new.destination else { panic!("an endpoint has a URL") };
    assert_eq!((created.key, created.id, created.url.as_str()), (new.key, new.id, url.as_str()));
    assert_eq!((created.name.as_str(), created.secret_last4.as_str()), ("an endpoint", "beef"));
    assert_eq!((created.events.as_slice(), created.project_id.as_deref()), (events.as_slice(), Some("proj_A-1")));
    assert!(created.is_active && created.disabled_reason.is_none());
    assert_eq!((created.created_at, created.updated_at), (START, START));
    at.advance(Duration::from_secs(9));
    at.reopen().await;
    let found = at.store().find_endpoint(at.tenant(), new.id).await.unwrap().expect("the endpoint was created");
    assert_same(&found, &created);
}

async fn an_endpoint_of_another_workspace_is_not_found(at: Fixture) {
    let (endpoint, other) = (at.endpoint().await, at.other_workspace().await);
    assert!(at.store().find_endpoint(tenant_of(other.key), endpoint.id).await.unwrap().is_none());
    let unknown = EndpointId::from_letters([b'z'; 16]);
    assert!(at.store().find_endpoint(at.tenant(), unknown).await.unwrap().is_none());
}

fn limited(at: &Fixture, project: Option<&str>, per_project: u32, per_workspace: u32) -> NewEndpoint {
    let project_id = project.map(|project| ProjectId::parse(project).unwrap());
    NewEndpoint { project_id, limits: EndpointLimits { per_project, per_workspace }, ..at.new_endpoint() }
}

async fn a_project_holds_endpoints_up_to_its_limit(at: Fixture) {
    for project in [Some("proj_a"), Some("proj_b"), None] {
        for _ in 0..2 {
            at.create(limited(&at, project, 2, 100)).await;
        }
        let refused = at.try_create(at.tenant(), limited(&at, project, 2, 100)).await;
        assert!(matches!(refused, Err(CreateEndpointError::ProjectFull(2))), "{project:?}: {refused:?}");
    }
    let refused = limited(&at, Some("proj_a"), 2, 100);
    let id = refused.id;
    at.try_create(at.tenant(), refused).await.unwrap_err();
    assert!(at.store().find_endpoint(at.tenant(), id).await.unwrap().is_none(), "a refusal writes nothing");
    at.create(limited(&at, Some("proj_a"), 3, 100)).await;
}

async fn a_workspace_holds_endpoints_up_to_its_limit(at: Fixture) {
    for project in ["proj_a", "proj_b", "proj_c"] {
        at.create(limited(&at, Some(project), 2, 3)).await;
    }
    let refused = at.try_create(at.tenant(), limited(&at, Some("proj_d"), 2, 3)).await;
    assert!(matches!(refused, Err(CreateEndpointError::WorkspaceFull(3))), "{refused:?}");
}

async fn foreign_endpoints_do_not_count_against_the_limit(at: Fixture) {
    let other = at.other_workspace().await;
    at.create(limited(&at, Some("proj_a"), 1, 1)).await;
    at.create_in(tenant_of(other.key), limited(&at, Some("proj_a"), 1, 1)).await;
}

async fn concurrent_creations_cannot_exceed_the_limit(at: Fixture) {
    let creating = (0..20).map(|_| at.try_create(at.tenant(), limited(&at, None, 7, 100)));
    let outcomes = futures_util::future::join_all(creating).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 7);
}

async fn a_sealed_secret_is_stored_by_version(mut at: Fixture) {
    let new = NewEndpoint { sealed_secret: vec![0, 255, 1], ..at.new_endpoint() };
    let endpoint = at.create(new).await;
    at.reopen().await;
    let secret = |key, version| at.store().find_secret(key, version);
    assert_eq!(secret(endpoint.key, SecretVersion::FIRST).await.unwrap(), Some(vec![0, 255, 1]));
    assert_eq!(secret(endpoint.key, SecretVersion(2)).await.unwrap(), None);
    assert_eq!(secret(RowKey::from_i64(1), SecretVersion::FIRST).await.unwrap(), None);
}
