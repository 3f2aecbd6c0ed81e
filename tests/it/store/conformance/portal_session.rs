//! Portal sessions: opened by a code, used with a token, ended by hand, by time, or with the key that made them.

use std::time::Duration;

use postrider_domain::audit::AuditAction;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::PortalSessionId;
use postrider_domain::limits;
use postrider_domain::permission::{Capabilities, Capability};
use postrider_domain::portal::{PortalSession, PortalTerms, Theme};
use postrider_domain::tenant::Tenant;
use postrider_store::{CreatePortalSessionError, EndPortalSessionError, NewPortalSession, PortalOpening};

use crate::store::fixture::{Fixture, done, write};

on_each_backend! {
    a_session_reads_back_as_it_was_created,
    a_code_opens_five_times_within_five_minutes,
    a_session_answers_only_to_its_own_tokens,
    an_ended_session_answers_to_nothing,
    a_session_ends_with_the_key_that_made_it,
    a_workspace_has_a_limit_of_live_sessions,
    the_sessions_of_a_project_end_together,
    a_session_of_another_tenant_does_not_exist,
}

const CODE: [u8; 32] = [1; 32];

pub fn new_session(at: &Fixture, project: &str) -> NewPortalSession {
    NewPortalSession {
        id: PortalSessionId::from_letters(at.letters()),
        project_id: ProjectId::parse(project).unwrap(),
        terms: PortalTerms {
            capabilities: Capabilities::of(&[Capability::EndpointsRead, Capability::Test]),
            event_types: None,
            locale: None,
            theme: Theme::Auto,
            next: None,
            return_url: None,
            frame_ancestors: Vec::new(),
            is_preview: false,
        },
        code_hash: CODE,
        api_key: None,
        lasts: Duration::from_secs(3600),
        limit: 100,
    }
}

async fn create(at: &Fixture, tenant: Tenant, new: NewPortalSession) -> PortalSession {
    done(at.store().create_portal_session(write(tenant), new).await.unwrap())
}

async fn open(at: &Fixture, id: PortalSessionId, code: u8, token: u8) -> bool {
    let opening = PortalOpening { code_hash: [code; 32], token_hash: [token; 32] };
    at.store().open_portal_session(id, opening).await.unwrap().is_some()
}

async fn resumes(at: &Fixture, id: PortalSessionId, token: u8) -> bool {
    at.store().resume_portal_session(id, [token; 32]).await.unwrap().is_some()
}

async fn listed(at: &Fixture, tenant: Tenant, project: Option<&str>) -> Vec<PortalSession> {
    let project = project.map(|project| ProjectId::parse(project).unwrap());
    at.store().list_portal_sessions(tenant, project, Fixture::page()).await.unwrap().items
}

async fn a_session_reads_back_as_it_was_created(at: Fixture) {
    let new = new_session(&at, "a");
    let created = create(&at, at.tenant(), new.clone()).await;
    assert_eq!((created.id, created.project_id, &created.terms), (new.id, new.project_id, &new.terms));
    assert_eq!(created.expires_at, at.clock_now().plus(new.lasts));
    assert_eq!((created.ended_at, created.workspace_id), (None, at.workspace.id));
    let found = at.store().find_portal_session(new.id).await.unwrap().unwrap();
    assert_eq!(format!("{found:?}"), format!("{created:?}"));
    assert_eq!(listed(&at, at.tenant(), None).await.len(), 1);
    let entry = at.audit().await.remove(0);
    assert_eq!((entry.action, entry.resource_id), (AuditAction::PortalSessionCreated, new.id.to_string()));
    assert!(!format!("{:?}", entry.changes).contains("0101"), "no code in the audit log");
}

async fn a_code_opens_five_times_within_five_minutes(at: Fixture) {
    let id = create(&at, at.tenant(), new_session(&at, "a")).await.id;
    assert!(!open(&at, id, 2, 10).await, "a wrong code");
    for token in 10..15 {
        assert!(open(&at, id, 1, token).await, "opening {token}");
    }
    assert!(!open(&at, id, 1, 15).await, "the sixth");
    assert!(resumes(&at, id, 10).await && resumes(&at, id, 14).await && !resumes(&at, id, 15).await);

    let id = create(&at, at.tenant(), new_session(&at, "a")).await.id;
    at.advance(limits::PORTAL_CODE_TTL - Duration::from_millis(1));
    assert!(open(&at, id, 1, 1).await);
    at.advance(Duration::from_millis(1));
    assert!(!open(&at, id, 1, 2).await, "after five minutes");
    assert!(resumes(&at, id, 1).await, "the cookie still holds");
}

