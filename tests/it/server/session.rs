//! Sign-in sessions through the service: who gets one, what it may do, when it ends.

use std::net::IpAddr;
use std::time::Duration;

use postrider_domain::access::{Mode, Principal, Scope, Scopes};
use postrider_domain::audit::{Actor, AuditAction, AuditFilter};
use postrider_domain::caller::CallerAddress;
use postrider_domain::limits;
use postrider_domain::page::PageRequest;
use postrider_domain::time::{Clock, Day};
use postrider_domain::workspace::WorkspaceName;
use postrider_service::{CreateApiKey, CreateLoginCode, CreatedApiKey, Idempotent, Origin, Service, ServiceError};

use crate::support::app::App;
use crate::support::wait::eventually;

pub const READER: &[Scope] = &[Scope::Dashboard, Scope::WebhooksRead, Scope::KeysManage, Scope::AuditRead];

pub fn origin() -> Origin<'static> {
    let address = "192.0.2.7".parse::<IpAddr>().unwrap();
    Origin { request_id: None, address: Some(CallerAddress(address)), route: "POST /dashboard/login" }
}

pub async fn key(app: &App, mode: Mode, scopes: &[Scope], expires_at: Option<Day>) -> CreatedApiKey {
    let create = CreateApiKey { name: None, mode, scopes: Scopes::of(scopes), expires_at };
    app.server().operator().create_api_key(WorkspaceName::parse("Acme").unwrap(), create).await.unwrap()
}

fn service(app: &App) -> &Service {
    app.server().service()
}

async fn resume(app: &App, token: &str) -> Result<Principal, ServiceError> {
    service(app).resume_session(token, origin()).await
}

async fn code(app: &App, scopes: Option<&[Scope]>, mode: Mode) -> Result<String, ServiceError> {
    let create = CreateLoginCode { workspace: Some("Acme".to_owned()), scopes: scopes.map(Scopes::of), mode };
    app.server().operator().create_login_code(create).await.map(|created| created.code)
}

#[tokio::test]
async fn a_session_acts_as_its_key_does_with_a_token_of_its_own() {
    let app = App::start().await;
    let key = key(&app, Mode::Test, READER, None).await;
    let first = service(&app).sign_in(key.secret.reveal(), origin()).await.unwrap();
    let second = service(&app).sign_in(key.secret.reveal(), origin()).await.unwrap();
    assert_ne!(first.token, second.token, "a sign-in never takes up an earlier token");
    assert_eq!((first.token.len(), first.expires_at), (64, app.setup().clock.now().plus(limits::SESSION_LIFETIME)));
    let principal = resume(&app, &first.token).await.unwrap();
    assert_eq!(principal.actor, first.principal.actor);
    assert!(matches!(principal.actor, Actor::Session(_)), "{:?}", principal.actor);
    assert_ne!(principal.actor, second.principal.actor);
    assert_eq!((principal.tenant.mode, principal.scopes), (Mode::Test, Scopes::of(READER)));
    assert_eq!((principal.workspace_id, principal.expires_at), (key.key.workspace_id, None));
    assert!(!format!("{first:?}").contains(&first.token));
}

#[tokio::test]
async fn a_key_without_the_scope_signs_nobody_in_and_is_recorded() {
    let app = App::start().await;
    let key = key(&app, Mode::Live, &[Scope::WebhooksManage, Scope::AuditRead], None).await;
    let refused = service(&app).sign_in(key.secret.reveal(), origin()).await;
    assert!(matches!(refused, Err(ServiceError::ScopeMissing(_))), "{refused:?}");
    let filter = || AuditFilter { action: Some(AuditAction::ApiKeyScopeMissing), ..AuditFilter::default() };
    let page = || PageRequest::parse(None, None).unwrap();
    let recorded = || async {
        let log = app.server().operator().list_audit(Some("Acme"), filter(), page()).await.unwrap();
        log.items.into_iter().find(|entry| entry.resource_id == key.key.id.to_string())
    };
    let entry = eventually("an entry of the refusal", recorded).await;
    assert_eq!(entry.refusal.unwrap().route.as_deref(), Some("POST /dashboard/login"));
}

