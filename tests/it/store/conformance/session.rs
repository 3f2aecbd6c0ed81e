//! Sign-in sessions and login codes: opened once, found by hash, ended by time, by signing out and with their key.

use std::time::Duration;

use postrider_domain::access::{ApiKey, Mode, Scope, Scopes};
use postrider_domain::audit::{Actor, AuditAction, AuditFilter, Author};
use postrider_domain::id::{SessionId, WorkspaceId};
use postrider_domain::limits;
use postrider_domain::session::{DashboardSession, LoginCodeHash, SessionHash};
use postrider_domain::time::Timestamp;
use postrider_store::{CreateApiKeyError, NewApiKey, NewLoginCode, SessionOpening, SignOut};
use serde_json::json;

use crate::store::fixture::{AUTHOR, Fixture, START, tenant_of, write};

on_each_backend! {
    a_session_has_what_its_key_has,
    a_key_that_is_not_in_use_opens_no_session,
    a_session_ends_with_its_key_and_with_its_workspace,
    a_session_is_not_used_longer_than_its_key_works,
    a_request_postpones_the_idle_end_and_not_the_last_one,
    a_session_that_has_ended_is_not_revived,
    a_login_code_opens_one_session_even_for_two_at_once,
    a_login_code_is_valid_until_it_is_too_old,
    signing_out_removes_the_session,
    a_session_goes_on_in_another_workspace_and_no_longer,
    a_session_goes_on_nowhere_else,
    a_sign_in_beyond_the_limit_ends_the_longest_idle_session,
    a_code_beyond_the_limit_replaces_the_oldest,
    ended_sessions_and_old_codes_are_removed_in_small_steps,
    a_key_made_by_a_session_is_revoked_with_the_key_behind_it,
    a_session_that_has_ended_makes_no_key,
}

const NOWHERE: SignOut = SignOut { request_id: None, address: None };

fn id(at: &Fixture) -> SessionId {
    SessionId::from_letters(at.letters())
}

async fn open(at: &Fixture, key: &ApiKey, hash: u8) -> DashboardSession {
    at.store().create_session(id(at), key.id, at.session_opening(hash)).await.unwrap().expect("the key is in use")
}

async fn redeem(at: &Fixture, code: u8, hash: u8) -> Option<DashboardSession> {
    at.store().redeem_login_code(LoginCodeHash([code; 32]), at.session_opening(hash)).await.unwrap()
}

async fn find(at: &Fixture, hash: u8) -> Option<DashboardSession> {
    at.store().find_session(SessionHash([hash; 32])).await.unwrap()
}

async fn note_seen(at: &Fixture, session: &DashboardSession) {
    let (idle, every) = (limits::SESSION_IDLE, limits::SESSION_SEEN_EVERY);
    at.store().note_session_seen(session.key, idle, every).await.unwrap();
}

async fn actions(at: &Fixture, action: AuditAction) -> Vec<(Actor, Mode, String)> {
    let filter = AuditFilter { action: Some(action), ..AuditFilter::default() };
    let entries = at.store().list_audit(Some(at.tenant()), filter, Fixture::page()).await.unwrap().items;
    entries.into_iter().map(|entry| (entry.author.actor, entry.author.mode, entry.resource_id)).collect()
}

async fn a_session_has_what_its_key_has(mut at: Fixture) {
    let scopes = Scopes::of(&[Scope::Dashboard, Scope::AuditRead]);
    let key = at.api_key(NewApiKey { tenant: at.test_tenant(), scopes, ..at.new_api_key(1) }).await;
    let session = open(&at, &key, 1).await;
    at.reopen().await;
    assert_eq!(find(&at, 1).await.as_ref(), Some(&session));
    assert_eq!((session.tenant, session.workspace_id, session.scopes), (at.test_tenant(), at.workspace.id, scopes));
    assert_eq!((session.api_key, session.api_key_expires_at), (Some(key.id), None));
    assert_eq!(session.expires_at, START.plus(limits::SESSION_LIFETIME));
    assert_eq!((session.last_seen_at, session.ends_at), (START, START.plus(limits::SESSION_IDLE)));
    assert_eq!(find(&at, 2).await, None);
    let entry = &at.audit().await[0];
    assert_eq!((entry.action, entry.author.mode), (AuditAction::SessionCreated, Mode::Test));
    assert_eq!((entry.author.actor, &entry.resource_id), (Actor::ApiKey(key.id), &session.id.to_string()));
    let changes = json!([
        {"field": "mode", "old": null, "new": "test"},
        {"field": "scopes", "old": null, "new": ["audit:read", "dashboard"]},
        {"field": "expiresAt", "old": null, "new": session.expires_at.to_string()},
        {"field": "apiKeyId", "old": null, "new": key.id.to_string()},
    ]);
    assert_eq!(serde_json::to_value(&entry.changes).unwrap(), changes);
}

