//! Workspaces, API keys, and the store's own facts.

use std::time::Duration;

use postrider_domain::access::{ApiKey, ApiKeyHash, ApiKeyName, Mode, Scope, Scopes};
use postrider_domain::audit::AuditAction;
use postrider_domain::id::{ApiKeyId, WorkspaceId};
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_domain::workspace::WorkspaceName;
use postrider_store::{CreateApiKeyError, NewApiKey, NewWorkspace, RevokeApiKeyError, Written};

use crate::store::fixture::{AUTHOR, Fixture, START, TAG};

on_each_backend! {
    a_workspace_is_made_once,
    two_workspaces_share_nothing_but_the_store,
    an_api_key_reads_back_as_it_was_made,
    an_unknown_hash_finds_no_key,
    a_key_revoked_twice_keeps_the_first_instant,
    revoking_a_key_that_is_not_there_says_so,
    a_workspace_has_room_for_its_limit_of_keys_and_a_revoked_one_makes_room,
    keys_are_listed_newest_first_each_workspace_by_itself,
    a_fact_about_the_store_is_kept_as_it_was_first_told,
    a_store_keeps_the_tag_it_was_made_with,
    row_keys_only_grow_also_when_the_clock_steps_back,
    a_store_that_works_says_so,
}

fn named(letter: u8, name: &str) -> NewWorkspace {
    let name = WorkspaceName::parse(name).unwrap();
    NewWorkspace { id: WorkspaceId::from_letters([letter; 16]), name, author: AUTHOR }
}

/// The key as it is after it was revoked.
async fn revoke(at: &Fixture, id: ApiKeyId) -> Result<ApiKey, RevokeApiKeyError> {
    match at.store().revoke_api_key(at.workspace.key, id, AUTHOR, None).await? {
        Written::Done(api_key) => Ok(api_key),
        other => panic!("without a key nothing is replayed: {other:?}"),
    }
}

async fn a_workspace_is_made_once(mut at: Fixture) {
    let made = at.store().ensure_workspace(named(b'a', "Acme Ü")).await.unwrap();
    assert_eq!((made.id, made.created_at), (WorkspaceId::from_letters([b'a'; 16]), START));
    at.advance(Duration::from_secs(1));
    at.reopen().await;
    let again = at.store().ensure_workspace(named(b'b', "Acme Ü")).await.unwrap();
    assert_eq!((again.key, again.id, again.created_at), (made.key, made.id, START));
    assert_eq!(again.name.as_str(), "Acme Ü");
}

async fn two_workspaces_share_nothing_but_the_store(at: Fixture) {
    let other = at.other_workspace().await;
    assert_ne!(other.key, at.workspace.key);
    assert_ne!(other.id, at.workspace.id);
}

async fn an_api_key_reads_back_as_it_was_made(mut at: Fixture) {
    let expires_at = Some(START.plus(Duration::from_secs(86_400)));
    let scopes = Scopes::of(&Scope::ALL);
    let new = NewApiKey { mode: Mode::Test, scopes, expires_at, ..at.new_api_key(7) };
    let made = at.api_key(new.clone()).await;
    let scopeless = NewApiKey { scopes: Scopes::default(), ..at.new_api_key(8) };
    at.api_key(scopeless).await;
    at.reopen().await;
    let found = at.store().find_api_key(new.hash).await.unwrap().expect("it was made");
    for key in [&made, &found] {
        assert_eq!((key.id, key.workspace_id, key.workspace_key), (new.id, at.workspace.id, at.workspace.key));
        assert_eq!((key.mode, key.scopes, key.last4.as_str()), (Mode::Test, scopes, "wxyz"));
        assert_eq!((key.created_at, key.expires_at, key.revoked_at), (START, expires_at, None));
    }
    let scopeless = at.store().find_api_key(ApiKeyHash([8; 32])).await.unwrap().unwrap();
    assert_eq!((scopeless.scopes, scopeless.expires_at), (Scopes::default(), None));
}

async fn an_unknown_hash_finds_no_key(at: Fixture) {
    at.api_key(at.new_api_key(1)).await;
    assert!(at.store().find_api_key(ApiKeyHash([2; 32])).await.unwrap().is_none());
}

async fn a_key_revoked_twice_keeps_the_first_instant(mut at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let bystander = at.api_key(at.new_api_key(2)).await;
    at.advance(Duration::from_secs(60));
    let first = at.clock_now();
    assert_eq!(revoke(&at, key.id).await.unwrap().revoked_at, Some(first));
    at.advance(Duration::from_secs(60));
    assert_eq!(revoke(&at, key.id).await.unwrap().revoked_at, Some(first));
    at.reopen().await;
    let found = at.store().find_api_key(ApiKeyHash([1; 32])).await.unwrap().expect("a revoked key is still known");
    assert_eq!(found.revoked_at, Some(first));
    let bystander_now = at.store().find_api_key(ApiKeyHash([2; 32])).await.unwrap().unwrap();
    assert_eq!((bystander_now.id, bystander_now.revoked_at), (bystander.id, None));
}

