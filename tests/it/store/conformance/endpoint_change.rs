//! Lists of endpoints, and changes to an endpoint.

use std::time::Duration;

use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::{
    DisabledReason, Endpoint, EndpointChange, EndpointFilter, EndpointName, EndpointUrl, ProjectId,
};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_store::{NewEndpoint, UpdateEndpointError};

use crate::store::fixture::{Fixture, tenant_of};

on_each_backend! {
    a_list_shows_matching_endpoints_newest_first,
    a_list_is_paged_without_repeat_or_gap,
    a_list_excludes_deleted_and_foreign_endpoints,
    a_list_can_leave_out_those_with_a_delivery_of_an_event,
    each_field_changes_independently_and_reads_back,
    an_empty_change_writes_nothing,
    a_change_of_what_has_changed_meanwhile_is_refused,
    a_change_applies_to_the_next_event,
    an_endpoint_cannot_move_into_a_full_project,
    a_foreign_or_deleted_endpoint_is_not_changed,
    an_inactive_endpoint_holds_its_queue_until_reactivated,
    a_delivery_to_an_inactive_endpoint_is_skipped_with_reason,
    an_owners_switch_clears_the_disabled_reason,
    the_wait_restarts_when_an_endpoint_is_deactivated_again,
}

fn project(text: &str) -> ProjectId {
    ProjectId::parse(text).unwrap()
}

fn nothing() -> EndpointChange {
    EndpointChange::default()
}

async fn listed(at: &Fixture, filter: EndpointFilter) -> Vec<EndpointId> {
    let page = PageRequest::parse(Some("200"), None).unwrap();
    let page = at.store().list_endpoints(at.tenant(), filter, page).await.unwrap();
    page.items.iter().map(|endpoint| endpoint.id).collect()
}

async fn a_list_shows_matching_endpoints_newest_first(at: Fixture) {
    let any = EndpointFilter::default;
    assert!(listed(&at, any()).await.is_empty());
    let posts = at.endpoint().await;
    let events = ["post.created", "job.failed"].map(EventTypeName::from_stored).to_vec();
    let both = at.create(NewEndpoint { events, ..at.new_endpoint() }).await;
    let of_project = at.create(NewEndpoint { project_id: Some(project("proj_a")), ..at.new_endpoint() }).await;
    let inactive = at.switch(&at.endpoint().await, false).await;
    assert_eq!(listed(&at, any()).await, [inactive.id, of_project.id, both.id, posts.id]);
    let of = |text| EndpointFilter { event_types: vec![EventTypeName::from_stored(text)], ..any() };
    assert_eq!(listed(&at, of("job.failed")).await, [both.id]);
    assert_eq!(listed(&at, of("post.created")).await.len(), 4);
    for part in ["post", "post.create", "created", "failed post", "job.failed post.created", "%", ""] {
        assert!(listed(&at, of(part)).await.is_empty(), "{part:?} is not a complete name");
    }
    let active = |is_active| EndpointFilter { is_active: Some(is_active), ..any() };
    assert_eq!(listed(&at, active(false)).await, [inactive.id]);
    assert_eq!(listed(&at, active(true)).await, [of_project.id, both.id, posts.id]);
    assert_eq!(listed(&at, EndpointFilter { project_ids: vec![project("proj_a")], ..any() }).await, [of_project.id]);
    assert!(listed(&at, EndpointFilter { project_ids: vec![project("proj_A")], ..any() }).await.is_empty());
    let narrow = EndpointFilter { project_ids: vec![project("proj_a")], ..active(false) };
    assert!(listed(&at, narrow).await.is_empty());
}

