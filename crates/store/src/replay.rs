//! Replays: jobs that walk the log and queue again what an endpoint did not receive, or what passes a filter.

use async_trait::async_trait;

use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{EndpointId, ReplayId, RowKey};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplaySelection};
use postrider_domain::tenant::Tenant;

use crate::column::joined;
use crate::publish::requeue::Requeue;
use crate::{FilterScope, RequeueError, StopReplayError, StoreError, UnexpectedValue, Write, Written};

/// A replay to create. Its mode is the tenant's.
#[derive(Clone, Debug)]
pub struct NewReplay {
    pub selection: ReplaySelection,
    pub count: ReplayCount,
}

impl NewReplay {
    /// A replay of one endpoint, whose `total` deliveries were all counted.
    pub fn of_endpoint(id: EndpointId, range: ReplayRange, total: u64) -> Self {
        let count = ReplayCount { total, ..ReplayCount::default() };
        Self { selection: ReplaySelection::Endpoint { id, range }, count }
    }
}

/// The part of an endpoint's log that a replay looks at: deliveries of one mode. It is the mode of the key that asked.
/// If a tenant asked that is narrowed to a project, only events that carry it: the endpoint may have belonged to
/// another project before.
#[derive(Clone, Debug)]
pub struct ReplayScope {
    pub endpoint_key: RowKey,
    pub mode: Mode,
    pub range: ReplayRange,
    pub project: Option<ProjectId>,
}

#[async_trait]
pub trait Replays: Send + Sync + 'static {
    /// Counts what a replay would send, in bounded steps: the rows after `after`. Also returns the start of the next
    /// step.
    async fn count_replayable(
        &self,
        scope: ReplayScope,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError>;

    /// As [`Self::count_replayable`], for a replay by filter that would start now.
    async fn count_filtered(
        &self,
        scope: FilterScope,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError>;

    async fn create_replay(&self, write: Write<Replay>, new: NewReplay) -> Result<Written<Replay>, RequeueError>;

    /// The replays of an endpoint, or all of the tenant. `None` when the tenant has no such endpoint.
    async fn list_replays(
        &self,
        tenant: Tenant,
        endpoint_id: Option<EndpointId>,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError>;

    /// A replay of this endpoint, or any of the tenant.
    async fn find_replay(
        &self,
        tenant: Tenant,
        endpoint_id: Option<EndpointId>,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError>;

    /// Stops a running replay, found as by [`Self::find_replay`]. A replay that has ended stays as it is.
    async fn stop_replay(
        &self,
        write: Write<Replay>,
        endpoint_id: Option<EndpointId>,
        id: ReplayId,
    ) -> Result<Written<Replay>, StopReplayError>;
}

/// Log rows looked at in one step, whatever the result: a few milliseconds.
pub const ROWS_PER_STEP: usize = 500;
/// Replays advanced in one step. They are drawn at random, so that none waits for the end of another.
pub const REPLAYS_PER_STEP: usize = 16;
/// Deliveries that one replay queues in one step. A live delivery never waits behind many more.
pub const QUEUED_PER_STEP: usize = 100;
/// Log rows counted in one read: some 30 ms on PostgreSQL, which looks up the later deliveries of each row's event.
pub const ROWS_PER_COUNT: usize = 2_000;
/// A replay waits while this many deliveries of its endpoint are due: live traffic goes first.
pub const LIVE_FIRST: usize = 50;

impl ReplayScope {
    /// The key behind which the next step reads, given how far the last one got.
    pub fn from(&self, after: RowKey) -> i64 {
        after.as_i64().max(RowKey::first_at(self.range.since).as_i64() - 1)
    }
}

/// One row of the log, as a replay sees it.
pub struct Candidate {
    pub key: RowKey,
    pub endpoint_key: RowKey,
    pub event_key: RowKey,
    pub verdict: Verdict,
}

/// What a replay does with a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The replay does not concern it.
    Ignored,
    /// It should be sent, but its payload has expired or was erased.
    Unavailable,
    Sent,
}

impl Verdict {
    /// From a query's code: 0 not wanted, 1 wanted but the event or its payload is gone, 2 wanted.
    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Ignored),
            1 => Some(Self::Unavailable),
            2 => Some(Self::Sent),
            _ => None,
        }
    }
}

