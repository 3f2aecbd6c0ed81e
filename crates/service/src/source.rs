//! Sources of events: what callers see of them, pausing, and the handle that the crate `source` reports to.
//!
//! The settings name the sources, so that every node has the same ones. What is shown of one is what this node knows;
//! whether it is paused stands in the store, for all nodes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use postrider_domain::access::{Principal, Scope, Scopes};
use postrider_domain::audit::Actor;
use postrider_domain::error_chain::Chain;
use postrider_domain::id::{RowKey, WorkspaceId};
use postrider_domain::limits;
use postrider_domain::mode::Mode;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::{Capabilities, Permission};
use postrider_domain::source::{SourceKind, SourceState, SourceTerms};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_domain::workspace::{Workspace, WorkspaceName};

use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::lock::lock;
use crate::principal_write::write_by;
use crate::service::Service;

/// How often a node looks which sources are paused.
const PAUSES_READ_EVERY: Duration = Duration::from_secs(1);

/// A source of the settings, as this node runs it.
pub struct Source {
    pub terms: SourceTerms,
    running: Mutex<Running>,
    /// Something changed that the source may wait for: it was paused or resumed.
    pub changed: Notify,
}

struct Running {
    /// `None` until the workspace was found.
    owner: Option<(WorkspaceId, Tenant)>,
    state: SourceState,
    error: Option<String>,
    since: Timestamp,
    is_paused: bool,
    last_message_at: Option<Timestamp>,
    counts: SourceCounts,
}

/// What a source did since this node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Messages that became events.
    pub accepted: u64,
    /// Messages whose events were accepted before.
    pub repeated: u64,
    /// Messages that were parked.
    pub parked: u64,
}

/// A source as callers see it.
#[derive(Clone, Debug)]
pub struct SourceReport {
    pub name: String,
    pub kind: SourceKind,
    pub mode: Mode,
    pub state: SourceState,
    /// Why it does not run.
    pub error: Option<String>,
    /// When it came into this state.
    pub since: Timestamp,
    pub last_message_at: Option<Timestamp>,
    pub counts: SourceCounts,
    /// Messages that are parked now.
    pub parked_messages: u64,
    pub parked_max: u32,
}

impl Source {
    pub(crate) fn new(terms: SourceTerms, now: Timestamp) -> Self {
        let running = Running {
            owner: None,
            state: SourceState::Starting,
            error: None,
            since: now,
            is_paused: false,
            last_message_at: None,
            counts: SourceCounts::default(),
        };
        Self { terms, running: Mutex::new(running), changed: Notify::new() }
    }

    pub fn is_paused(&self) -> bool {
        lock(&self.running).is_paused
    }

    pub fn state(&self) -> SourceState {
        lock(&self.running).state
    }

    /// Notes the state that the source is in now. Returns whether it is another one than before.
    pub fn enter(&self, state: SourceState, error: Option<String>, now: Timestamp) -> bool {
        let mut running = lock(&self.running);
        let is_new = running.state != state;
        if is_new {
            (running.state, running.since) = (state, now);
        }
        running.error = error;
        is_new
    }

    pub(crate) fn count(&self, counts: SourceCounts, now: Timestamp) {
        let mut running = lock(&self.running);
        let SourceCounts { accepted, repeated, parked } = &mut running.counts;
        *accepted += counts.accepted;
        *repeated += counts.repeated;
        *parked += counts.parked;
        running.last_message_at = Some(now);
    }

    pub(crate) fn tenant(&self) -> Option<Tenant> {
        lock(&self.running).owner.map(|(_, tenant)| tenant)
    }

    /// The source as a caller that may publish and nothing else.
    pub(crate) fn principal(&self) -> Option<Principal> {
        let (workspace_id, tenant) = lock(&self.running).owner?;
        Some(Principal {
            actor: Actor::Source,
            tenant,
            workspace_id,
            scopes: Scopes::of(&[Scope::EventsWrite]),
            capabilities: Capabilities::default(),
            event_types: None,
            expires_at: None,
            request_id: None,
            address: None,
        })
    }

    fn report(&self, parked_messages: u64) -> SourceReport {
        let running = lock(&self.running);
        SourceReport {
            name: self.terms.name.to_string(),
            kind: self.terms.kind,
            mode: self.terms.mode,
            state: if running.is_paused { SourceState::Paused } else { running.state },
            error: running.error.clone(),
            since: running.since,
            last_message_at: running.last_message_at,
            counts: running.counts,
            parked_messages,
            parked_max: self.terms.parked_max,
        }
    }

    fn set_paused(&self, is_paused: bool) {
        let mut running = lock(&self.running);
        if running.is_paused != is_paused {
            running.is_paused = is_paused;
            self.changed.notify_waiters();
        }
    }
}