async fn a_list_is_paged_without_repeat_or_gap(at: Fixture) {
    at.endpoints(7).await;
    let all = listed(&at, EndpointFilter::default()).await;
    for limit in [1, 3, 7, 8] {
        let (mut walked, mut cursor): (Vec<EndpointId>, Option<String>) = (Vec::new(), None);
        loop {
            let page = PageRequest::parse(Some(&limit.to_string()), cursor.as_deref()).unwrap();
            let page = at.store().list_endpoints(at.tenant(), EndpointFilter::default(), page).await.unwrap();
            walked.extend(page.items.iter().map(|endpoint| endpoint.id));
            let Some(next) = page.next else { break };
            cursor = Some(encode_cursor(next));
        }
        assert_eq!(walked, all, "pages of {limit}");
    }
}

async fn a_list_excludes_deleted_and_foreign_endpoints(at: Fixture) {
    let other = at.other_workspace().await;
    at.create_in(tenant_of(other.key), at.new_endpoint()).await;
    let (kept, gone) = (at.endpoint().await, at.endpoint().await);
    at.delete(&gone).await;
    assert_eq!(listed(&at, EndpointFilter::default()).await, [kept.id]);
    let off = EndpointFilter { is_active: Some(false), ..EndpointFilter::default() };
    assert!(listed(&at, off).await.is_empty());
}

async fn a_list_can_leave_out_those_with_a_delivery_of_an_event(at: Fixture) {
    let queued = at.endpoint().await;
    let skipped = at.switch(&at.endpoint().await, false).await;
    let other = NewEndpoint { events: vec![EventTypeName::from_stored("job.failed")], ..at.new_endpoint() };
    let other = at.create(other).await;
    let event = at.publish(1).await.remove(0).id;
    let later = at.endpoint().await;
    let without = EndpointFilter { not_reached_by: Some(event), ..EndpointFilter::default() };
    assert_eq!(listed(&at, without.clone()).await, [later.id, other.id]);
    let active = EndpointFilter { is_active: Some(true), ..without };
    assert_eq!(listed(&at, active).await, [later.id, other.id]);
    assert_eq!(listed(&at, EndpointFilter::default()).await, [later.id, other.id, skipped.id, queued.id]);
}

async fn each_field_changes_independently_and_reads_back(mut at: Fixture) {
    let mut expected = at.endpoint().await;
    let url = "https://hooks.example.com/moved?x=1";
    let events = ["job.failed", "note.created"].map(EventTypeName::from_stored).to_vec();
    type Expect = Box<dyn Fn(&mut Endpoint)>;
    let steps: Vec<(EndpointChange, Expect)> = vec![
        (
            EndpointChange { name: Some(EndpointName::parse("ä new name").unwrap()), ..nothing() },
            Box::new(|endpoint| endpoint.name = "ä new name".to_owned()),
        ),
        (
            EndpointChange { url: Some(EndpointUrl::parse(url).unwrap()), ..nothing() },
            Box::new(move |endpoint| endpoint.url = url.to_owned()),
        ),
        (
            EndpointChange { events: Some(events.clone()), ..nothing() },
            Box::new(move |endpoint| endpoint.events = events.clone()),
        ),
        (
            EndpointChange { project_id: Some(Some(project("proj_a"))), ..nothing() },
            Box::new(|endpoint| endpoint.project_id = Some("proj_a".to_owned())),
        ),
        (EndpointChange { project_id: Some(None), ..nothing() }, Box::new(|endpoint| endpoint.project_id = None)),
        (EndpointChange { is_active: Some(false), ..nothing() }, Box::new(|endpoint| endpoint.is_active = false)),
        (EndpointChange { is_active: Some(true), ..nothing() }, Box::new(|endpoint| endpoint.is_active = true)),
    ];
    for (change, expect) in steps {
        at.advance(Duration::from_millis(1));
        expect(&mut expected);
        expected.updated_at = at.clock_now();
        let updated = at.update(&expected, change.clone()).await;
        assert_eq!(format!("{updated:?}"), format!("{expected:?}"), "{change:?}");
    }
    at.reopen().await;
    let found = at.found(&expected).await.unwrap();
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
}

