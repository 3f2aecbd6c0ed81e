//! The delivery log, and manual retries and skips.

use postrider_domain::access::Principal;
use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus};
use postrider_domain::explanation::{Explanation, Situation, explain};
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::limits;
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::sent_request::{RequestContext, SentRequest};
use postrider_store::publish::requeue::{RetriedDelivery, RetryRefusal};
use postrider_store::{RequeueError, SkipDeliveryError};

use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::portal::{seen_attempt, seen_deliveries, without_hidden_types};
use crate::principal_write::write_by;
use crate::service::Service;

impl Service {
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_deliveries(
        &self,
        principal: &Principal,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        Ok(seen_deliveries(principal, self.store.list_deliveries(principal.tenant, filter, page).await?))
    }

    /// Counts the deliveries that match, up to `limits::COUNTED_MAX`. Those of a type that is hidden from the caller do
    /// not count.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn count_deliveries(
        &self,
        principal: &Principal,
        filter: DeliveryFilter,
    ) -> Result<BoundedCount, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let Some(filter) = without_hidden_types(principal, filter) else {
            return Ok(BoundedCount::searched_from(None));
        };
        Ok(self.store.count_deliveries(principal.tenant, filter, limits::COUNTED_MAX).await?)
    }

    /// A delivery and its attempts. Remote addresses are left out for callers that are not operators.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such delivery.
    pub async fn get_delivery(
        &self,
        principal: &Principal,
        id: DeliveryId,
    ) -> Result<(Delivery, Vec<Attempt>), ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let found = self.store.find_delivery(principal.tenant, id).await?;
        let found = found.filter(|(delivery, _)| principal.sees(&delivery.event_type));
        let (delivery, mut attempts) = found.ok_or(ServiceError::NotFound)?;
        for attempt in &mut attempts {
            self.show_request(&delivery, attempt);
            seen_attempt(principal, attempt);
        }
        Ok((delivery, attempts))
    }

    /// How a delivery of this caller stands: why, what comes next, and when.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn explain_delivery(
        &self,
        principal: &Principal,
        delivery: &Delivery,
        attempts: &[Attempt],
    ) -> Result<Explanation, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let endpoint = match delivery.status {
            DeliveryStatus::Pending => self.store.find_endpoint(principal.tenant, delivery.endpoint_id).await?,
            _ => None,
        };
        let schedule = &self.retry_schedule;
        let mut explanation = explain(Situation { delivery, attempts, endpoint: endpoint.as_ref(), schedule });
        // The head of the order may be of another project, or of a type that is hidden from the caller.
        if let Some(head) = explanation.waits_for.filter(|_| principal.is_customer()) {
            let found = self.store.find_delivery(principal.tenant, head).await?;
            explanation.waits_for = found.filter(|(head, _)| principal.sees(&head.event_type)).map(|_| head);
        }
        Ok(explanation)
    }

    /// Rebuilds the headers that an attempt sent.
    fn show_request(&self, delivery: &Delivery, attempt: &mut Attempt) {
        let Some(request) = attempt.request.as_ref().and_then(SentRequest::parts) else { return };
        attempt.request_headers = request.headers(&RequestContext {
            brand: &self.catalogue.brand,
            event_id: delivery.event_id,
            delivery_id: delivery.id,
            cause: delivery.cause,
            attempt: attempt.number,
            started_at: attempt.started_at,
        });
    }

    /// The deliveries at which strict orders have stopped, the oldest first: at most 50.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn blocking_deliveries(&self, principal: &Principal) -> Result<Vec<Delivery>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        Ok(self.store.blocking_deliveries(principal.tenant, limits::PAGE_DEFAULT).await?)
    }

    /// The delivery at which the strict order of this endpoint has stopped, if it has and the caller sees its type.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn blocking_delivery(
        &self,
        principal: &Principal,
        endpoint: EndpointId,
    ) -> Result<Option<Delivery>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let found = self.store.blocking_delivery(principal.tenant, endpoint).await?;
        Ok(found.filter(|delivery| principal.sees(&delivery.event_type)))
    }

    /// Queues a new delivery of the same event to the same endpoint. The status of the first does not matter.
    ///
    /// # Errors
    /// Without the scope, when this workspace has no such delivery, when its endpoint is deleted or not active,
    /// or when the payload of the event is gone.
    pub async fn retry_delivery(
        &self,
        principal: &Principal,
        id: DeliveryId,
        idempotent: &Idempotent<Delivery>,
    ) -> Result<Delivery, WriteError> {
        principal.require(Permission::DeliveriesRetry)?;
        self.check_sends()?;
        if principal.event_types.is_some() {
            self.get_delivery(principal, id).await?;
        }
        let recording = idempotent.recording(Delivery::clone);
        let retried = self.store.retry_delivery(write_by(principal, recording), id).await;
        let written = retried.map_err(requeue_error)?;
        idempotent.finish(written)
    }

    /// Retries several deliveries, each as [`Self::retry_delivery`] does. The refusal of one does not concern the
    /// others.
    ///
    /// # Errors
    /// Without the scope, or when the workspace stores its bytes.
    pub async fn retry_deliveries(
        &self,
        principal: &Principal,
        ids: Vec<DeliveryId>,
        idempotent: &Idempotent<Vec<RetriedDelivery>>,
    ) -> Result<Vec<RetriedDelivery>, WriteError> {
        principal.require(Permission::DeliveriesRetry)?;
        self.check_sends()?;
        if principal.event_types.is_some() {
            for id in &ids {
                self.get_delivery(principal, *id).await?;
            }
        }
        let recording = idempotent.recording(Vec::clone);
        let retried = self.store.retry_deliveries(write_by(principal, recording), ids).await;
        idempotent.finish(retried.map_err(requeue_error)?)
    }

    /// Skips the failed delivery that blocks its endpoint's strict order, so that the deliveries behind it continue.
    ///
    /// # Errors
    /// Without the scope, when this workspace has no such delivery, or when it does not block a strict order.
    pub async fn skip_delivery(
        &self,
        principal: &Principal,
        id: DeliveryId,
        idempotent: &Idempotent<Delivery>,
    ) -> Result<Delivery, WriteError> {
        principal.require(Permission::DeliveriesSkip)?;
        self.check_sends()?;
        let recording = idempotent.recording(Delivery::clone);
        let skipped = self.store.skip_delivery(write_by(principal, recording), id).await;
        let written = skipped.map_err(skip_error)?;
        idempotent.finish(written)
    }
}

