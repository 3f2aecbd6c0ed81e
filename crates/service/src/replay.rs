//! Replays: jobs that send again what an endpoint missed in a time range, or every delivery that passes a filter.

use postrider_domain::access::Principal;
use postrider_domain::delivery::DeliveryFilter;
use postrider_domain::id::{EndpointId, ReplayId, RowKey};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplaySelection, replayable};
use postrider_domain::tenant::Tenant;
use postrider_store::{FilterScope, NewReplay, ReplayScope, RequeueError, StopReplayError};

use crate::delivery::requeue_error;
use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::portal::{sees_replay, without_hidden_types};
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
        if principal.event_types.is_some() {
            if range.since >= self.clock().now() {
                return Ok(ReplayCount::default());
            }
            let filter = ReplaySelection::Endpoint { id: endpoint_id, range: range.clone() }.filter();
            return Ok(self.count_filtered(principal, filter).await?.1);
        }
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

    /// Starts a replay. The engine advances it. A caller from whom types are hidden repeats deliveries of the others
    /// alone, so the replay is kept as one by filter.
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
        let selection = ReplaySelection::Endpoint { id: endpoint_id, range: range.clone() };
        if principal.event_types.is_some() {
            principal.require(Permission::ReplaysWrite)?;
            if !self.get_endpoint(principal, endpoint_id).await?.is_active {
                return Err(requeue_error(RequeueError::EndpointOff).into());
            }
            return self.start_filtered(principal, selection.filter(), idempotent).await;
        }
        let count = self.count_replay(principal, endpoint_id, &range).await?;
        self.create_replay(principal, NewReplay { selection, count }, idempotent).await
    }

    async fn create_replay(
        &self,
        principal: &Principal,
        new: NewReplay,
        idempotent: &Idempotent<Replay>,
    ) -> Result<Replay, WriteError> {
        self.check_sends()?;
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
        let filter = without_hidden_types(principal, filter).ok_or_else(|| {
            ServiceError::unprocessable("filter.eventType", "must name at least one of your event types")
        })?;
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

    /// The replays of an endpoint, or all of the workspace. A page of a caller from whom types are hidden may be short,
    /// and still name a next page.
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
        if let Some(id) = endpoint_id.filter(|_| principal.event_types.is_some()) {
            self.get_endpoint(principal, id).await?;
        }
        let listed = self.store.list_replays(principal.tenant, kept_under(principal, endpoint_id), page).await?;
        let mut listed = listed.ok_or(ServiceError::NotFound)?;
        listed.items.retain(|replay| is_seen(principal, endpoint_id, replay));
        Ok(listed)
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
        let found = self.store.find_replay(principal.tenant, kept_under(principal, endpoint_id), id).await?;
        found.filter(|replay| is_seen(principal, endpoint_id, replay)).ok_or(ServiceError::NotFound)
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
        if principal.event_types.is_some() {
            self.get_replay(principal, endpoint_id, id).await?;
        }
        let recording = idempotent.recording(Replay::clone);
        let endpoint_id = kept_under(principal, endpoint_id);
        let stopped = self.store.stop_replay(write_by(principal, recording), endpoint_id, id).await;
        let written = stopped.map_err(|error| match error {
            StopReplayError::NotFound => ServiceError::NotFound,
            StopReplayError::Store(error) => error.into(),
        })?;
        idempotent.finish(written)
    }
}

/// The endpoint under which the store keeps a replay. That of a caller from whom types are hidden is one by filter,
/// which the store keeps under none.
fn kept_under(principal: &Principal, endpoint_id: Option<EndpointId>) -> Option<EndpointId> {
    endpoint_id.filter(|_| principal.event_types.is_none())
}

fn is_seen(principal: &Principal, endpoint_id: Option<EndpointId>, replay: &Replay) -> bool {
    let is_of_endpoint =
        principal.event_types.is_none() || endpoint_id.is_none_or(|id| replay.selection.filter().endpoint_ids == [id]);
    is_of_endpoint && sees_replay(principal, replay)
}
