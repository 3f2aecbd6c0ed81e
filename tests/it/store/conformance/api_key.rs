//! API keys: created, found by hash, listed and revoked.

use std::time::Duration;

use postrider_domain::access::{ApiKey, ApiKeyHash, ApiKeyName, Mode, Scope, Scopes};
use postrider_domain::audit::{Actor, AuditAction, Author};
use postrider_domain::id::ApiKeyId;
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_domain::tenant::Tenant;
use postrider_store::{CreateApiKeyError, NewApiKey, RevokeApiKeyError};

use crate::store::fixture::{AUTHOR, Fixture, START, done, tenant_of, write};

on_each_backend! {
    an_api_key_reads_back_as_created,
    an_unknown_hash_finds_no_key,
    a_key_revoked_twice_keeps_the_first_instant,
    an_unknown_or_foreign_key_is_not_revoked,
    a_revoked_key_does_not_count_against_the_limit_of_keys,
    keys_are_listed_per_workspace_newest_first,
    a_key_is_revoked_with_all_keys_that_come_from_it,
    the_last_use_of_a_key_moves_only_forward,
}

async fn revoke(at: &Fixture, id: ApiKeyId) -> Result<ApiKey, RevokeApiKeyError> {
    at.store().revoke_api_key(write(at.tenant()), id).await.map(done)
}

