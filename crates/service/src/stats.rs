//! Statistics: what was counted in a period, what endpoints did lately, and the queue.

use postrider_domain::access::Principal;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::permission::Permission;
use postrider_domain::stats::{
    BucketSize, EndpointActivity, InvalidPeriod, QueueState, StatsPeriod, StatsScope, StatsSeries,
};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use postrider_store::{Store, StoreError};

use crate::error::ServiceError;
use crate::service::Service;

/// A question about a period. What is absent has a usual value.
#[derive(Clone, Debug, Default)]
pub struct StatsQuery {
    /// By default as long before the end as is usual for the bucket: an hour in minutes, a day in hours, 30 days in
    /// days.
    pub since: Option<Timestamp>,
    /// By default the end of the bucket that contains the present.
    pub until: Option<Timestamp>,
    /// By default an hour.
    pub bucket: Option<BucketSize>,
    pub endpoint_id: Option<EndpointId>,
    pub project_id: Option<ProjectId>,
}

impl StatsQuery {
    /// The period in buckets.
    ///
    /// # Errors
    /// When it has no bucket, or more than [`limits::STATS_BUCKETS`].
    pub fn period(&self, now: Timestamp) -> Result<StatsPeriod, ServiceError> {
        let bucket = self.bucket.unwrap_or(BucketSize::Hour);
        let usual = StatsPeriod::ending_at(now, bucket);
        let until = self.until.unwrap_or(usual.until());
        let since = self.since.unwrap_or_else(|| until.minus(usual.until().since(usual.since())));
        StatsPeriod::new(since, until, bucket).map_err(|fault| match fault {
            InvalidPeriod::Empty => ServiceError::unprocessable("until", "must be later than since"),
            InvalidPeriod::TooLong => ServiceError::unprocessable(
                "since",
                &format!("leaves more than {} buckets before until: choose longer buckets", limits::STATS_BUCKETS),
            ),
        })
    }

    fn scope(&self) -> StatsScope {
        match (self.endpoint_id, self.project_id) {
            (None, None) => StatsScope::Workspace,
            (Some(endpoint), None) => StatsScope::Endpoint(endpoint),
            (None, Some(project)) => StatsScope::Project(project),
            (Some(endpoint), Some(project)) => StatsScope::EndpointOfProject(endpoint, project),
        }
    }
}

/// The counts of a period, and the queue as it is now.
#[derive(Clone, Debug)]
pub struct StatsReport {
    pub series: StatsSeries,
    pub queue: QueueState,
}

/// Since when nothing has needed somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NothingWrong {
    /// The last trouble ended then.
    SinceTrouble(Timestamp),
    /// There was none since the workspace was made.
    SinceCreation(Timestamp),
    /// There was none since the store notes when one ends. It has not done so for as long as the workspace exists.
    SinceNoted(Timestamp),
}

/// The instant since which the store notes when troubles end, in the table of named facts: milliseconds as text.
const TROUBLES_NOTED_SINCE: &str = "troubles_noted_since";

/// Notes that from now on the store knows when troubles end. Call it when a server starts; the first call counts.
///
/// # Errors
/// When the store fails.
pub async fn note_troubles(store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
    store.meta_or_insert(TROUBLES_NOTED_SINCE, now.millis().to_string().into_bytes()).await.map(drop)
}

impl Service {
    /// The counts of a period, bucket by bucket, and the queue. For an endpoint or a project that does not exist
    /// nothing is counted.
    ///
    /// # Errors
    /// Without the scope, or when the period is empty or has too many buckets.
    pub async fn stats(&self, principal: &Principal, query: &StatsQuery) -> Result<StatsReport, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let period = query.period(self.clock.now())?;
        let series = self.store.stats(principal.tenant, query.scope(), period).await?;
        let queue = match narrowed(principal.tenant, query.project_id) {
            Some(tenant) => self.store.queue_state(tenant, query.endpoint_id).await?,
            None => QueueState::default(),
        };
        Ok(StatsReport { series, queue })
    }

    /// What each of these endpoints did in the last 24 hours, hour by hour, its last success and its queue. In the
    /// order of `endpoints`. An endpoint that does not exist has done nothing. Nothing is returned to a caller from
    /// whom types are hidden: these counts are not kept by type.
    ///
    /// # Errors
    /// Without the scope.
    pub async fn endpoint_activity(
        &self,
        principal: &Principal,
        endpoints: Vec<EndpointId>,
    ) -> Result<Vec<EndpointActivity>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        if principal.event_types.is_some() {
            return Ok(Vec::new());
        }
        let period = StatsPeriod::ending_at(self.clock.now(), BucketSize::Hour);
        Ok(self.store.endpoint_activity(principal.tenant, endpoints, period).await?)
    }

    /// The number of events of each type in a period, by name. Types without an event are left out.
    ///
    /// # Errors
    /// Without the scope, or when the period is empty or has too many buckets.
    pub async fn events_by_type(
        &self,
        principal: &Principal,
        query: &StatsQuery,
    ) -> Result<Vec<(String, u64)>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let period = query.period(self.clock.now())?;
        Ok(self.store.events_by_type(principal.tenant, period).await?)
    }

    /// As [`Self::events_by_type`], of the events whose data did not fit the schema of their type and was accepted.
    ///
    /// # Errors
    /// As [`Self::events_by_type`].
    pub async fn misfits_by_type(
        &self,
        principal: &Principal,
        query: &StatsQuery,
    ) -> Result<Vec<(String, u64)>, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        let period = query.period(self.clock.now())?;
        Ok(self.store.misfits_by_type(principal.tenant, period).await?)
    }

    /// Since when nothing in the workspace has needed somebody. The caller has seen that nothing does now.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn nothing_wrong_since(&self, principal: &Principal) -> Result<NothingWrong, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        if let Some(at) = self.store.last_trouble(principal.tenant).await? {
            return Ok(NothingWrong::SinceTrouble(at));
        }
        let created = self.own_workspace(principal).await?.created_at;
        let noted = self.store.meta(TROUBLES_NOTED_SINCE).await?;
        let noted = noted.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()).map(Timestamp::from_millis);
        Ok(match noted.filter(|noted| *noted > created) {
            Some(noted) => NothingWrong::SinceNoted(noted),
            None => NothingWrong::SinceCreation(created),
        })
    }

    /// The deliveries of the workspace or the endpoint that have not ended.
    ///
    /// # Errors
    /// Without the scope.
    pub async fn queue_state(
        &self,
        principal: &Principal,
        endpoint: Option<EndpointId>,
    ) -> Result<QueueState, ServiceError> {
        principal.require(Permission::DeliveriesRead)?;
        Ok(self.store.queue_state(principal.tenant, endpoint).await?)
    }
}

/// The tenant narrowed to the project that is asked for. `None` when it sees only another one.
fn narrowed(tenant: Tenant, asked: Option<ProjectId>) -> Option<Tenant> {
    match (tenant.project, asked) {
        (_, None) => Some(tenant),
        (Some(own), Some(asked)) if own != asked => None,
        (_, Some(asked)) => Some(Tenant { project: Some(asked), ..tenant }),
    }
}