async fn a_session_answers_only_to_its_own_tokens(at: Fixture) {
    let one = create(&at, at.tenant(), new_session(&at, "a")).await.id;
    let other = create(&at, at.tenant(), new_session(&at, "b")).await.id;
    assert!(open(&at, one, 1, 7).await);
    assert!(resumes(&at, one, 7).await);
    assert!(!resumes(&at, other, 7).await && !resumes(&at, one, 1).await);
    assert!(!resumes(&at, PortalSessionId::from_letters([b'z'; 16]), 7).await);
    at.advance(Duration::from_secs(3600));
    assert!(!resumes(&at, one, 7).await, "it has expired");
    assert!(at.store().find_portal_session(one).await.unwrap().is_some(), "its last page is still there");
}

async fn an_ended_session_answers_to_nothing(at: Fixture) {
    let id = create(&at, at.tenant(), new_session(&at, "a")).await.id;
    assert!(open(&at, id, 1, 7).await);
    for _ in 0..2 {
        done(at.store().end_portal_session(write(at.tenant()), id).await.unwrap());
        assert!(!resumes(&at, id, 7).await && !open(&at, id, 1, 8).await);
        assert_eq!(listed(&at, at.tenant(), None).await[0].ended_at, Some(at.clock_now()));
    }
    let ended = at.audit().await.into_iter().filter(|entry| entry.action == AuditAction::PortalSessionEnded);
    assert_eq!(ended.count(), 1, "it ended once");
}

async fn a_session_ends_with_the_key_that_made_it(at: Fixture) {
    let key = at.api_key(at.new_api_key(1)).await;
    let new = NewPortalSession { api_key: Some(key.id), ..new_session(&at, "a") };
    let id = create(&at, at.tenant(), new).await.id;
    assert!(open(&at, id, 1, 7).await && resumes(&at, id, 7).await);
    at.store().revoke_api_key(write(at.tenant()), key.id).await.unwrap();
    assert!(!resumes(&at, id, 7).await && !open(&at, id, 1, 8).await);

    let mut expiring = at.new_api_key(2);
    expiring.expires_at = Some(at.clock_now().plus(Duration::from_secs(60)));
    let key = at.api_key(expiring).await;
    let new = NewPortalSession { api_key: Some(key.id), ..new_session(&at, "a") };
    let id = create(&at, at.tenant(), new).await.id;
    assert!(open(&at, id, 1, 7).await);
    at.advance(Duration::from_secs(60));
    assert!(!resumes(&at, id, 7).await);
}

async fn a_workspace_has_a_limit_of_live_sessions(at: Fixture) {
    let limited = || NewPortalSession { limit: 2, lasts: Duration::from_secs(300), ..new_session(&at, "a") };
    let first = create(&at, at.tenant(), limited()).await.id;
    create(&at, at.tenant(), limited()).await;
    let refused = at.store().create_portal_session(write(at.tenant()), limited()).await;
    assert!(matches!(refused, Err(CreatePortalSessionError::WorkspaceFull(2))), "{refused:?}");
    create(&at, at.test_tenant(), limited()).await;
    done(at.store().end_portal_session(write(at.tenant()), first).await.unwrap());
    create(&at, at.tenant(), limited()).await;
    at.advance(Duration::from_secs(300));
    create(&at, at.tenant(), limited()).await;
}

async fn the_sessions_of_a_project_end_together(at: Fixture) {
    let of_a =
        [create(&at, at.tenant(), new_session(&at, "a")).await, create(&at, at.tenant(), new_session(&at, "a")).await];
    let of_b = create(&at, at.tenant(), new_session(&at, "b")).await;
    let of_test = create(&at, at.test_tenant(), new_session(&at, "a")).await;
    for session in of_a.iter().chain([&of_b, &of_test]) {
        assert!(open(&at, session.id, 1, 7).await);
    }
    let project = ProjectId::parse("a").unwrap();
    done(at.store().end_portal_sessions_of(write(at.tenant()), project).await.unwrap());
    assert!(!resumes(&at, of_a[0].id, 7).await && !resumes(&at, of_a[1].id, 7).await);
    assert!(resumes(&at, of_b.id, 7).await && resumes(&at, of_test.id, 7).await);
    assert_eq!(listed(&at, at.tenant(), Some("a")).await.len(), 2);
    assert_eq!(listed(&at, at.tenant(), Some("b")).await.len(), 1);
}

async fn a_session_of_another_tenant_does_not_exist(at: Fixture) {
    let session = create(&at, at.tenant(), new_session(&at, "a")).await;
    let narrowed = Tenant { project: ProjectId::parse("b").ok(), ..at.tenant() };
    for stranger in [at.test_tenant(), narrowed, crate::store::fixture::tenant_of(at.other_workspace().await.key)] {
        let ended = at.store().end_portal_session(write(stranger), session.id).await;
        assert!(matches!(ended, Err(EndPortalSessionError::NotFound)), "{ended:?}");
        assert!(listed(&at, stranger, None).await.is_empty());
        done(at.store().end_portal_sessions_of(write(stranger), ProjectId::parse("c").unwrap()).await.unwrap());
    }
    assert_eq!(listed(&at, at.tenant(), None).await[0].ended_at, None);
}
