//! Workspaces: created, renamed, and deleted with their keys, endpoints and queue.

use std::time::Duration;

use postrider_domain::access::ApiKeyHash;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::id::WorkspaceId;
use postrider_domain::page::PageRequest;
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::{CreateApiKeyError, NewApiKey, NewWorkspace, WorkspaceRename, WriteWorkspaceError};

use crate::store::fixture::{AUTHOR, Fixture, START, done, tenant_of};

on_each_backend! {
    a_workspace_is_created_once_for_a_name,
    two_workspaces_have_different_keys_and_ids,
    a_workspace_name_is_unique,
    a_workspace_is_renamed_and_may_keep_its_name,
    the_keys_of_a_deleted_workspace_are_unknown,
    the_queue_of_a_deleted_workspace_is_cancelled,
    a_deleted_workspace_is_not_found_and_frees_its_name,
    the_servers_own_workspace_is_found_by_no_name,
}

fn name(text: &str) -> WorkspaceName {
    WorkspaceName::parse(text).unwrap()
}

async fn create(at: &Fixture, text: &str) -> Result<Workspace, WriteWorkspaceError> {
    let new = NewWorkspace { id: WorkspaceId::from_letters(at.letters()), name: name(text), author: AUTHOR };
    at.store().create_workspace(new, None).await.map(done)
}

async fn rename(at: &Fixture, id: WorkspaceId, text: &str) -> Result<(), WriteWorkspaceError> {
    at.store()
        .rename_workspace(WorkspaceRename { id, name: name(text), author: AUTHOR }, None)
        .await
        .map(done)
        .map(drop)
}

async fn delete(at: &Fixture, id: WorkspaceId) -> Result<(), WriteWorkspaceError> {
    at.store().delete_workspace(id, AUTHOR, None).await.map(done)
}

fn named(letter: u8, name: &str) -> NewWorkspace {
    NewWorkspace { id: WorkspaceId::from_letters([letter; 16]), name: self::name(name), author: AUTHOR }
}

async fn a_workspace_is_created_once_for_a_name(mut at: Fixture) {
    let created = at.store().ensure_workspace(named(b'a', "Acme Ü")).await.unwrap();
    assert_eq!((created.id, created.created_at), (WorkspaceId::from_letters([b'a'; 16]), START));
    at.advance(Duration::from_secs(1));
    at.reopen().await;
    let again = at.store().ensure_workspace(named(b'b', "Acme Ü")).await.unwrap();
    assert_eq!((again.key, again.id, again.created_at), (created.key, created.id, START));
    assert_eq!(again.name.as_str(), "Acme Ü");
}

async fn two_workspaces_have_different_keys_and_ids(at: Fixture) {
    let other = at.other_workspace().await;
    assert_ne!(other.key, at.workspace.key);
    assert_ne!(other.id, at.workspace.id);
}

async fn a_workspace_name_is_unique(at: Fixture) {
    create(&at, "Acme").await.unwrap();
    assert!(matches!(create(&at, "Acme").await, Err(WriteWorkspaceError::NameTaken)));
    create(&at, "acme").await.unwrap();
    assert!(matches!(create(&at, "the workspace").await, Err(WriteWorkspaceError::NameTaken)));
}

async fn a_workspace_is_renamed_and_may_keep_its_name(mut at: Fixture) {
    let created = create(&at, "Acme").await.unwrap();
    rename(&at, created.id, "Acme").await.unwrap();
    rename(&at, created.id, "Acme Inc.").await.unwrap();
    assert!(matches!(rename(&at, created.id, "the workspace").await, Err(WriteWorkspaceError::NameTaken)));
    let unknown = WorkspaceId::from_letters([b'z'; 16]);
    assert!(matches!(rename(&at, unknown, "Nobody").await, Err(WriteWorkspaceError::NotFound)));
    at.reopen().await;
    let found = at.store().find_workspace(created.id).await.unwrap().expect("the workspace exists");
    assert_eq!((found.key, found.name, found.created_at), (created.key, name("Acme Inc."), created.created_at));
    assert!(at.store().find_workspace_named(name("Acme")).await.unwrap().is_none());
}

