//! Parked messages: list, show, retry, discard.

use std::sync::Arc;

use postrider_domain::access::Principal;
use postrider_domain::audit::AuditAction;
use postrider_domain::event::EventReceipt;
use postrider_domain::id::ParkedMessageId;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::source::{ParkedMessage, SourceName};
use postrider_store::AcceptError;
use postrider_store::parked_message::RemoveParkedMessageError;

use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::principal_write::write_by;
use crate::service::Service;

impl Service {
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_parked_messages(
        &self,
        principal: &Principal,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<ParkedMessage>, ServiceError> {
        principal.require(Permission::EventsRead)?;
        Ok(self.store.list_parked_messages(principal.tenant, source, page).await?)
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such message.
    pub async fn get_parked_message(
        &self,
        principal: &Principal,
        id: ParkedMessageId,
    ) -> Result<ParkedMessage, ServiceError> {
        principal.require(Permission::EventsRead)?;
        self.store.find_parked_message(principal.tenant, id).await?.ok_or(ServiceError::NotFound)
    }

    /// Reads the message again by the rules of its source, publishes it, and takes it from the parked ones. After a
    /// crash in between it is parked still, and a second retry returns the first receipt.
    ///
    /// # Errors
    /// Without the scope, when this workspace has no such message, when its source is not in the settings or only a
    /// part of it was kept, and when it can still be no event.
    pub async fn retry_parked_message(
        self: &Arc<Self>,
        principal: &Principal,
        id: ParkedMessageId,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        principal.require(Permission::EventsPublish)?;
        self.check_sends()?;
        let parked = self.store.find_parked_message(principal.tenant, id).await?.ok_or(ServiceError::NotFound)?;
        let source = self.source_of(principal, &parked.source).map_err(|_| {
            ServiceError::Conflict(format!("The source {:?} is not in the settings of this server.", parked.source))
        })?;
        if parked.is_cut() {
            let message = "Only the beginning of the message was kept, so it cannot be retried.".to_owned();
            return Err(ServiceError::Conflict(message).into());
        }
        let event = self.read_message(principal, &source.terms, &parked.message).map_err(|poison| {
            ServiceError::Unprocessable {
                message: format!(
                    "The message still cannot become an event ({}): {}.",
                    poison.reason.as_str(),
                    poison.detail
                ),
                parameters: Vec::new(),
            }
        })?;
        let accepted = self.store.accept_events(vec![event], idempotent.recording(Vec::clone)).await;
        let written = accepted.map_err(|error| match error {
            AcceptError::Store(error) => error.into(),
            AcceptError::ExternalIdReused { .. } => ServiceError::Unprocessable {
                message:
                    "The message still cannot become an event (id_reused): its id was published before with other \
                          content."
                        .to_owned(),
                parameters: Vec::new(),
            },
            AcceptError::WorkspaceFull { max } => ServiceError::WorkspaceFull { max },
            AcceptError::TooManyDeliveries { count, max } => ServiceError::Unprocessable {
                message: format!("The request would create {count} deliveries, more than {max}."),
                parameters: Vec::new(),
            },
        })?;
        let receipts = idempotent.finish(written)?;
        let removing =
            self.store.remove_parked_message(write_by(principal, None), id, AuditAction::ParkedMessageRetried);
        match removing.await {
            // Somebody else was faster.
            Ok(_) | Err(RemoveParkedMessageError::NotFound) => Ok(receipts),
            Err(RemoveParkedMessageError::Store(error)) => Err(error.into()),
        }
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such message.
    pub async fn discard_parked_message(
        &self,
        principal: &Principal,
        id: ParkedMessageId,
        idempotent: &Idempotent<()>,
    ) -> Result<(), WriteError> {
        principal.require(Permission::EventsPublish)?;
        let write = write_by(principal, idempotent.recording(|()| ()));
        let removed = self.store.remove_parked_message(write, id, AuditAction::ParkedMessageDiscarded).await;
        let written = removed.map_err(|error| match error {
            RemoveParkedMessageError::NotFound => ServiceError::NotFound,
            RemoveParkedMessageError::Store(error) => error.into(),
        })?;
        idempotent.finish(written)
    }
}