async fn an_empty_change_writes_nothing(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.disable_by_outcome(DisabledReason::Gone).await;
    let before = at.found(&endpoint).await.unwrap();
    at.advance(Duration::from_secs(1));
    let answer = at.update(&endpoint, nothing()).await;
    assert_eq!(format!("{answer:?}"), format!("{before:?}"), "the reason and the time stay too");
}

async fn a_change_of_what_has_changed_meanwhile_is_refused(at: Fixture) {
    let seen = at.endpoint().await;
    at.advance(Duration::from_secs(1));
    let rename = |name, seen: &Endpoint| EndpointChange {
        name: Some(EndpointName::parse(name).unwrap()),
        seen: Some(seen.updated_at),
        ..nothing()
    };
    let theirs = at.update(&seen, rename("theirs", &seen)).await;
    let refused = at.try_update(at.tenant(), seen.id, rename("mine", &seen), 10_000).await;
    assert!(matches!(refused, Err(UpdateEndpointError::ChangedMeanwhile)), "{refused:?}");
    assert_eq!(at.update(&seen, rename("mine", &theirs)).await.name, "mine");
}

async fn a_change_applies_to_the_next_event(at: Fixture) {
    let endpoint = at.endpoint().await;
    assert_eq!(at.publish(1).await[0].deliveries, 1);
    let notes = vec![EventTypeName::from_stored("note.created")];
    at.update(&endpoint, EndpointChange { events: Some(notes), ..nothing() }).await;
    assert_eq!(at.publish(1).await[0].deliveries, 0);
    assert_eq!(at.accept(vec![at.event_of("note.created", None)]).await[0].deliveries, 1);
    at.update(&endpoint, EndpointChange { project_id: Some(Some(project("proj_a"))), ..nothing() }).await;
    assert_eq!(at.accept(vec![at.event_of("note.created", None)]).await[0].deliveries, 0);
    assert_eq!(at.accept(vec![at.event_of("note.created", Some("proj_a"))]).await[0].deliveries, 1);
    let url = EndpointUrl::parse("https://hooks.example.com/moved").unwrap();
    at.update(&endpoint, EndpointChange { url: Some(url.clone()), ..nothing() }).await;
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 3, "queued deliveries stay queued");
    assert!(claims.iter().all(|claim| claim.endpoint.url == url.as_str()), "and go to the current URL");
}

async fn an_endpoint_cannot_move_into_a_full_project(at: Fixture) {
    let project_id = Some(project("proj_a"));
    let inside = at.create(NewEndpoint { project_id, ..at.new_endpoint() }).await;
    let outside = [at.endpoint().await, at.endpoint().await];
    let into = |endpoint: &Endpoint, limit| {
        let change = EndpointChange { project_id: Some(project_id), ..nothing() };
        at.try_update(at.tenant(), endpoint.id, change, limit)
    };
    into(&inside, 1).await.expect("the endpoint is in the project already");
    let refused = into(&outside[0], 1).await;
    assert!(matches!(refused, Err(UpdateEndpointError::ProjectFull(1))), "{refused:?}");
    assert_eq!(at.found(&outside[0]).await.unwrap().project_id, None, "a refusal writes nothing");
    into(&outside[0], 2).await.unwrap();
    into(&outside[1], 2).await.unwrap_err();
    at.delete(&inside).await;
    into(&outside[1], 2).await.expect("a deleted endpoint does not count");
    let out = EndpointChange { project_id: Some(None), ..nothing() };
    let refused = at.try_update(at.tenant(), outside[0].id, out.clone(), 0).await;
    assert!(
        matches!(refused, Err(UpdateEndpointError::ProjectFull(0))),
        "endpoints without a project count as one project"
    );
    at.try_update(at.tenant(), outside[0].id, out, 1).await.unwrap();
}

