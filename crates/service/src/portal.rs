//! Portal sessions: asked for by an integrator, opened and used by a customer.
//!
//! The link holds a code, the cookie a token. The store gets only their keyed hashes.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::access::{Principal, Scopes};
use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::audit::Actor;
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::endpoint::{Endpoint, ProjectId};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{PortalSessionId, RowKey};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::portal::{FrameAncestor, PortalSession, PortalTerms};
use postrider_domain::rate_limit::Rate;
use postrider_domain::replay::Replay;
use postrider_domain::tenant::Tenant;
use postrider_store::{CreatePortalSessionError, EndPortalSessionError, NewPortalSession, PortalOpening};

use crate::access::Origin;
use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::principal_write::write_by;
use crate::service::Service;

/// A portal session to create.
#[derive(Debug)]
pub struct CreatePortalSession {
    pub project_id: ProjectId,
    pub lasts: Duration,
    pub terms: PortalTerms,
    /// `None`: every origin of the setting.
    pub frame_ancestors: Option<Vec<FrameAncestor>>,
    /// Where the portal is, without a slash at the end: `https://hooks.example.com/portal`.
    pub portal_url: String,
}

/// A new portal session with its link, which is shown only now.
#[derive(Clone, Debug)]
pub struct CreatedPortalSession {
    pub session: PortalSession,
    pub url: String,
}

/// An opened session: the token is for the browser's cookie.
pub struct OpenedPortal {
    pub session: PortalSession,
    pub token: String,
}

/// A customer on the portal.
pub struct PortalVisit {
    pub session: PortalSession,
    pub principal: Principal,
}

const CODE_LETTERS: usize = 32;
const TOKEN_LETTERS: usize = 43;

impl Service {
    /// The origins that the operator lets show the portal.
    pub fn portal_frame_ancestors(&self) -> &[FrameAncestor] {
        &self.portal_frame_ancestors
    }

    /// # Errors
    /// Without the scope, when an origin may not show the portal in a frame, or when the workspace has too many live
    /// sessions.
    pub async fn create_portal_session(
        &self,
        principal: &Principal,
        create: CreatePortalSession,
        idempotent: &Idempotent<CreatedPortalSession>,
    ) -> Result<CreatedPortalSession, WriteError> {
        principal.require(Permission::PortalCreate)?;
        let frame_ancestors = self.allowed_ancestors(create.frame_ancestors)?;
        let id = PortalSessionId::from_letters(self.random.alphanumeric());
        let code = text(&self.random.alphanumeric::<CODE_LETTERS>());
        // It ends with the key that made it, so it does not promise more.
        let rest = principal.expires_at.map_or(create.lasts, |at| at.since(self.clock.now()));
        let new = NewPortalSession {
            id,
            project_id: create.project_id,
            terms: PortalTerms { frame_ancestors, ..create.terms },
            code_hash: self.code_hash(id, &code),
            api_key: principal.actor.api_key(),
            lasts: create.lasts.min(rest),
            limit: limits::PORTAL_SESSIONS_PER_WORKSPACE,
        };
        let url = format!("{}/{id}/open?code={code}", create.portal_url);
        let shown_url = url.clone();
        let shown =
            move |session: &PortalSession| CreatedPortalSession { session: session.clone(), url: shown_url.clone() };
        let recording = idempotent.sealed_recording(shown);
        let created = self.store.create_portal_session(write_by(principal, recording), new).await;
        let written = created.map_err(|error| match error {
            CreatePortalSessionError::WorkspaceFull(limit) => {
                ServiceError::Conflict(format!("The workspace has {limit} live portal sessions, the most it may have."))
            }
            CreatePortalSessionError::Store(error) => error.into(),
        })?;
        Ok(CreatedPortalSession { session: idempotent.finish(written)?, url })
    }

    /// # Errors
    /// Without the scope.
    pub async fn list_portal_sessions(
        &self,
        principal: &Principal,
        project_id: Option<ProjectId>,
        page: PageRequest,
    ) -> Result<Page<PortalSession>, ServiceError> {
        principal.require(Permission::PortalCreate)?;
        Ok(self.store.list_portal_sessions(principal.tenant, project_id, page).await?)
    }