/// The rows of one step: those before the first that would be one too many to queue.
pub fn step_rows(rows: &[Candidate]) -> &[Candidate] {
    let mut sent = rows.iter().enumerate().filter(|(_, row)| row.verdict == Verdict::Sent);
    sent.nth(QUEUED_PER_STEP).map_or(rows, |(position, _)| &rows[..position])
}

/// Counts the rows of one step of `limit` rows, and returns where the next step begins.
pub fn counted(rows: &[Candidate], limit: usize) -> (ReplayCount, Option<RowKey>) {
    let of = |verdict| rows.iter().filter(|row| row.verdict == verdict).count() as u64;
    let unavailable = of(Verdict::Unavailable);
    let count = ReplayCount { total: of(Verdict::Sent) + unavailable, unavailable, counted_to: None };
    (count, rows.last().filter(|_| rows.len() == limit).map(|row| row.key))
}

pub fn statuses_to_text(range: &ReplayRange) -> String {
    joined(range.statuses.iter().map(|status| status.code()))
}

/// # Errors
/// When the text is no project.
pub fn project_from(text: Option<&str>) -> Result<Option<ProjectId>, UnexpectedValue> {
    text.map(|text| ProjectId::parse(text).map_err(|_| UnexpectedValue("replays.project_id"))).transpose()
}

pub fn statuses_from_text(text: &str) -> Result<Vec<DeliveryStatus>, UnexpectedValue> {
    let code = |word: &str| word.parse().ok().and_then(DeliveryStatus::from_code);
    text.split(' ').map(|word| code(word).ok_or(UnexpectedValue("replays.statuses"))).collect()
}

/// A running replay.
pub struct RunningReplay {
    pub key: RowKey,
    pub workspace: RowKey,
    pub scope: ReplayScope,
    pub cursor: RowKey,
}

impl RunningReplay {
    pub const fn requeue(&self, row: &Candidate) -> Requeue {
        Requeue {
            // Whose log it is was decided when the candidates were read.
            tenant: Tenant::whole(self.workspace, self.scope.mode),
            endpoint_key: self.scope.endpoint_key,
            event_key: row.event_key,
            cause: DeliveryCause::Replay,
            retry_of: Some(row.key),
            waits_while_off: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Candidate> {
        let keys = (1..).map(RowKey::from_i64);
        verdicts
            .into_iter()
            .zip(keys)
            .map(|(verdict, key)| Candidate { key, endpoint_key: key, event_key: key, verdict })
            .collect()
    }

    #[test]
    fn a_step_ends_before_what_would_be_one_too_many_to_queue() {
        let seen = rows((0..1_000).map(|at| if at % 2 == 0 { Verdict::Sent } else { Verdict::Ignored }));
        let step = step_rows(&seen);
        assert_eq!(step.len(), 2 * QUEUED_PER_STEP, "what is passed over behind the last still belongs to it");
        assert_eq!(step_rows(&seen[..10]).len(), 10);
    }

    #[test]
    fn a_count_says_where_to_go_on_only_if_there_may_be_more() {
        let seen = rows([Verdict::Sent, Verdict::Ignored, Verdict::Unavailable]);
        let count = ReplayCount { total: 2, unavailable: 1, counted_to: None };
        assert_eq!(counted(&seen, 3), (count, Some(RowKey::from_i64(3))));
        assert_eq!(counted(&seen, 4), (count, None));
    }

    #[test]
    fn statuses_read_back_as_they_were_stored() {
        let statuses = vec![DeliveryStatus::Delivered, DeliveryStatus::Skipped];
        let at = postrider_domain::time::Timestamp::from_millis(0);
        let range = ReplayRange { since: at, until: at, statuses: statuses.clone() };
        assert_eq!(statuses_from_text(&statuses_to_text(&range)).unwrap(), statuses);
        assert!(statuses_from_text("1 x").is_err());
    }
}
