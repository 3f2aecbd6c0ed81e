//! The audit log: one entry for each write, in its transaction.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_domain::access::Mode;
use postrider_domain::audit::{Actor, AuditAction, AuditFilter, Author, KeyRefusal, Refusal};
use postrider_domain::audit_change::{Change, Changes};
use postrider_domain::caller::CallerAddress;
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::endpoint::{EndpointChange, EndpointName, OpaqueId, SecretVersion};
use postrider_domain::id::{ApiKeyId, RequestId};
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_domain::private_options::HeaderName;
use postrider_domain::replay::ReplayRange;
use postrider_domain::workspace::WorkspaceName;
use postrider_store::{
    EndpointLimits, EndpointUpdate, NewApiKey, NewEndpoint, NewRefusal, NewReplay, SealedHeader, SealedOptions,
    SecretRotation, WorkspaceRename, Write,
};

use crate::store::fixture::{AUTHOR, Fixture, START, done, signing_key, write};

on_each_backend! {
    an_entry_names_author_action_time_and_request,
    each_write_leaves_one_entry,
    a_refused_or_replayed_write_leaves_no_entry,
    entries_are_filtered_and_paged_newest_first,
    publishing_leaves_no_entry,
    an_entry_lists_what_changed_without_secrets,
    entries_are_selected_by_time,
    refusals_are_kept_until_they_are_old,
}

const KEY: ApiKeyId = ApiKeyId::from_letters([b'k'; 16]);
const REQUEST: RequestId = RequestId::from_letters([b'r'; 16]);

/// The author of a request with a test key.
const TESTER: Author =
    Author { actor: Actor::ApiKey(KEY), mode: Mode::Test, request_id: Some(REQUEST), address: Some(ADDRESS) };
const ADDRESS: CallerAddress = CallerAddress(IpAddr::V6(Ipv6Addr::LOCALHOST));

const LIMITS: EndpointLimits = EndpointLimits { per_project: 10, per_workspace: 10 };

/// Audited actions on the workspace, oldest first, without the creation of the workspace.
async fn actions(at: &Fixture) -> Vec<(AuditAction, String)> {
    let mut entries: Vec<_> = at.audit().await.into_iter().map(|entry| (entry.action, entry.resource_id)).collect();
    entries.reverse();
    assert_eq!(entries.remove(0), (AuditAction::WorkspaceCreated, at.workspace.id.to_string()));
    entries
}

async fn an_entry_names_author_action_time_and_request(mut at: Fixture) {
    let by_tester = Write { author: TESTER, ..write(at.test_tenant()) };
    let endpoint = done(at.store().create_endpoint(by_tester, at.new_endpoint()).await.unwrap());
    at.reopen().await;
    let [entry, created] = &at.audit().await[..] else { panic!("two writes") };
    assert_eq!((entry.author.actor, entry.author.mode), (Actor::ApiKey(KEY), Mode::Test));
    assert_eq!((entry.author.request_id, entry.id.created_at()), (Some(REQUEST), START));
    assert_eq!((entry.action, &entry.resource_id), (AuditAction::EndpointCreated, &endpoint.id.to_string()));
    assert_eq!((entry.workspace_id, entry.author.address), (Some(at.workspace.id), Some(ADDRESS)));
    assert_eq!(
        (created.author.actor, created.author.mode, created.author.request_id),
        (Actor::CommandLine, Mode::Live, None)
    );
}