async fn go_on(at: &Fixture, hash: u8, to: WorkspaceId, new_hash: u8) -> Option<DashboardSession> {
    let (hash, opening) = (SessionHash([hash; 32]), at.session_opening(new_hash));
    at.store().switch_session(hash, id(at), to, opening).await.unwrap()
}

async fn a_session_goes_on_in_another_workspace_and_no_longer(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let before = open(&at, &key, 1).await;
    let other = at.other_workspace().await;
    at.advance(Duration::from_secs(3600));
    let after = go_on(&at, 1, other.id, 2).await.expect("a session");
    assert_eq!(find(&at, 1).await, None, "the first has ended");
    assert_eq!(find(&at, 2).await.as_ref(), Some(&after));
    assert_eq!((after.tenant, after.workspace_id), (tenant_of(other.key), other.id));
    assert_eq!((after.scopes, after.api_key, after.expires_at), (before.scopes, before.api_key, before.expires_at));
    assert_eq!(after.ends_at, at.clock_now().plus(limits::SESSION_IDLE));
    let ended = actions(&at, AuditAction::SessionEnded).await;
    assert_eq!(ended, [(Actor::Session(before.id), Mode::Live, before.id.to_string())]);
    at.store().revoke_api_key(write(at.tenant()), key.id).await.unwrap();
    assert_eq!(find(&at, 2).await, None, "it ends with its key");
}

async fn a_session_goes_on_nowhere_else(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let session = open(&at, &key, 1).await;
    let letters = WorkspaceId::from_letters(at.letters());
    let operations = at.store().ensure_operations_workspace(letters, AUTHOR).await.unwrap();
    let unknown = WorkspaceId::from_letters([b'0'; 16]);
    for to in [operations.id, unknown] {
        assert_eq!(go_on(&at, 1, to, 2).await, None);
    }
    assert_eq!(find(&at, 1).await, Some(session), "it is as it was");
    assert_eq!(go_on(&at, 3, at.workspace.id, 2).await, None, "there is no such session");
    at.advance(limits::SESSION_IDLE);
    assert_eq!(go_on(&at, 1, at.workspace.id, 2).await, None, "it has ended");
    assert_eq!(find(&at, 2).await, None);
}

async fn a_key_that_is_not_in_use_opens_no_session(at: Fixture) {
    let revoked = at.api_key(at.new_api_key(1)).await;
    at.store().revoke_api_key(write(at.tenant()), revoked.id).await.unwrap();
    let soon = Some(START.plus(Duration::from_secs(60)));
    let expired = at.api_key(NewApiKey { expires_at: soon, ..at.new_api_key(2) }).await;
    at.advance(Duration::from_secs(60));
    for (key, hash) in [(revoked, 1), (expired, 2)] {
        assert_eq!(at.store().create_session(id(&at), key.id, at.session_opening(hash)).await.unwrap(), None);
        assert_eq!(find(&at, hash).await, None);
    }
    assert_eq!(actions(&at, AuditAction::SessionCreated).await, []);
}

async fn a_session_ends_with_its_key_and_with_its_workspace(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    open(&at, &key, 1).await;
    at.store().create_login_code(at.new_login_code(2)).await.unwrap();
    redeem(&at, 2, 2).await.expect("the code is valid");
    at.store().create_login_code(at.new_login_code(3)).await.unwrap();
    at.store().revoke_api_key(write(at.tenant()), key.id).await.unwrap();
    assert_eq!(find(&at, 1).await, None);
    assert!(find(&at, 2).await.is_some(), "no key is behind it");
    at.store().delete_workspace(at.workspace.id, AUTHOR, None).await.unwrap();
    assert_eq!(find(&at, 2).await, None);
    assert_eq!(redeem(&at, 3, 3).await, None);
    assert_eq!(at.store().create_login_code(at.new_login_code(4)).await.unwrap(), None);
}

