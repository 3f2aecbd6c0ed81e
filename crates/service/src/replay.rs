//! Replays: jobs that send again what an endpoint missed in a time range, or every delivery that passes a filter.

use postrider_domain::access::Principal;
use postrider_domain::delivery::DeliveryFilter;
use postrider_domain::id::{EndpointId, ReplayId, RowKey};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplaySelection, replayable};
use postrider_domain::tenant::Tenant;
use postrider_store::{FilterScope, NewReplay, ReplayScope, StopReplayError};

use crate::delivery::requeue_error;
use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::principal_write::write_by;
use crate::service::Service;

impl Service {
    /// Counts what a replay of this range would send.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such endpoint.
    pub async fn count_replay(
        &self,
        principal: &Principal,
        endpoint_id: EndpointId,
        range: &ReplayRange,
    ) -> Result<ReplayCount, ServiceError> {
        principal.require(Permission::ReplaysWrite)?;
        let endpoint = self.get_endpoint(principal, endpoint_id).await?;
        let Tenant { mode, project, .. } = principal.tenant;
        let scope = ReplayScope { endpoint_key: endpoint.key, mode, range: range.clone(), project };
        let mut sum = ReplayCount::default();
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after {
            let (step, next) = self.store.count_replayable(scope.clone(), from).await?;
            sum.total += step.total;
            sum.unavailable += step.unavailable;
            after = next;
        }
        Ok(sum)
    }

    /// Starts a replay. The engine advances it.
    ///
    /// # Errors
    /// Without the scope, when this workspace has no such endpoint, or when it is not active.
    pub async fn start_replay(
        &self,
        principal: &Principal,
        endpoint_id: EndpointId,
        range: ReplayRange,
        idempotent: &Idempotent<Replay>,
    ) -> Result<Replay, WriteError> {
        let count = self.count_replay(principal, endpoint_id, &range).await?;
        let selection = ReplaySelection::Endpoint { id: endpoint_id, range };
        self.create_replay(principal, NewReplay { selection, count }, idempotent).await
    }

    async fn create_replay(
        &self,
        principal: &Principal,
        new: NewReplay,
        idempotent: &Idempotent<Replay>,
    ) -> Result<Replay, WriteError> {
        let recording = idempotent.recording(Replay::clone);
        let created = self.store.create_replay(write_by(principal, recording), new).await;
        idempotent.finish(created.map_err(requeue_error)?)
    }

    /// Counts what a replay by this filter would send. Also returns the filter as it would be kept: narrowed to what
    /// exists now and can be sent again.
    ///
    /// # Errors
    /// Without the scope, or when the filter passes nothing that can be sent again, or everything.
    pub async fn count_filtered(
        &self,
        principal: &Principal,
        filter: DeliveryFilter,
    ) -> Result<(DeliveryFilter, ReplayCount), ServiceError> {
        principal.require(Permission::ReplaysWrite)?;
        let asked_at = self.clock().now();
        let filter = replayable(filter, asked_at).map_err(|fault| {
            let name = fault.parameter().map_or_else(|| "filter".to_owned(), |name| format!("filter.{name}"));
            ServiceError::unprocessable(&name, &fault.to_string())
        })?;
        let filter = without_hidden_types(principal, filter)?;
        let scope = FilterScope { tenant: principal.tenant, filter: filter.clone(), asked_at };
        let mut sum = ReplayCount::default();
        let mut after = Some(RowKey::from_i64(0));
        for _ in 0..limits::REPLAY_COUNT_READS {
            let Some(from) = after else { break };
            let (step, next) = self.store.count_filtered(scope.clone(), from).await?;
            sum.total += step.total;
            sum.unavailable += step.unavailable;
            after = next;
        }
        Ok((filter, ReplayCount { counted_to: after.map(RowKey::created_at), ..sum }))
    }

    /// Starts a replay of every delivery that passes a filter. The engine advances it.
    ///
    /// # Errors
    /// As [`Self::count_filtered`].
    pub async fn start_filtered(
        &self,
        principal: &Principal,
        filter: DeliveryFilter,
        idempotent: &Idempotent<Replay>,
    ) -> Result<Replay, WriteError> {
        let (filter, count) = self.count_filtered(principal, filter).await?;
        let selection = ReplaySelection::Filter(Box::new(filter));
        self.create_replay(principal, NewReplay { selection, count }, idempotent).await
    }

    /// The replays of an endpoint, or all of the workspace.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such endpoint.
    pub async fn list_replays(
        &self,
        principal: &Principal,
        endpoint_id: Option<EndpointId>,
        page: PageRequest,
    ) -> Result<Page<Replay>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let listed = self.store.list_replays(principal.tenant, endpoint_id, page).await?;
        listed.ok_or(ServiceError::NotFound)
    }

    /// A replay of this endpoint, or any of the workspace.
    ///
    /// # Errors
    /// Without the scope, or when there is no such replay.
    pub async fn get_replay(
        &self,
        principal: &Principal,
        endpoint_id: Option<EndpointId>,
        id: ReplayId,
    ) -> Result<Replay, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let found = self.store.find_replay(principal.tenant, endpoint_id, id).await?;
        found.ok_or(ServiceError::NotFound)
    }

    /// Stops a replay. Deliveries that it has queued are still sent.
    ///
    /// # Errors
    /// Without the scope, or when there is no such replay.
    pub async fn stop_replay(
        &self,
        principal: &Principal,
        endpoint_id: Option<EndpointId>,
        id: ReplayId,
        idempotent: &Idempotent<Replay>,
    ) -> Result<Replay, WriteError> {
        principal.require(Permission::ReplaysWrite)?;
        let recording = idempotent.recording(Replay::clone);
        let stopped = self.store.stop_replay(write_by(principal, recording), endpoint_id, id).await;
        let written = stopped.map_err(|error| match error {
            StopReplayError::NotFound => ServiceError::NotFound,
            StopReplayError::Store(error) => error.into(),
        })?;
        idempotent.finish(written)
    }
}

/// The filter without event types that do not exist for this caller.
fn without_hidden_types(principal: &Principal, filter: DeliveryFilter) -> Result<DeliveryFilter, ServiceError> {
    let Some(types) = &principal.event_types else { return Ok(filter) };
    let all = if filter.event_types.is_empty() { types.iter().cloned().collect() } else { filter.event_types.clone() };
    let event_types: Vec<_> = Vec::into_iter(all).filter(|name| principal.sees(name)).collect();
    if !(1..=limits::FILTER_VALUES).contains(&event_types.len()) {
        let fault = format!("must name 1 to {} of your event types", limits::FILTER_VALUES);
        return Err(ServiceError::unprocessable("filter.eventType", &fault));
    }
    Ok(DeliveryFilter { event_types, ..filter })
}
