//! Erasures: jobs that take the content of events out of the store.

use postrider_domain::access::{Mode, Principal};
use postrider_domain::audit::Author;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::erasure::{Erasure, ErasureTarget, PendingDeliveries};
use postrider_domain::id::{ErasureId, EventId};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::tenant::Tenant;
use postrider_store::{EraseError, NewErasure, Write, Written};

use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::operator::Operator;
use crate::principal_write::write_by;
use crate::service::Service;

impl Service {
    /// Starts an erasure. The engine advances it. An event that has an erasure gets that one again.
    ///
    /// # Errors
    /// Without the scope, when this workspace has no such event or endpoint, or when too many of its erasures have not
    /// ended.
    pub async fn erase(
        &self,
        principal: &Principal,
        target: ErasureTarget,
        pending: PendingDeliveries,
        idempotent: &Idempotent<Erasure>,
    ) -> Result<Erasure, WriteError> {
        principal.require(Permission::EventsErase)?;
        let recording = idempotent.recording(Erasure::clone);
        let new = NewErasure { target, pending };
        let created = self.store.create_erasure(write_by(principal, recording), new).await;
        idempotent.finish(created.map_err(erase_error)?)
    }

    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_erasures(&self, principal: &Principal, page: PageRequest) -> Result<Page<Erasure>, ServiceError> {
        principal.require(Permission::EventsErase)?;
        Ok(self.store.list_erasures(principal.tenant, page).await?)
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such erasure.
    pub async fn get_erasure(&self, principal: &Principal, id: ErasureId) -> Result<Erasure, ServiceError> {
        principal.require(Permission::EventsErase)?;
        self.store.find_erasure(Some(principal.tenant), id).await?.ok_or(ServiceError::NotFound)
    }
}

impl Operator {
    /// Starts the erasure of an event of any workspace.
    ///
    /// # Errors
    /// When there is no such event.
    pub async fn erase_event(&self, id: EventId, pending: PendingDeliveries) -> Result<Erasure, ServiceError> {
        let tenant = self.store.find_event_owner(id).await?.ok_or(ServiceError::NotFound)?;
        self.start_erasure(tenant, ErasureTarget::Event(id), pending).await
    }

    /// Starts the erasures of a project in the workspace with this name or id: one for each mode.
    ///
    /// # Errors
    /// When there is no such workspace.
    pub async fn erase_project(
        &self,
        workspace: &str,
        project: &ProjectId,
        pending: PendingDeliveries,
    ) -> Result<Vec<Erasure>, ServiceError> {
        let tenant = self.tenant(Some(workspace)).await?.ok_or(ServiceError::NotFound)?;
        let mut erasures = Vec::new();
        for mode in [Mode::Live, Mode::Test] {
            let (tenant, target) = (Tenant { mode, ..tenant }, ErasureTarget::Project(*project));
            erasures.push(self.start_erasure(tenant, target, pending).await?);
        }
        Ok(erasures)
    }

    async fn start_erasure(
        &self,
        tenant: Tenant,
        target: ErasureTarget,
        pending: PendingDeliveries,
    ) -> Result<Erasure, ServiceError> {
        let write = Write { tenant, author: Author::COMMAND_LINE, recording: None };
        match self.store.create_erasure(write, NewErasure { target, pending }).await.map_err(erase_error)? {
            Written::Done(erasure) => Ok(erasure),
            Written::Replayed(_) | Written::KeyReused | Written::SealedForOther => {
                Err(ServiceError::Internal { source: "a write without a key was answered before".into() })
            }
        }
    }

    /// # Errors
    /// When there is no such erasure.
    pub async fn get_erasure(&self, id: ErasureId) -> Result<Erasure, ServiceError> {
        self.store.find_erasure(None, id).await?.ok_or(ServiceError::NotFound)
    }

    /// Takes one step of the erasures, for a command that has opened the store itself. Returns how much it did, `None`
    /// when all have ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn advance_erasures(&self) -> Result<Option<usize>, ServiceError> {
        Ok(self.store.advance_erasures().await?)
    }
}

fn erase_error(error: EraseError) -> ServiceError {
    match error {
        EraseError::NotFound => ServiceError::NotFound,
        EraseError::TooMany { max } => ServiceError::Conflict(format!(
            "{max} erasures of this workspace have not ended. Wait until one has ended, or erase by project."
        )),
        EraseError::Store(error) => error.into(),
    }
}