async fn a_session_is_not_used_longer_than_its_key_works(at: Fixture) {
    let ends = START.plus(Duration::from_secs(3600));
    let key = at.api_key(NewApiKey { expires_at: Some(ends), ..at.new_api_key(1) }).await;
    let session = open(&at, &key, 1).await;
    assert_eq!((session.expires_at, session.ends_at, session.api_key_expires_at), (ends, ends, Some(ends)));
    at.advance(Duration::from_secs(1800));
    note_seen(&at, &session).await;
    assert_eq!(find(&at, 1).await.unwrap().ends_at, ends);
}

async fn a_request_postpones_the_idle_end_and_not_the_last_one(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let session = open(&at, &key, 1).await;
    at.advance(limits::SESSION_SEEN_EVERY - Duration::from_millis(1));
    note_seen(&at, &session).await;
    assert_eq!(find(&at, 1).await.as_ref(), Some(&session), "not noted more than once a minute");
    let mut last = session.clone();
    while at.clock_now() < session.expires_at.minus(Duration::from_secs(3600)) {
        at.advance(Duration::from_secs(3600));
        note_seen(&at, &session).await;
        let noted = find(&at, 1).await.unwrap();
        assert_eq!(noted, last.seen(at.clock_now(), limits::SESSION_IDLE));
        last = noted;
    }
    assert_eq!((last.ends_at, last.expires_at), (session.expires_at, session.expires_at));
}

async fn a_session_that_has_ended_is_not_revived(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let session = open(&at, &key, 1).await;
    at.advance(limits::SESSION_IDLE);
    note_seen(&at, &session).await;
    assert_eq!(find(&at, 1).await, Some(session));
}

async fn a_login_code_opens_one_session_even_for_two_at_once(at: Fixture) {
    let new = at.new_login_code(7);
    let ends = at.store().create_login_code(new.clone()).await.unwrap();
    assert_eq!(ends, Some(START.plus(limits::LOGIN_CODE_LIFETIME)));
    let (first, second) = tokio::join!(redeem(&at, 7, 1), redeem(&at, 7, 2));
    let (session, hash) = match (first, second) {
        (Some(session), None) => (session, 1),
        (None, Some(session)) => (session, 2),
        both => panic!("one of the two opens the session: {both:?}"),
    };
    assert_eq!(find(&at, hash).await.as_ref(), Some(&session));
    assert_eq!(find(&at, 3 - hash).await, None);
    assert_eq!((session.id, session.tenant, session.scopes), (new.session_id, at.tenant(), new.scopes));
    assert_eq!((session.api_key, session.expires_at), (None, START.plus(limits::SESSION_LIFETIME)));
    assert_eq!(redeem(&at, 7, 3).await, None, "it is used up");
    let resource = session.id.to_string();
    let by_command = (Actor::CommandLine, Mode::Live, resource.clone());
    assert_eq!(actions(&at, AuditAction::LoginCodeCreated).await, [by_command]);
    let by_session = (Actor::Session(session.id), Mode::Live, resource);
    assert_eq!(actions(&at, AuditAction::SessionCreated).await, [by_session]);
}

async fn a_login_code_is_valid_until_it_is_too_old(at: Fixture) {
    for code in [1, 2] {
        at.store().create_login_code(at.new_login_code(code)).await.unwrap();
    }
    at.advance(limits::LOGIN_CODE_LIFETIME - Duration::from_millis(1));
    assert!(redeem(&at, 1, 1).await.is_some());
    at.advance(Duration::from_millis(1));
    assert_eq!(redeem(&at, 2, 2).await, None);
}

async fn signing_out_removes_the_session(mut at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let session = open(&at, &key, 1).await;
    open(&at, &key, 2).await;
    let hash = SessionHash([1; 32]);
    assert!(at.store().end_session(hash, NOWHERE).await.unwrap());
    assert!(!at.store().end_session(hash, NOWHERE).await.unwrap());
    at.reopen().await;
    assert_eq!(find(&at, 1).await, None);
    assert!(find(&at, 2).await.is_some());
    let ended = (Actor::Session(session.id), Mode::Live, session.id.to_string());
    assert_eq!(actions(&at, AuditAction::SessionEnded).await, [ended]);
}