    /// Ends a session. Ending it again changes nothing and is not an error.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such session.
    pub async fn end_portal_session(
        &self,
        principal: &Principal,
        id: PortalSessionId,
        idempotent: &Idempotent<()>,
    ) -> Result<(), WriteError> {
        principal.require(Permission::PortalCreate)?;
        let ended = self.store.end_portal_session(write_by(principal, idempotent.recording(|()| ())), id).await;
        let written = ended.map_err(|error| match error {
            EndPortalSessionError::NotFound => ServiceError::NotFound,
            EndPortalSessionError::Store(error) => error.into(),
        })?;
        idempotent.finish(written)
    }

    /// Ends all live sessions of a project.
    ///
    /// # Errors
    /// Without the scope.
    pub async fn end_portal_sessions_of(
        &self,
        principal: &Principal,
        project_id: ProjectId,
        idempotent: &Idempotent<()>,
    ) -> Result<(), WriteError> {
        principal.require(Permission::PortalCreate)?;
        let write = write_by(principal, idempotent.recording(|()| ()));
        idempotent.finish(self.store.end_portal_sessions_of(write, project_id).await?)
    }

    /// Opens a session by the code of its link.
    ///
    /// # Errors
    /// When the code is wrong, too old or used too often; such codes count as refused keys of the address.
    pub async fn open_portal(
        &self,
        id: PortalSessionId,
        code: &str,
        origin: Origin<'_>,
    ) -> Result<OpenedPortal, ServiceError> {
        // A stranger decides how many codes come, and each is a write.
        let _permit = self.refused_keys.look_up(origin.address, self.clock.now()).await;
        let token = text(&self.random.alphanumeric::<TOKEN_LETTERS>());
        let opening = PortalOpening { code_hash: self.code_hash(id, code), token_hash: self.token_hash(id, &token) };
        let opened = if has_form_of_code(code) { self.store.open_portal_session(id, opening).await? } else { None };
        match opened {
            Some(session) => Ok(OpenedPortal { session, token }),
            None => Err(match self.refused_keys.count(origin.address, self.clock.now()) {
                Ok(_) => ServiceError::PortalCodeRefused,
                Err(Rate { limit, reset, .. }) => ServiceError::TooManyRefusedKeys { limit, retry_after: reset },
            }),
        }
    }

    /// The customer of a session. Each request asks the store, so a session ends at once and on every node.
    ///
    /// # Errors
    /// When the session is unknown or has ended.
    pub async fn resume_portal(
        &self,
        id: PortalSessionId,
        token: &str,
        origin: Origin<'_>,
    ) -> Result<PortalVisit, ServiceError> {
        let found = self.store.resume_portal_session(id, self.token_hash(id, token)).await?;
        let session = found.ok_or(ServiceError::SessionEnded)?;
        let principal = Principal {
            actor: Actor::Portal(id),
            tenant: Tenant { project: Some(session.project_id), ..Tenant::whole(session.workspace_key, session.mode) },
            workspace_id: session.workspace_id,
            scopes: Scopes::default(),
            capabilities: session.terms.capabilities,
            event_types: session.terms.event_types.as_deref().map(Arc::from),
            expires_at: Some(session.expires_at),
            request_id: origin.request_id,
            address: origin.address,
        };
        Ok(PortalVisit { session, principal })
    }

    /// A session, ended or not: its last page says where to go from there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find_portal_session(&self, id: PortalSessionId) -> Result<Option<PortalSession>, ServiceError> {
        Ok(self.store.find_portal_session(id).await?)
    }

    /// A session of the caller's workspace and mode, ended or not.
    ///
    /// # Errors
    /// Without the scope, or when there is no such session.
    pub async fn get_portal_session(
        &self,
        principal: &Principal,
        id: PortalSessionId,
    ) -> Result<PortalSession, ServiceError> {
        principal.require(Permission::PortalCreate)?;
        let found = self.store.find_portal_session(id).await?;
        let tenant = principal.tenant;
        let own = found.filter(|it| it.workspace_key == tenant.workspace && it.mode == tenant.mode);
        own.filter(|it| tenant.project.is_none_or(|project| project == it.project_id)).ok_or(ServiceError::NotFound)
    }

    fn allowed_ancestors(&self, asked: Option<Vec<FrameAncestor>>) -> Result<Vec<FrameAncestor>, ServiceError> {
        let Some(asked) = asked else { return Ok(self.portal_frame_ancestors.clone()) };
        match asked.iter().find(|origin| !self.portal_frame_ancestors.contains(origin)) {
            None => Ok(asked),
            Some(origin) => {
                let fault =
                    format!("{origin} is not among the origins that the operator allows (--portal-frame-ancestors)");
                Err(ServiceError::unprocessable("frameAncestors", &fault))
            }
        }
    }

    fn code_hash(&self, id: PortalSessionId, code: &str) -> [u8; 32] {
        self.api_key_hash.sign(&[b"portal-code/", id.to_string().as_bytes(), b"/", code.as_bytes()])
    }

    fn token_hash(&self, id: PortalSessionId, token: &str) -> [u8; 32] {
        self.api_key_hash.sign(&[b"portal-token/", id.to_string().as_bytes(), b"/", token.as_bytes()])
    }
}