impl Service {
    /// The sources of the settings.
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// Finds the workspace of a source, also after it was renamed.
    ///
    /// # Errors
    /// When there is no such workspace, or the store fails.
    pub async fn find_owner(&self, source: &Source) -> Result<(), ServiceError> {
        let text = &source.terms.workspace;
        let by_id = match text.parse::<WorkspaceId>() {
            Ok(id) => self.store.find_workspace(id).await?,
            Err(_) => None,
        };
        let found: Option<Workspace> = match by_id {
            Some(found) => Some(found),
            None => self.store.find_workspace_named(WorkspaceName::from_stored(text)).await?,
        };
        let owner = found.map(|found| (found.id, Tenant::whole(found.key, source.terms.mode)));
        lock(&source.running).owner = owner;
        owner.map(|_| ()).ok_or(ServiceError::NotFound)
    }

    /// The sources of the caller's workspace and mode.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_sources(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<SourceReport>, ServiceError> {
        principal.require(Permission::EventsRead)?;
        // A page goes on below a key, so that of the first source is the highest.
        let keys = (1..=limits::SOURCES as i64).rev().map(RowKey::from_i64);
        let of_caller = self
            .sources
            .iter()
            .zip(keys)
            .filter(|(source, key)| source.tenant() == Some(principal.tenant) && *key < page.before());
        let mut reports = Vec::new();
        for (source, key) in of_caller.take(page.limit() as usize + 1) {
            reports.push((key, self.report(source).await?));
        }
        Ok(page.cut(reports, |(key, _)| *key).map(|(_, report)| report))
    }

    /// # Errors
    /// Without the scope, or when the workspace has no such source.
    pub async fn get_source(&self, principal: &Principal, name: &str) -> Result<SourceReport, ServiceError> {
        principal.require(Permission::EventsRead)?;
        let source = self.source_of(principal, name)?;
        self.report(&source).await
    }

    /// Pauses or resumes a source on all nodes. The others follow within seconds.
    ///
    /// # Errors
    /// Without the scope, or when the workspace has no such source.
    pub async fn set_source_paused(
        &self,
        principal: &Principal,
        name: &str,
        is_paused: bool,
        idempotent: &Idempotent<SourceReport>,
    ) -> Result<SourceReport, WriteError> {
        principal.require(Permission::EventsPublish)?;
        let source = self.source_of(principal, name)?;
        let mut report = self.report(&source).await?;
        match (is_paused, report.state) {
            (true, _) => report.state = SourceState::Paused,
            (false, SourceState::Paused) => report.state = SourceState::Starting,
            (false, _) => {}
        }
        let shown = report.clone();
        let recording = idempotent.recording(move |()| shown.clone());
        let write = write_by(principal, recording);
        let written = self.store.set_source_paused(write, source.terms.name.clone(), is_paused).await?;
        idempotent.finish(written)?;
        source.set_paused(is_paused);
        Ok(report)
    }

    /// Keeps up with what was paused and resumed on other nodes. Never ends.
    pub async fn keep_reading_pauses(&self) {
        while !self.sources.is_empty() {
            if let Err(error) = self.read_pauses().await {
                tracing::debug!(error = %Chain(&error), "cannot read which sources are paused; trying again");
            }
            tokio::time::sleep(PAUSES_READ_EVERY).await;
        }
    }

    /// # Errors
    /// When the store fails.
    pub async fn read_pauses(&self) -> Result<(), ServiceError> {
        let paused = self.store.paused_sources().await?;
        for source in self.sources.iter() {
            let Some(tenant) = source.tenant() else { continue };
            let is_this = |found: &postrider_store::parked_message::PausedSource| {
                (found.workspace, found.mode) == (tenant.workspace, tenant.mode)
                    && found.source == source.terms.name.as_str()
            };
            source.set_paused(paused.iter().any(is_this));
        }
        Ok(())
    }

    /// A source of the caller's workspace and mode.
    pub(crate) fn source_of(&self, principal: &Principal, name: &str) -> Result<Arc<Source>, ServiceError> {
        let is_this =
            |source: &&Arc<Source>| source.terms.name.as_str() == name && source.tenant() == Some(principal.tenant);
        self.sources.iter().find(is_this).cloned().ok_or(ServiceError::NotFound)
    }

    async fn report(&self, source: &Source) -> Result<SourceReport, ServiceError> {
        let parked = match source.tenant() {
            Some(tenant) => self.store.count_parked_messages(tenant, source.terms.name.clone()).await?,
            None => 0,
        };
        Ok(source.report(parked))
    }
}