async fn an_api_key_reads_back_as_created(mut at: Fixture) {
    let expires_at = Some(START.plus(Duration::from_secs(86_400)));
    let scopes = Scopes::of(&Scope::ALL);
    let new = NewApiKey { tenant: at.test_tenant(), scopes, expires_at, ..at.new_api_key(7) };
    let created = at.api_key(new.clone()).await;
    let scopeless = NewApiKey { scopes: Scopes::default(), ..at.new_api_key(8) };
    at.api_key(scopeless).await;
    at.reopen().await;
    let found = at.store().find_api_key(new.hash).await.unwrap().expect("the key was created");
    for key in [&created, &found] {
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
    let found = at.store().find_api_key(ApiKeyHash([1; 32])).await.unwrap().expect("a revoked key is still found");
    assert_eq!(found.revoked_at, Some(first));
    let bystander_now = at.store().find_api_key(ApiKeyHash([2; 32])).await.unwrap().unwrap();
    assert_eq!((bystander_now.id, bystander_now.revoked_at), (bystander.id, None));
}

async fn an_unknown_or_foreign_key_is_not_revoked(at: Fixture) {
    let unknown = ApiKeyId::from_letters([b'z'; 16]);
    assert!(matches!(revoke(&at, unknown).await, Err(RevokeApiKeyError::NotFound)));
    let other = at.other_workspace().await;
    let theirs = at.api_key(NewApiKey { tenant: tenant_of(other.key), ..at.new_api_key(3) }).await;
    assert!(matches!(revoke(&at, theirs.id).await, Err(RevokeApiKeyError::NotFound)));
    assert!(at.audit().await.iter().all(|entry| entry.action != AuditAction::ApiKeyRevoked));
}

async fn a_revoked_key_does_not_count_against_the_limit_of_keys(at: Fixture) {
    let limited = |hash| NewApiKey { limit: 2, ..at.new_api_key(hash) };
    let first = at.api_key(limited(1)).await;
    at.api_key(limited(2)).await;
    let full = at.store().create_api_key(limited(3), None).await;
    assert!(matches!(full, Err(CreateApiKeyError::WorkspaceFull(2))), "{full:?}");
    revoke(&at, first.id).await.unwrap();
    at.api_key(limited(3)).await;
    let other = at.other_workspace().await;
    at.api_key(NewApiKey { tenant: tenant_of(other.key), ..limited(4) }).await;
}

async fn keys_are_listed_per_workspace_newest_first(at: Fixture) {
    let name = ApiKeyName::parse("the billing worker").unwrap();
    let first = at.api_key(NewApiKey { name: Some(name), ..at.new_api_key(1) }).await;
    let second = at.api_key(at.new_api_key(2)).await;
    let other = at.other_workspace().await;
    let theirs = at.api_key(NewApiKey { tenant: tenant_of(other.key), ..at.new_api_key(3) }).await;
    revoke(&at, second.id).await.unwrap();
    let page = |cursor: Option<&str>| PageRequest::parse(Some("1"), cursor).unwrap();
    let newest = at.store().list_api_keys(Some(at.tenant()), page(None)).await.unwrap();
    assert_eq!((newest.items[0].id, newest.items[0].revoked_at), (second.id, Some(START)));
    let cursor = encode_cursor(newest.next.expect("there is one more page"));
    let oldest = at.store().list_api_keys(Some(at.tenant()), page(Some(&cursor))).await.unwrap();
    assert_eq!((oldest.items[0].id, oldest.items[0].name.as_deref()), (first.id, Some("the billing worker")));
    assert_eq!(oldest.next, None);
    let of_all = at.store().list_api_keys(None, PageRequest::parse(None, None).unwrap()).await.unwrap();
    assert_eq!(of_all.items.iter().map(|key| key.id).collect::<Vec<_>>(), [theirs.id, second.id, first.id]);
    assert!(at.store().get_api_key(Some(at.tenant()), theirs.id).await.unwrap().is_none());
    assert_eq!(at.store().get_api_key(None, theirs.id).await.unwrap().unwrap().workspace_id, other.id);
}

async fn a_key_is_revoked_with_all_keys_that_come_from_it(mut at: Fixture) {
    let made_by = async |maker: &ApiKey, hash: u8, tenant: Tenant| {
        let author = Author { actor: Actor::ApiKey(maker.id), ..AUTHOR };
        at.api_key(NewApiKey { author, tenant, ..at.new_api_key(hash) }).await
    };
    let root = at.api_key(at.new_api_key(1)).await;
    assert_eq!(root.created_by, Some(Actor::CommandLine));
    let child = made_by(&root, 2, at.tenant()).await;
    assert_eq!(child.created_by, Some(Actor::ApiKey(root.id)));
    let elsewhere = at.other_workspace().await;
    let grandchild = made_by(&child, 3, tenant_of(elsewhere.key)).await;
    let sibling = at.api_key(at.new_api_key(4)).await;
    revoke(&at, child.id).await.unwrap();
    let entries = at.audit().await.len();
    let revoked = at.store().revoke_with_children(AUTHOR, root.id).await.unwrap();
    assert_eq!(revoked, [root.id, grandchild.id], "the child in between was revoked before");
    assert_eq!(at.audit().await.len(), entries + 1, "the other entry is in the other workspace");
    at.reopen().await;
    for (hash, is_revoked) in [(1, true), (2, true), (3, true), (4, false)] {
        let key = at.store().find_api_key(ApiKeyHash([hash; 32])).await.unwrap().unwrap();
        assert_eq!(key.revoked_at.is_some(), is_revoked, "{hash}");
    }
    assert_eq!(at.store().revoke_with_children(AUTHOR, root.id).await.unwrap(), []);
    assert_eq!(at.store().revoke_with_children(AUTHOR, sibling.id).await.unwrap(), [sibling.id]);
    let nobody = at.store().revoke_with_children(AUTHOR, ApiKeyId::from_letters([b'z'; 16])).await;
    assert!(matches!(nobody, Err(RevokeApiKeyError::NotFound)));
}

async fn the_last_use_of_a_key_moves_only_forward(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let other = at.api_key(at.new_api_key(2)).await;
    assert_eq!(key.last_used_at, None);
    let used = async |key: &ApiKey| at.store().get_api_key(None, key.id).await.unwrap().unwrap().last_used_at;
    at.advance(Duration::from_secs(100));
    let ago = |seconds: u64| Duration::from_secs(seconds);
    at.store().record_key_uses(vec![(key.key, ago(30)), (other.key, ago(5))]).await.unwrap();
    assert_eq!(used(&key).await, Some(START.plus(ago(70))));
    assert_eq!(used(&other).await, Some(START.plus(ago(95))));
    at.store().record_key_uses(vec![(key.key, ago(40)), (other.key, ago(1))]).await.unwrap();
    assert_eq!(used(&key).await, Some(START.plus(ago(70))), "another node noted a later use");
    assert_eq!(used(&other).await, Some(START.plus(ago(99))));
    at.store().record_key_uses(Vec::new()).await.unwrap();
}
