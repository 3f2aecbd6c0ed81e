//! The delivery log, as a customer asks it.

use crate::domain::access::{Principal, needs};
use crate::domain::attempt::Attempt;
use crate::domain::delivery::{Delivery, DeliveryFilter};
use crate::domain::id::DeliveryId;
use crate::domain::page::{Page, PageRequest};

use super::{Service, ServiceError};

impl Service {
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_deliveries(
        &self,
        principal: &Principal,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, ServiceError> {
        principal.require(needs::WEBHOOKS_READ)?;
        Ok(self.store.list_deliveries(principal.workspace_key, filter, page).await?)
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such delivery.
    pub async fn get_delivery(
        &self,
        principal: &Principal,
        id: DeliveryId,
    ) -> Result<(Delivery, Vec<Attempt>), ServiceError> {
        principal.require(needs::WEBHOOKS_READ)?;
        self.store.find_delivery(principal.workspace_key, id).await?.ok_or(ServiceError::NotFound)
    }
}