async fn a_sign_in_beyond_the_limit_ends_the_longest_idle_session(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let limited = |hash| SessionOpening { limit: 2, ..at.session_opening(hash) };
    let sign_in = async |hash| {
        at.advance(Duration::from_secs(90));
        at.store().create_session(id(&at), key.id, limited(hash)).await.unwrap().unwrap()
    };
    let first = sign_in(1).await;
    let second = sign_in(2).await;
    at.advance(Duration::from_secs(1));
    note_seen(&at, &first).await;
    sign_in(3).await;
    assert_eq!((find(&at, 1).await.is_some(), find(&at, 2).await), (true, None));
    let ended = (Actor::ApiKey(key.id), Mode::Live, second.id.to_string());
    assert_eq!(actions(&at, AuditAction::SessionEnded).await, [ended]);
    at.advance(limits::SESSION_IDLE);
    sign_in(4).await;
    assert!(find(&at, 3).await.is_some());
    assert_eq!(actions(&at, AuditAction::SessionEnded).await.len(), 1, "the other had ended by itself");
    let other = at.other_workspace().await;
    let tenant = tenant_of(other.key);
    let theirs = at.api_key(NewApiKey { tenant, ..at.new_api_key(5) }).await;
    at.store().create_session(id(&at), theirs.id, limited(5)).await.unwrap().unwrap();
    assert!(find(&at, 3).await.is_some(), "each workspace has its own limit");
}

async fn a_code_beyond_the_limit_replaces_the_oldest(at: Fixture) {
    for code in [1, 2, 3] {
        at.store().create_login_code(NewLoginCode { limit: 2, ..at.new_login_code(code) }).await.unwrap();
    }
    assert_eq!(redeem(&at, 1, 1).await, None);
    assert!(redeem(&at, 2, 2).await.is_some());
    assert!(redeem(&at, 3, 3).await.is_some());
}

async fn ended_sessions_and_old_codes_are_removed_in_small_steps(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    for hash in 1..=5 {
        open(&at, &key, hash).await;
    }
    at.store().create_login_code(at.new_login_code(1)).await.unwrap();
    assert_eq!(at.store().remove_ended_sessions(2).await.unwrap(), 0);
    at.advance(limits::SESSION_IDLE);
    open(&at, &key, 6).await;
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(at.store().remove_ended_sessions(2).await.unwrap());
    }
    assert_eq!(steps, [2, 2, 1, 0]);
    assert_eq!(find(&at, 5).await, None);
    assert!(find(&at, 6).await.is_some());
}

async fn a_key_made_by_a_session_is_revoked_with_the_key_behind_it(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let session = open(&at, &key, 1).await;
    let by = |actor, hash| NewApiKey { author: Author { actor, ..AUTHOR }, ..at.new_api_key(hash) };
    let made = at.api_key(by(Actor::Session(session.id), 2)).await;
    assert_eq!(made.created_by, Some(Actor::Session(session.id)));
    let grandchild = at.api_key(by(Actor::ApiKey(made.id), 3)).await;
    at.store().create_login_code(at.new_login_code(4)).await.unwrap();
    let keyless = redeem(&at, 4, 4).await.unwrap();
    let bystander = at.api_key(by(Actor::Session(keyless.id), 5)).await;
    // The sessions are gone long before the keys that they made.
    at.advance(limits::SESSION_LIFETIME);
    assert_eq!(at.store().remove_ended_sessions(10).await.unwrap(), 2);
    let revoked = at.store().revoke_with_children(AUTHOR, key.id).await.unwrap();
    assert_eq!(revoked, [key.id, made.id, grandchild.id]);
    let kept = at.store().get_api_key(None, bystander.id).await.unwrap().unwrap();
    assert_eq!((kept.created_by, kept.revoked_at), (Some(Actor::Session(keyless.id)), None::<Timestamp>));
}

async fn a_session_that_has_ended_makes_no_key(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let idle = open(&at, &key, 1).await;
    at.advance(limits::SESSION_IDLE);
    let of_revoked = open(&at, &key, 2).await;
    at.store().revoke_api_key(write(at.tenant()), key.id).await.unwrap();
    for session in [idle.id, of_revoked.id, id(&at)] {
        let author = Author { actor: Actor::Session(session), ..AUTHOR };
        let made = at.store().create_api_key(NewApiKey { author, ..at.new_api_key(9) }, None).await;
        assert!(matches!(made, Err(CreateApiKeyError::SessionEnded)), "{made:?}");
    }
}