#[tokio::test]
async fn refused_keys_and_codes_count_and_good_ones_still_work() {
    let app = App::start().await;
    let good = key(&app, Mode::Live, READER, None).await;
    let valid = code(&app, None, Mode::Live).await.unwrap();
    for attempt in 0..limits::REFUSED_KEYS_PER_MINUTE.get() {
        let refused = match attempt % 2 {
            0 => service(&app).sign_in("no key", origin()).await,
            _ => service(&app).sign_in_by_code(&"0".repeat(64), origin()).await,
        };
        let refused = refused.unwrap_err();
        assert!(matches!(refused, ServiceError::InvalidToken | ServiceError::LoginCodeRefused), "{refused:?}");
    }
    let over = service(&app).sign_in_by_code("no code", origin()).await;
    assert!(matches!(over, Err(ServiceError::TooManyRefusedKeys { .. })), "{over:?}");
    service(&app).sign_in(good.secret.reveal(), origin()).await.unwrap();
    service(&app).sign_in_by_code(&valid, origin()).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_when_idle_and_in_any_case_after_half_a_day() {
    let app = App::start().await;
    let key = key(&app, Mode::Live, READER, None).await;
    let idle = service(&app).sign_in(key.secret.reveal(), origin()).await.unwrap();
    let used = service(&app).sign_in(key.secret.reveal(), origin()).await.unwrap();
    let step = Duration::from_secs(3600);
    for hour in 1..12 {
        app.setup().clock.advance(step);
        resume(&app, &used.token).await.unwrap_or_else(|error| panic!("after {hour} hours: {error:?}"));
    }
    let ended = resume(&app, &idle.token).await;
    assert!(matches!(ended, Err(ServiceError::SessionEnded)), "{ended:?}");
    app.setup().clock.advance(step - Duration::from_millis(1));
    resume(&app, &used.token).await.unwrap();
    app.setup().clock.advance(Duration::from_millis(1));
    let ended = resume(&app, &used.token).await;
    assert!(matches!(ended, Err(ServiceError::SessionEnded)), "not even one that was seen a moment ago: {ended:?}");
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let app = App::start().await;
    let tomorrow = Day::containing(app.setup().clock.now().plus(Duration::from_secs(86_400)));
    let expiring = key(&app, Mode::Live, READER, Some(tomorrow)).await;
    let revoked = key(&app, Mode::Live, READER, None).await;
    let session = service(&app).sign_in(revoked.secret.reveal(), origin()).await.unwrap();
    resume(&app, &session.token).await.unwrap();
    app.server().operator().revoke_api_key(revoked.key.id).await.unwrap();
    assert!(matches!(resume(&app, &session.token).await, Err(ServiceError::SessionEnded)), "at once, in this process");
    // The clock is at noon, and the key works until midnight.
    app.setup().clock.advance(Duration::from_secs(11 * 3600));
    let session = service(&app).sign_in(expiring.secret.reveal(), origin()).await.unwrap();
    assert_eq!(session.expires_at, tomorrow.starts_at());
    app.setup().clock.advance(Duration::from_secs(3600));
    assert!(matches!(resume(&app, &session.token).await, Err(ServiceError::SessionEnded)));
}

#[tokio::test]
async fn signing_out_ends_the_session_at_once_and_is_recorded() {
    let app = App::start().await;
    let key = key(&app, Mode::Live, READER, None).await;
    let session = service(&app).sign_in(key.secret.reveal(), origin()).await.unwrap();
    let principal = resume(&app, &session.token).await.unwrap();
    service(&app).sign_out(&session.token, origin()).await.unwrap();
    assert!(matches!(resume(&app, &session.token).await, Err(ServiceError::SessionEnded)));
    service(&app).sign_out(&session.token, origin()).await.unwrap();
    service(&app).sign_out("no token", origin()).await.unwrap();
    let page = PageRequest::parse(None, None).unwrap();
    let log = service(&app).list_audit(&principal, AuditFilter::default(), page).await.unwrap().items;
    let seen: Vec<_> = log[..2].iter().map(|entry| (entry.action, entry.author.actor, entry.author.address)).collect();
    let address = origin().address;
    let expected = [
        (AuditAction::SessionEnded, principal.actor, address),
        (AuditAction::SessionCreated, Actor::ApiKey(key.key.id), address),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_restart_keeps_sessions() {
    let mut app = App::start().await;
    let key = key(&app, Mode::Live, READER, None).await;
    let session = service(&app).sign_in(key.secret.reveal(), origin()).await.unwrap();
    app.restart().await;
    assert_eq!(resume(&app, &session.token).await.unwrap().actor, session.principal.actor);
}

#[tokio::test]
async fn a_login_code_works_once_and_grants_no_operators_scope() {
    let app = App::start().await;
    let all = Scopes::of(&Scope::ALL).without(Scopes::of(&[Scope::WorkspacesManage]));
    let session_of = async |scopes: Option<&[Scope]>, mode| {
        let code = code(&app, scopes, mode).await.unwrap();
        let session = service(&app).sign_in_by_code(&code, origin()).await.unwrap();
        let again = service(&app).sign_in_by_code(&code, origin()).await;
        assert!(matches!(again, Err(ServiceError::LoginCodeRefused)), "{again:?}");
        resume(&app, &session.token).await.unwrap()
    };
    assert_eq!(session_of(None, Mode::Live).await.scopes, all);
    let test = session_of(None, Mode::Test).await;
    assert_eq!((test.scopes, test.tenant.mode), (all, Mode::Test));
    let operator = [Scope::WorkspacesManage];
    assert_eq!(session_of(Some(&operator), Mode::Live).await.scopes, Scopes::of(&operator));
    let refused = code(&app, Some(&operator), Mode::Test).await;
    assert!(matches!(refused, Err(ServiceError::Unprocessable { .. })), "{refused:?}");
    let late = code(&app, None, Mode::Live).await.unwrap();
    app.setup().clock.advance(limits::LOGIN_CODE_LIFETIME);
    let late = service(&app).sign_in_by_code(&late, origin()).await;
    assert!(matches!(late, Err(ServiceError::LoginCodeRefused)), "{late:?}");
}

#[tokio::test]
async fn a_session_makes_keys_that_do_not_outlive_its_key() {
    let app = App::start().await;
    let day = Day::containing(app.setup().clock.now().plus(Duration::from_secs(10 * 86_400)));
    let parent = key(&app, Mode::Live, READER, Some(day)).await;
    let session = service(&app).sign_in(parent.secret.reveal(), origin()).await.unwrap();
    let create =
        CreateApiKey { name: None, mode: Mode::Live, scopes: Scopes::of(&[Scope::WebhooksRead]), expires_at: None };
    let made =
        service(&app).create_api_key(&session.principal, create.clone(), &Idempotent::default()).await.unwrap().key;
    assert_eq!(made.expires_at, Some(day.starts_at()), "longer than the session, not longer than the key");
    assert_eq!(made.created_by, Some(session.principal.actor));
    let revoked = app.server().operator().revoke_with_children(parent.key.id).await.unwrap();
    assert_eq!(revoked, [parent.key.id, made.id]);
    let after = service(&app).create_api_key(&session.principal, create, &Idempotent::default()).await;
    assert!(after.is_err(), "a page that was admitted before makes no key any more");
}

#[tokio::test]
async fn page_requests_are_limited_for_each_session() {
    let app = App::start().await;
    let key = key(&app, Mode::Live, READER, None).await;
    let session = async || {
        let session = service(&app).sign_in(key.secret.reveal(), origin()).await.unwrap();
        session.principal.actor
    };
    let (busy, quiet) = (session().await, session().await);
    let limit = limits::PAGE_REQUESTS_PER_MINUTE.get();
    assert!((0..limit).all(|_| service(&app).count_page_request(busy).is_ok()));
    let refused = service(&app).count_page_request(busy);
    assert!(matches!(refused, Err(ServiceError::TooManyPageRequests { limit: 600, .. })), "{refused:?}");
    assert!(service(&app).count_page_request(quiet).is_ok());
    app.setup().clock.advance(Duration::from_secs(60));
    assert!(service(&app).count_page_request(busy).is_ok());
}

#[tokio::test]
async fn a_session_of_the_servers_own_workspace_only_reads() {
    let app = App::start().await;
    let operator = app.server().operator();
    let create = |scopes: Option<&[Scope]>| CreateLoginCode {
        workspace: None,
        scopes: scopes.map(Scopes::of),
        mode: Mode::Live,
    };
    assert!(matches!(operator.create_login_code(create(None)).await, Err(ServiceError::NotFound)));
    let key = CreateApiKey { name: None, mode: Mode::Live, scopes: Scopes::default(), expires_at: None };
    operator.create_operations_api_key(key).await.unwrap();
    let code = operator.create_login_code(create(None)).await.unwrap();
    let session = service(&app).sign_in_by_code(&code.code, origin()).await.unwrap();
    let reading = Scopes::of(&[Scope::WebhooksRead, Scope::EventsRead, Scope::AuditRead]);
    assert_eq!(session.principal.scopes, reading);
    let named = CreateLoginCode { workspace: Some("operations".to_owned()), ..create(Some(&[Scope::WebhooksManage])) };
    for writing in [create(Some(&[Scope::KeysManage])), named] {
        let refused = operator.create_login_code(writing).await;
        assert!(matches!(refused, Err(ServiceError::Unprocessable { .. })), "{refused:?}");
    }
}