async fn revoking_a_key_that_is_not_there_says_so(at: Fixture) {
    let unknown = ApiKeyId::from_letters([b'z'; 16]);
    assert!(matches!(revoke(&at, unknown).await, Err(RevokeApiKeyError::NotFound)));
    let other = at.other_workspace().await;
    let theirs = at.api_key(NewApiKey { workspace_key: other.key, ..at.new_api_key(3) }).await;
    assert!(matches!(revoke(&at, theirs.id).await, Err(RevokeApiKeyError::NotFound)));
    assert!(at.audit().await.iter().all(|entry| entry.action != AuditAction::ApiKeyRevoked));
}

async fn a_workspace_has_room_for_its_limit_of_keys_and_a_revoked_one_makes_room(at: Fixture) {
    let limited = |hash| NewApiKey { limit: 2, ..at.new_api_key(hash) };
    let first = at.api_key(limited(1)).await;
    at.api_key(limited(2)).await;
    let full = at.store().create_api_key(limited(3), None).await;
    assert!(matches!(full, Err(CreateApiKeyError::WorkspaceFull(2))), "{full:?}");
    revoke(&at, first.id).await.unwrap();
    at.api_key(limited(3)).await;
    let other = at.other_workspace().await;
    at.api_key(NewApiKey { workspace_key: other.key, ..limited(4) }).await;
}

async fn keys_are_listed_newest_first_each_workspace_by_itself(at: Fixture) {
    let name = ApiKeyName::parse("the billing worker").unwrap();
    let first = at.api_key(NewApiKey { name: Some(name), ..at.new_api_key(1) }).await;
    let second = at.api_key(at.new_api_key(2)).await;
    let other = at.other_workspace().await;
    let theirs = at.api_key(NewApiKey { workspace_key: other.key, ..at.new_api_key(3) }).await;
    revoke(&at, second.id).await.unwrap();
    let page = |cursor: Option<&str>| PageRequest::parse(Some("1"), cursor).unwrap();
    let newest = at.store().list_api_keys(Some(at.workspace.key), page(None)).await.unwrap();
    assert_eq!((newest.items[0].id, newest.items[0].revoked_at), (second.id, Some(START)));
    let cursor = encode_cursor(newest.next.expect("there is one more"));
    let oldest = at.store().list_api_keys(Some(at.workspace.key), page(Some(&cursor))).await.unwrap();
    assert_eq!((oldest.items[0].id, oldest.items[0].name.as_deref()), (first.id, Some("the billing worker")));
    assert_eq!(oldest.next, None);
    let of_all = at.store().list_api_keys(None, PageRequest::parse(None, None).unwrap()).await.unwrap();
    assert_eq!(of_all.items.iter().map(|key| key.id).collect::<Vec<_>>(), [theirs.id, second.id, first.id]);
    assert!(at.store().get_api_key(Some(at.workspace.key), theirs.id).await.unwrap().is_none());
    assert_eq!(at.store().get_api_key(None, theirs.id).await.unwrap().unwrap().workspace_id, other.id);
}

async fn a_fact_about_the_store_is_kept_as_it_was_first_told(mut at: Fixture) {
    assert_eq!(at.store().meta("fact").await.unwrap(), None);
    assert_eq!(at.store().meta_or_insert("fact", b"first".to_vec()).await.unwrap(), b"first");
    assert_eq!(at.store().meta_or_insert("fact", b"second".to_vec()).await.unwrap(), b"first");
    assert_eq!(at.store().meta_or_insert("other", b"another".to_vec()).await.unwrap(), b"another");
    at.reopen().await;
    assert_eq!(at.store().meta("fact").await.unwrap().as_deref(), Some(&b"first"[..]));
    assert_eq!(at.store().meta_or_insert("fact", Vec::new()).await.unwrap(), b"first");
}

async fn a_store_keeps_the_tag_it_was_made_with(mut at: Fixture) {
    assert_eq!(at.store().tag(), TAG);
    at.reopen().await;
    assert_eq!(at.store().tag(), TAG, "the process that opens a store that exists is not heard");
}

async fn row_keys_only_grow_also_when_the_clock_steps_back(at: Fixture) {
    let mut last = at.store().next_key();
    assert_eq!(last.created_at(), START);
    for step in 0..5_000 {
        if step % 100 == 0 {
            at.clock.set(START.minus(Duration::from_secs(step)));
        }
        let next = at.store().next_key();
        assert!(last < next, "{last:?} is not before {next:?}");
        last = next;
    }
    let made_inside = at.publish(1).await[0].id.key();
    assert!(last < made_inside && made_inside < at.store().next_key());
}

async fn a_store_that_works_says_so(at: Fixture) {
    at.store().check().await.unwrap();
}