fn skip_error(error: SkipDeliveryError) -> ServiceError {
    match error {
        SkipDeliveryError::NotFound => ServiceError::NotFound,
        SkipDeliveryError::NotBlocking => ServiceError::Conflict(
            "No strict order has stopped at this delivery, so there is nothing to skip.".to_owned(),
        ),
        SkipDeliveryError::Store(error) => error.into(),
    }
}

const ENDPOINT_DELETED: &str = "The endpoint does not exist any more.";
const PAYLOAD_GONE: &str =
    "The data of the event is no longer stored, so it cannot be sent again: its payload has expired or was erased.";
const ENDPOINT_OFF: &str = "The endpoint is not active: set isActive to true first.";

/// The refusal of one of several retries, as a retry of it alone would be refused.
pub fn refused_retry(refusal: RetryRefusal) -> ServiceError {
    requeue_error(match refusal {
        RetryRefusal::NotFound => RequeueError::NotFound,
        RetryRefusal::EndpointDeleted => RequeueError::EndpointDeleted,
        RetryRefusal::EndpointOff => RequeueError::EndpointOff,
        RetryRefusal::PayloadGone => RequeueError::PayloadGone,
    })
}

pub(crate) fn requeue_error(error: RequeueError) -> ServiceError {
    match error {
        RequeueError::NotFound => ServiceError::NotFound,
        RequeueError::EndpointDeleted => ServiceError::Conflict(ENDPOINT_DELETED.to_owned()),
        RequeueError::EndpointOff => ServiceError::Conflict(ENDPOINT_OFF.to_owned()),
        RequeueError::PayloadGone => ServiceError::Conflict(PAYLOAD_GONE.to_owned()),
        RequeueError::WorkspaceFull { max } => ServiceError::WorkspaceFull { max },
        RequeueError::Store(error) => error.into(),
    }
}