async fn each_write_leaves_one_entry(at: Fixture) {
    let workspace = &at.workspace;
    let (store, tenant) = (at.store(), at.tenant());
    let endpoint = at.endpoint().await;
    let id = endpoint.id;
    let switched = EndpointChange { is_active: Some(true), ..EndpointChange::default() };
    // An empty change writes nothing, so it leaves no entry.
    for change in [switched, EndpointChange::default()] {
        let update = EndpointUpdate { change, sealed: SealedOptions::default(), limits: LIMITS };
        store.update_endpoint(write(tenant), id, update).await.unwrap();
    }
    let rotation = SecretRotation {
        version: SecretVersion(2),
        sealed: vec![1],
        last4: "cafe".to_owned(),
        signing_key: signing_key(2),
        overlap: Duration::ZERO,
        revoke_queued: false,
        author: AUTHOR,
    };
    store.rotate_secret(tenant, id, rotation).await.unwrap();
    store.accept_test(write(tenant), id, at.event()).await.unwrap();
    let tested = at.deliveries().await[0].id;
    store.retry_delivery(write(tenant), tested).await.unwrap();
    let range = ReplayRange { since: START, until: START, statuses: vec![DeliveryStatus::Failed] };
    let new = NewReplay::of_endpoint(id, range, 0);
    let replay = done(store.create_replay(write(tenant), new).await.unwrap());
    store.stop_replay(write(tenant), Some(id), replay.id).await.unwrap();
    store.delete_endpoint(write(tenant), id).await.unwrap();
    let api_key = at.api_key(at.new_api_key(1)).await;
    store.revoke_api_key(write(tenant), api_key.id).await.unwrap();
    let rename = WorkspaceRename { id: workspace.id, name: workspace.name.clone(), author: AUTHOR };
    store.rename_workspace(rename, None).await.unwrap();
    store.delete_workspace(workspace.id, AUTHOR, None).await.unwrap();
    let expected = [
        (AuditAction::EndpointCreated, id.to_string()),
        (AuditAction::EndpointUpdated, id.to_string()),
        (AuditAction::EndpointSecretRotated, id.to_string()),
        (AuditAction::EndpointTested, id.to_string()),
        (AuditAction::DeliveryRetried, tested.to_string()),
        (AuditAction::ReplayStarted, replay.id.to_string()),
        (AuditAction::ReplayStopped, replay.id.to_string()),
        (AuditAction::EndpointDeleted, id.to_string()),
        (AuditAction::ApiKeyCreated, api_key.id.to_string()),
        (AuditAction::ApiKeyRevoked, api_key.id.to_string()),
        (AuditAction::WorkspaceUpdated, workspace.id.to_string()),
        (AuditAction::WorkspaceDeleted, workspace.id.to_string()),
    ];
    assert_eq!(actions(&at).await, expected);
}

async fn a_refused_or_replayed_write_leaves_no_entry(at: Fixture) {
    let endpoint = at.endpoint().await;
    let api_key = at.api_key(at.new_api_key(1)).await;
    at.store().revoke_api_key(write(at.tenant()), api_key.id).await.unwrap();
    let before = actions(&at).await;
    at.store().create_api_key(NewApiKey { limit: 0, ..at.new_api_key(2) }, None).await.unwrap_err();
    at.store().revoke_api_key(write(at.tenant()), api_key.id).await.unwrap();
    let full = EndpointLimits { per_project: 1, per_workspace: 1 };
    at.try_create(at.tenant(), NewEndpoint { limits: full, ..at.new_endpoint() }).await.unwrap_err();
    assert_eq!(actions(&at).await, before);
    let scope = IdempotencyScope { tenant: at.tenant(), route: "DELETE /".to_owned() };
    let recording = || {
        let request = IdempotentRequest {
            scope: scope.clone(),
            key: OpaqueId::parse("k").unwrap(),
            body_hash: [0; 32],
            caller: None,
        };
        let render = |(): &()| RecordedAnswer { status: 204, body: Bytes::new(), sealed: false };
        Some(Recording { request, render: Arc::new(render) })
    };
    for _ in 0..3 {
        let write = Write { recording: recording(), ..write(at.tenant()) };
        at.store().delete_endpoint(write, endpoint.id).await.unwrap();
    }
    assert_eq!(actions(&at).await.len(), before.len() + 1);
}