/// Whether this text can be a code.
fn has_form_of_code(text: &str) -> bool {
    text.len() == CODE_LETTERS && text.bytes().all(|letter| letter.is_ascii_alphanumeric())
}

fn text(letters: &[u8]) -> String {
    String::from_utf8_lossy(letters).into_owned()
}

/// An endpoint as the caller may see it: without the types that are hidden from it.
pub(crate) fn seen_by(principal: &Principal, mut endpoint: Endpoint) -> Endpoint {
    if principal.event_types.is_some() {
        endpoint.events.retain(|name| principal.sees(name));
    }
    endpoint
}

/// The deliveries that the caller may see. A page of them may be short, and still name a next page.
pub(crate) fn seen_deliveries(principal: &Principal, mut page: Page<Delivery>) -> Page<Delivery> {
    if principal.event_types.is_some() {
        page.items.retain(|delivery| principal.sees(&delivery.event_type));
        // A page that lost its rows must not read as the end of the list.
        if page.items.is_empty() && page.searched_to.is_none() {
            page.searched_to = page.next.map(RowKey::created_at);
        }
    }
    if principal.is_customer() {
        for delivery in &mut page.items {
            delivery.last_outcome = delivery.last_outcome.map(AttemptOutcome::for_customer);
        }
    }
    page
}

/// The filter without the types that are hidden from the caller. `None` when it passes no other.
pub(crate) fn without_hidden_types(principal: &Principal, filter: DeliveryFilter) -> Option<DeliveryFilter> {
    let Some(types) = &principal.event_types else { return Some(filter) };
    let event_types: Vec<EventTypeName> = if filter.event_types.is_empty() {
        types.to_vec()
    } else {
        filter.event_types.into_iter().filter(|name| principal.sees(name)).collect()
    };
    (!event_types.is_empty()).then_some(DeliveryFilter { event_types, ..filter })
}

/// Whether the caller may see a replay. Its numbers count deliveries, so a caller from whom types are hidden sees only
/// the replays that were narrowed to types that he sees.
pub(crate) fn sees_replay(principal: &Principal, replay: &Replay) -> bool {
    let types = || replay.selection.filter().event_types;
    principal.event_types.is_none() || (!types().is_empty() && types().iter().all(|name| principal.sees(name)))
}

/// An attempt as the caller may see it: a customer learns nothing about the operator's network.
pub(crate) fn seen_attempt(principal: &Principal, attempt: &mut Attempt) {
    attempt.remote_address = attempt.remote_address.filter(|_| principal.may(Permission::RemoteAddressesRead));
    if principal.is_customer() {
        let outcome = attempt.outcome;
        attempt.error = attempt.error.as_deref().and_then(|error| outcome.error_for_customer(error));
        attempt.outcome = outcome.for_customer();
    }
}

/// What an endpoint is subscribed to after a change by a caller from whom types are hidden: those it named, and the
/// hidden ones that were there before.
pub(crate) fn with_hidden(principal: &Principal, stored: &Endpoint, named: &[EventTypeName]) -> Vec<EventTypeName> {
    let hidden = stored.events.iter().filter(|name| !principal.sees(name) && !named.contains(name));
    named.iter().chain(hidden).cloned().collect()
}

/// # Errors
/// When one of the types is hidden from the caller: it does not exist for him.
pub(crate) fn check_seen(principal: &Principal, names: &[EventTypeName]) -> Result<(), ServiceError> {
    match names.iter().find(|name| !principal.sees(name)) {
        None => Ok(()),
        Some(name) => Err(ServiceError::invalid("events", format!("{:?} is not an event name", name.as_str()))),
    }
}