async fn the_keys_of_a_deleted_workspace_are_unknown(mut at: Fixture) {
    let other = at.other_workspace().await;
    at.api_key(at.new_api_key(1)).await;
    let theirs = at.api_key(NewApiKey { tenant: tenant_of(other.key), ..at.new_api_key(2) }).await;
    delete(&at, other.id).await.unwrap();
    at.reopen().await;
    assert!(at.store().find_api_key(ApiKeyHash([2; 32])).await.unwrap().is_none());
    assert!(at.store().get_api_key(None, theirs.id).await.unwrap().is_none());
    assert!(at.store().find_api_key(ApiKeyHash([1; 32])).await.unwrap().is_some());
    let late = NewApiKey { tenant: tenant_of(other.key), ..at.new_api_key(3) };
    assert!(matches!(at.store().create_api_key(late, None).await, Err(CreateApiKeyError::NoWorkspace)));
}

async fn the_queue_of_a_deleted_workspace_is_cancelled(at: Fixture) {
    let endpoints = at.endpoints(3).await;
    at.publish(4).await;
    assert_eq!(at.deliveries().await.len(), 12);
    delete(&at, at.workspace.id).await.unwrap();
    while at.claim(100).await.next_due_in.is_some() {}
    let ended = at.deliveries().await;
    let cancelled = (DeliveryStatus::Cancelled, Some(EndReason::EndpointDeleted));
    assert!(ended.iter().all(|delivery| (delivery.status, delivery.reason) == cancelled), "{ended:#?}");
    for endpoint in endpoints {
        assert!(at.store().find_endpoint(at.tenant(), endpoint.id).await.unwrap().is_none());
        assert!(at.store().find_secret(endpoint.key, SecretVersion::FIRST).await.unwrap().is_none());
    }
    assert!(at.publish(1).await.iter().all(|receipt| receipt.deliveries == 0));
}

async fn a_deleted_workspace_is_not_found_and_frees_its_name(at: Fixture) {
    let created = create(&at, "Acme").await.unwrap();
    delete(&at, created.id).await.unwrap();
    assert!(matches!(delete(&at, created.id).await, Err(WriteWorkspaceError::NotFound)));
    assert!(matches!(rename(&at, created.id, "Acme").await, Err(WriteWorkspaceError::NotFound)));
    assert!(at.store().find_workspace(created.id).await.unwrap().is_none());
    let listed = at.store().list_workspaces(PageRequest::parse(None, None).unwrap()).await.unwrap();
    assert_eq!(listed.items.iter().map(|workspace| workspace.id).collect::<Vec<_>>(), [at.workspace.id]);
    let again = create(&at, "Acme").await.unwrap();
    assert_ne!(again.id, created.id);
}

async fn the_servers_own_workspace_is_found_by_no_name(mut at: Fixture) {
    assert!(at.store().find_operations_workspace().await.unwrap().is_none());
    // A tenant of an earlier version may have the name.
    let name = WorkspaceName::operations();
    let tenant = NewWorkspace { name: name.clone(), ..named(b't', "tenant") };
    let tenant = at.store().ensure_workspace(tenant).await.unwrap();
    let own = at.store().ensure_operations_workspace(WorkspaceId::from_letters([b'o'; 16]), AUTHOR).await.unwrap();
    assert_eq!((own.is_operations, own.name.as_str(), tenant.is_operations), (true, "operations", false));
    assert_ne!(own.key, tenant.key);
    at.reopen().await;
    let again = at.store().ensure_operations_workspace(WorkspaceId::from_letters([b'p'; 16]), AUTHOR).await.unwrap();
    assert_eq!((again.key, again.id), (own.key, own.id));
    assert_eq!(at.store().find_operations_workspace().await.unwrap().unwrap().key, own.key);
    assert_eq!(at.store().find_workspace_named(name).await.unwrap().unwrap().key, tenant.key);
    assert!(matches!(rename(&at, own.id, "mine").await, Err(WriteWorkspaceError::Operations)));
    assert!(matches!(delete(&at, own.id).await, Err(WriteWorkspaceError::Operations)));
    delete(&at, tenant.id).await.unwrap();
    assert_eq!(at.store().find_workspace(own.id).await.unwrap().unwrap().key, own.key);
}
