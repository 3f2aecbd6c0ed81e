//! Replays: jobs that send again what an endpoint missed in a time range.

use postrider_domain::access::Principal;
use postrider_domain::id::{EndpointId, ReplayId, RowKey};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange};
use postrider_domain::tenant::Tenant;
use postrider_store::{NewReplay, ReplayScope, StopReplayError};

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
        let total = self.count_replay(principal, endpoint_id, &range).await?.total;
        let recording = idempotent.recording(Replay::clone);
        let new = NewReplay { endpoint_id, range, total };
        let created = self.store.create_replay(write_by(principal, recording), new).await;
        idempotent.finish(created.map_err(requeue_error)?)
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such endpoint.
    pub async fn list_replays(
        &self,
        principal: &Principal,
        endpoint_id: EndpointId,
        page: PageRequest,
    ) -> Result<Page<Replay>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let listed = self.store.list_replays(principal.tenant, endpoint_id, page).await?;
        listed.ok_or(ServiceError::NotFound)
    }

    /// # Errors
    /// Without the scope, or when this endpoint has no such replay.
    pub async fn get_replay(
        &self,
        principal: &Principal,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Replay, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let found = self.store.find_replay(principal.tenant, endpoint_id, id).await?;
        found.ok_or(ServiceError::NotFound)
    }

    /// Stops a replay. Deliveries that it has queued are still sent.
    ///
    /// # Errors
    /// Without the scope, or when this endpoint has no such replay.
    pub async fn stop_replay(
        &self,
        principal: &Principal,
        endpoint_id: EndpointId,
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