async fn entries_are_filtered_and_paged_newest_first(at: Fixture) {
    let endpoints = at.endpoints(5).await;
    at.api_key(at.new_api_key(1)).await;
    let list = async |filter: AuditFilter, cursor: Option<String>| {
        let page = PageRequest::parse(Some("2"), cursor.as_deref()).unwrap();
        at.store().list_audit(Some(at.tenant()), filter, page).await.unwrap()
    };
    let created = AuditFilter { action: Some(AuditAction::EndpointCreated), ..AuditFilter::default() };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = list(created.clone(), cursor).await;
        seen.extend(page.items);
        cursor = page.next.map(encode_cursor);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.windows(2).all(|pair| pair[0].id > pair[1].id));
    let id = endpoints[2].id.to_string();
    let one = list(AuditFilter { resource_id: Some(id.clone()), ..AuditFilter::default() }, None).await;
    assert_eq!(one.items.iter().map(|entry| &entry.resource_id).collect::<Vec<_>>(), [&id]);
    let other = at.other_workspace().await;
    let of_all = at.store().list_audit(None, AuditFilter::default(), PageRequest::parse(None, None).unwrap());
    let of_all = of_all.await.unwrap().items;
    assert_eq!((of_all.len(), of_all[0].workspace_id), (8, Some(other.id)));
}

async fn publishing_leaves_no_entry(at: Fixture) {
    at.endpoint().await;
    let before = actions(&at).await;
    at.publish(3).await;
    assert_eq!(actions(&at).await, before);
}

/// `(field, old, new)` as JSON.
fn shown(changes: &Changes) -> Vec<(String, String, String)> {
    let one = |change: &Change| (change.field.clone(), change.old.to_string(), change.new.to_string());
    changes.iter().map(one).collect()
}

fn change(field: &str, old: &str, new: &str) -> (String, String, String) {
    (field.to_owned(), old.to_owned(), new.to_owned())
}

async fn an_entry_lists_what_changed_without_secrets(at: Fixture) {
    let (store, tenant) = (at.store(), at.tenant());
    let token = HeaderName::parse("X-Token").unwrap();
    let header = |sealed: Option<&[u8]>| SealedHeader { name: token.clone(), sealed: sealed.map(<[u8]>::to_vec) };
    let sealed = SealedOptions { headers: Some(vec![header(Some(b"sealed"))]), ..SealedOptions::default() };
    let endpoint = at.try_create(tenant, NewEndpoint { sealed, ..at.new_endpoint() }).await.unwrap();
    let update = async |change: EndpointChange, sealed: SealedOptions| {
        let update = EndpointUpdate { change, sealed, limits: LIMITS };
        store.update_endpoint(write(tenant), endpoint.id, update).await.unwrap();
        shown(&at.audit().await[0].changes)
    };
    let created = shown(&at.audit().await[0].changes);
    assert!(created.contains(&change("url", "null", &format!("{:?}", endpoint.url))), "{created:?}");
    assert!(created.contains(&change("secret", "null", "\"[redacted]\"")), "{created:?}");
    assert!(created.contains(&change("headers.X-Token", "null", "\"[redacted]\"")), "{created:?}");
    let renamed = EndpointChange {
        name: Some(EndpointName::parse("Other").unwrap()),
        is_active: Some(false),
        ..EndpointChange::default()
    };
    let kept = SealedOptions { headers: Some(vec![header(None)]), ..SealedOptions::default() };
    let expected = [change("name", &format!("{:?}", endpoint.name), "\"Other\""), change("isActive", "true", "false")];
    assert_eq!(update(renamed, kept).await, expected);
    let replaced = SealedOptions { headers: Some(vec![header(Some(b"other"))]), ..SealedOptions::default() };
    let expected = [change("headers.X-Token", "\"[redacted]\"", "\"[redacted]\"")];
    assert_eq!(update(EndpointChange::default(), replaced).await, expected);
    let removed = SealedOptions { headers: Some(vec![]), ..SealedOptions::default() };
    let expected = [change("headers.X-Token", "\"[redacted]\"", "null")];
    assert_eq!(update(EndpointChange::default(), removed).await, expected);
    let id = at.workspace.id;
    let name = WorkspaceName::parse("Renamed").unwrap();
    store.rename_workspace(WorkspaceRename { id, name, author: AUTHOR }, None).await.unwrap();
    let expected = [change("name", &format!("{:?}", at.workspace.name.as_str()), "\"Renamed\"")];
    assert_eq!(shown(&at.audit().await[0].changes), expected);
    let key = at.api_key(at.new_api_key(1)).await;
    let created = shown(&at.audit().await[0].changes);
    assert!(created.contains(&change("key", "null", "\"[redacted]\"")) && created.iter().any(|one| one.0 == "scopes"));
    store.revoke_api_key(write(tenant), key.id).await.unwrap();
    assert_eq!(at.audit().await[0].changes.iter().next().unwrap().field, "revokedAt");
    store.delete_endpoint(write(tenant), endpoint.id).await.unwrap();
    let deleted = shown(&at.audit().await[0].changes);
    assert!(deleted.contains(&change("secret", "\"[redacted]\"", "null")), "{deleted:?}");
    assert!(deleted.contains(&change("name", "\"Other\"", "null")), "{deleted:?}");
}

