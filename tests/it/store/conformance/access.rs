//! Workspaces, API keys, and the store's own facts.

use std::time::Duration;

use postrider::domain::access::{ApiKeyHash, Mode, Scope, Scopes};
use postrider::domain::id::{ApiKeyId, WorkspaceId};
use postrider::domain::workspace::WorkspaceName;
use postrider::store::NewApiKey;

use crate::store::fixture::{Fixture, START, TAG};

on_each_backend! {
    a_workspace_is_made_once,
    two_workspaces_share_nothing_but_the_store,
    an_api_key_reads_back_as_it_was_made,
    an_unknown_hash_finds_no_key,
    a_key_revoked_twice_keeps_the_first_instant,
    revoking_a_key_that_is_not_there_says_so,
    a_fact_about_the_store_is_kept_as_it_was_first_told,
    a_store_keeps_the_tag_it_was_made_with,
    row_keys_only_grow_also_when_the_clock_steps_back,
    a_store_that_works_says_so,
}

async fn a_workspace_is_made_once(mut at: Fixture) {
    let name = || WorkspaceName::parse("Acme Ü").unwrap();
    let made = at.store().ensure_workspace(name(), WorkspaceId::from_letters([b'a'; 16])).await.unwrap();
    assert_eq!((made.id, made.created_at), (WorkspaceId::from_letters([b'a'; 16]), START));
    at.advance(Duration::from_secs(1));
    at.reopen().await;
    let again = at.store().ensure_workspace(name(), WorkspaceId::from_letters([b'b'; 16])).await.unwrap();
    assert_eq!((again.key, again.id, again.created_at), (made.key, made.id, START));
    assert_eq!(again.name, name());
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
    let made = at.store().create_api_key(new.clone()).await.unwrap();
    let scopeless = NewApiKey { scopes: Scopes::default(), ..at.new_api_key(8) };
    at.store().create_api_key(scopeless).await.unwrap();
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
    at.store().create_api_key(at.new_api_key(1)).await.unwrap();
    assert!(at.store().find_api_key(ApiKeyHash([2; 32])).await.unwrap().is_none());
}

async fn a_key_revoked_twice_keeps_the_first_instant(mut at: Fixture) {
    let key = at.store().create_api_key(at.new_api_key(1)).await.unwrap();
    let bystander = at.store().create_api_key(at.new_api_key(2)).await.unwrap();
    at.advance(Duration::from_secs(60));
    let first = at.clock_now();
    assert_eq!(at.store().revoke_api_key(key.id).await.unwrap().unwrap().revoked_at, Some(first));
    at.advance(Duration::from_secs(60));
    assert_eq!(at.store().revoke_api_key(key.id).await.unwrap().unwrap().revoked_at, Some(first));
    at.reopen().await;
    let found = at.store().find_api_key(ApiKeyHash([1; 32])).await.unwrap().expect("a revoked key is still known");
    assert_eq!(found.revoked_at, Some(first));
    let bystander_now = at.store().find_api_key(ApiKeyHash([2; 32])).await.unwrap().unwrap();
    assert_eq!((bystander_now.id, bystander_now.revoked_at), (bystander.id, None));
}

async fn revoking_a_key_that_is_not_there_says_so(at: Fixture) {
    let unknown = ApiKeyId::from_letters([b'z'; 16]);
    assert!(at.store().revoke_api_key(unknown).await.unwrap().is_none());
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