async fn a_foreign_or_deleted_endpoint_is_not_changed(at: Fixture) {
    let (endpoint, other) = (at.endpoint().await, at.other_workspace().await);
    let change = EndpointChange { name: Some(EndpointName::parse("taken over").unwrap()), ..nothing() };
    let refused = at.try_update(tenant_of(other.key), endpoint.id, change.clone(), 100).await;
    assert!(matches!(refused, Err(UpdateEndpointError::NotFound)), "{refused:?}");
    assert_eq!(at.found(&endpoint).await.unwrap().name, "an endpoint");
    at.delete(&endpoint).await;
    for change in [change, nothing()] {
        let refused = at.try_update(at.tenant(), endpoint.id, change, 100).await;
        assert!(matches!(refused, Err(UpdateEndpointError::NotFound)), "{refused:?}");
    }
}

async fn an_inactive_endpoint_holds_its_queue_until_reactivated(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(3).await;
    let (retried, returned) = (at.claim_one().await, at.claim_one().await);
    at.switch(&endpoint, false).await;
    at.record(at.retry(&retried, Duration::from_secs(5))).await;
    at.give_back(&returned).await;
    at.advance(Duration::from_secs(86_400));
    for _ in 0..2 {
        let claimed = at.claim(10).await;
        assert_eq!((claimed.claims.len(), claimed.next_due_in), (0, None));
        at.reopen().await;
    }
    at.switch(&endpoint, true).await;
    let mut attempts: Vec<_> = at.claim(10).await.claims.iter().map(|claim| (claim.attempt, claim.step)).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [(1, 0), (1, 0), (2, 1)], "no attempt number and no step is lost");
}

async fn a_delivery_to_an_inactive_endpoint_is_skipped_with_reason(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.switch(&endpoint, false).await;
    assert_eq!(at.publish(1).await[0].deliveries, 0);
    let skipped = at.deliveries().await.remove(0);
    assert_eq!((skipped.status, skipped.reason), (DeliveryStatus::Skipped, Some(EndReason::Inactive)));
    assert_eq!((skipped.completed_at, skipped.attempt_count), (Some(at.clock_now()), 0));
    at.switch(&endpoint, true).await;
    assert!(at.claim(10).await.claims.is_empty(), "a skipped delivery stays skipped");
    for (disabled, reason) in [
        (DisabledReason::Gone, EndReason::DisabledGone),
        (DisabledReason::Failing, EndReason::DisabledFailing),
        (DisabledReason::SsrfBlocked, EndReason::DisabledSsrfBlocked),
    ] {
        at.publish(1).await;
        at.disable_by_outcome(disabled).await;
        at.publish(1).await;
        let skipped = at.deliveries().await.remove(0);
        assert_eq!((skipped.status, skipped.reason), (DeliveryStatus::Skipped, Some(reason)));
        at.switch(&endpoint, true).await;
    }
}

async fn an_owners_switch_clears_the_disabled_reason(at: Fixture) {
    let endpoint = at.endpoint().await;
    for is_active in [true, false] {
        at.switch(&endpoint, true).await;
        at.publish(1).await;
        at.disable_by_outcome(DisabledReason::Failing).await;
        assert_eq!(at.found(&endpoint).await.unwrap().disabled_reason, Some(DisabledReason::Failing));
        let name = EndpointChange { name: Some(EndpointName::parse("renamed").unwrap()), ..nothing() };
        let renamed = at.update(&endpoint, name).await;
        assert_eq!((renamed.is_active, renamed.disabled_reason), (false, Some(DisabledReason::Failing)));
        let switched = at.switch(&endpoint, is_active).await;
        assert_eq!((switched.is_active, switched.disabled_reason), (is_active, None));
    }
}

async fn the_wait_restarts_when_an_endpoint_is_deactivated_again(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let almost = limits::WAITING_MAX - Duration::from_millis(1);
    at.switch(&endpoint, false).await;
    at.advance(almost);
    at.switch(&endpoint, false).await;
    at.switch(&endpoint, true).await;
    at.switch(&endpoint, false).await;
    at.advance(almost);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.switch(&endpoint, false).await;
    at.advance(Duration::from_millis(1));
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1, "a second deactivation does not restart the wait");
}