async fn entries_are_selected_by_time(at: Fixture) {
    at.endpoint().await;
    let list = async |since, until| {
        let filter = AuditFilter { since, until, ..AuditFilter::default() };
        let page = PageRequest::parse(None, None).unwrap();
        at.store().list_audit(Some(at.tenant()), filter, page).await.unwrap().items.len()
    };
    let after = START.plus(Duration::from_millis(1));
    assert_eq!((list(Some(START), None).await, list(Some(after), None).await), (2, 0));
    assert_eq!((list(None, Some(START)).await, list(None, Some(after)).await), (0, 2));
}

async fn refusals_are_kept_until_they_are_old(at: Fixture) {
    let stranger = Author { actor: Actor::Unknown, mode: Mode::Live, request_id: None, address: Some(ADDRESS) };
    let unknown = Refusal { reason: KeyRefusal::InvalidToken, route: Some("GET /v1/x".to_owned()), count: 7 };
    let lacking = Refusal { reason: KeyRefusal::ScopeMissing, route: None, count: 1 };
    let refusals = vec![
        NewRefusal { workspace: None, author: stranger, refusal: unknown.clone() },
        NewRefusal { workspace: Some(at.workspace.key), author: TESTER, refusal: lacking.clone() },
    ];
    at.store().record_refusals(refusals).await.unwrap();
    let [entry, _] = &at.audit().await[..] else { panic!("the creation of the workspace, and one refusal of it") };
    assert_eq!((entry.action, &entry.refusal), (AuditAction::ApiKeyScopeMissing, &Some(lacking)));
    assert_eq!((entry.author.actor, &entry.resource_id), (Actor::ApiKey(KEY), &KEY.to_string()));
    let page = PageRequest::parse(None, None).unwrap();
    let all = at.store().list_audit(None, AuditFilter::default(), page).await.unwrap().items;
    let stranger = all.iter().find(|entry| entry.workspace_id.is_none()).unwrap();
    assert_eq!((stranger.author.actor, stranger.author.address), (Actor::Unknown, Some(ADDRESS)));
    assert_eq!((stranger.refusal.as_ref(), stranger.resource_id.as_str()), (Some(&unknown), ""));
    let forget = async |age| at.store().forget_refusals(age, 1).await.unwrap();
    assert_eq!(forget(Duration::from_secs(3600)).await, 0);
    at.advance(Duration::from_secs(3600) + Duration::from_millis(1));
    assert_eq!([forget(Duration::from_secs(3600)).await, forget(Duration::from_secs(3600)).await], [1, 1]);
    assert_eq!((forget(Duration::ZERO).await, at.audit().await.len()), (0, 1), "the entry of a write stays");
}
