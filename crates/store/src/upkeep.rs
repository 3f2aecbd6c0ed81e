//! Work that keeps the store bounded: expiry, retention, forgotten answers, erased secrets, removal of what has ended,
//! replays, erasures. Each call is one bounded step.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::disk::DiskState;
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::DiskReport;
use postrider_domain::time::Timestamp;

use crate::StoreError;
use crate::disk::DiskUse;

/// A part of the log with its own retention walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// With their attempts.
    Deliveries,
    /// With their `externalId`s.
    Events,
}

/// One step of retention.
#[derive(Clone, Copy, Debug)]
pub struct AgedStep {
    pub part: LogPart,
    /// Rows older than this may be removed.
    pub age: Duration,
    /// The step begins behind this row.
    pub after: RowKey,
    /// Rows looked at.
    pub limit: usize,
}

/// The name of the fact that says how far the walk over payloads has come.
pub const PAYLOADS_WALKED_TO: &str = "payloads_walked_to";

/// One step of the expiry of payloads.
#[derive(Clone, Copy, Debug)]
pub struct PayloadStep {
    /// Payloads of events older than this may go.
    pub age: Duration,
    /// Events looked at.
    pub limit: usize,
}

/// What a step has removed, and where the next one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Deliveries, events or payloads. An estimate where a whole day was dropped.
    pub rows: u64,
    /// `None` at the end.
    pub next: Option<RowKey>,
}

/// A kind of row that ends long before it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedKind {
    /// Completed and stopped replays.
    Replays,
    /// Erasures that have ended.
    Erasures,
    /// Deleted endpoints of which no delivery and no replay is left.
    Endpoints,
    /// Revoked and expired keys.
    ApiKeys,
    /// Portal sessions that were ended or have expired.
    PortalSessions,
    /// Parked messages, which end when they are parked: nothing but their age removes them unasked.
    ParkedMessages,
    /// Deleted workspaces of which nothing is left: no endpoint, no row of the log, no audit entry. Removed with the
    /// keys that were in use when the workspace was deleted.
    Workspaces,
}

impl EndedKind {
    /// In the order of removal: a kind comes before those that it refers to.
    pub const ALL: [Self; 7] = [
        Self::Replays,
        Self::Erasures,
        Self::Endpoints,
        Self::ApiKeys,
        Self::PortalSessions,
        Self::ParkedMessages,
        Self::Workspaces,
    ];
}

/// A position among the rows of a kind, which are in the order in which they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedCursor {
    pub ended_at: Timestamp,
    pub key: RowKey,
}

impl EndedCursor {
    pub const START: Self = Self { ended_at: Timestamp::from_millis(0), key: RowKey::from_i64(0) };
}

/// One step of the removal of rows that have ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedStep {
    pub kind: EndedKind,
    /// Rows that ended longer ago than this may be removed.
    pub age: Duration,
    /// The step begins behind this row.
    pub after: EndedCursor,
    /// Rows looked at.
    pub limit: usize,
}

#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// Fails up to `limit` deliveries as `expired` that waited too long behind an inactive endpoint or a blocked strict
    /// order. In a strict order they expire from the front, and the order stops at the last of them.
    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError>;

    /// Deletes up to `limit` listeners that are not durable and that no consumer has used for so long, as the delete of
    /// an endpoint does.
    async fn remove_unseen_listeners(&self, unseen: Duration, limit: usize) -> Result<usize, StoreError>;

    /// Removes rows of the log that are old enough.
    ///
    /// Kept: pending deliveries, a delivery at which a strict order has stopped, and events that a delivery refers to.
    async fn remove_aged(&self, step: AgedStep) -> Result<Removed, StoreError>;

    /// Takes the payloads of events that are old enough: their envelopes, and the headers and bodies of their attempts.
    /// It goes on where the last step ended, and never looks at an event twice.
    ///
    /// Kept: payloads of events of which a delivery is pending, or at one of which a strict order has stopped.
    async fn expire_payloads(&self, step: PayloadStep) -> Result<Removed, StoreError>;

    /// Looks again at the payloads that [`Self::expire_payloads`] kept, those of events after `after`.
    async fn expire_late_payloads(&self, step: PayloadStep, after: RowKey) -> Result<Removed, StoreError>;

    /// Removes up to `limit` entries of the audit log that are older than `age`.
    async fn remove_aged_audit(&self, age: Duration, limit: usize) -> Result<usize, StoreError>;

    /// Removes rows that ended long enough ago and that nothing refers to any more. Returns where the next step begins,
    /// `None` at the end. It finds its rows by an index, so it costs nothing where nothing has ended.
    async fn remove_ended(&self, step: EndedStep) -> Result<Option<EndedCursor>, StoreError>;

    /// Removes up to `limit` recorded answers whose window is over.
    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError>;

    /// Removes up to `limit` ended sessions of the dashboard, and up to `limit` login codes that are too old. Returns
    /// the larger number.
    async fn remove_ended_sessions(&self, limit: usize) -> Result<usize, StoreError>;

    /// Removes up to `limit` refusals of the audit log that are older than `age`. Entries of writes stay.
    async fn forget_refusals(&self, age: Duration, limit: usize) -> Result<usize, StoreError>;

    /// Erases up to `limit` secrets that no delivery can need any more.
    async fn erase_unused_secrets(&self, limit: usize) -> Result<usize, StoreError>;

    /// Counts up to `limit` stored rows for the budget of their workspaces, until everything from before the budget is
    /// counted. Returns whether there is more.
    async fn count_stored_bytes(&self, limit: usize) -> Result<bool, StoreError>;

    /// Removes up to `limit` counters of stored bytes that have come to nothing, of days longer ago than `age`.
    async fn remove_empty_counters(&self, age: Duration, limit: usize) -> Result<usize, StoreError>;

    /// Adds up to `limit` counts of closed minutes to their hours, or of closed hours to their days. Returns whether
    /// there is more.
    async fn fold_rollups(&self, limit: usize) -> Result<bool, StoreError>;

    /// Removes up to `limit` counts of each bucket size that are older than their size is kept beside a log of this
    /// age. Only what has been added up is removed. Returns whether there is more.
    async fn remove_aged_rollups(&self, log: Duration, limit: usize) -> Result<bool, StoreError>;

    /// Gives some of the database's free space back to the file system, if there is more than is soon used again.
    /// Returns how long the writer was busy, `None` if there is nothing to give back now.
    async fn give_space_back(&self) -> Result<Option<Duration>, StoreError>;

    /// What the store takes on the disk.
    async fn disk_use(&self) -> Result<DiskUse, StoreError>;

    /// Holds so many bytes in a file of their own, which can be deleted when the disk is full. 0 deletes it. Does
    /// nothing where the files are another machine's.
    async fn hold_reserve(&self, bytes: u64) -> Result<(), StoreError>;

    /// Refuses from now on what the state does not allow.
    fn set_disk_state(&self, state: DiskState);

    /// Reports a change of the state to the operator, if operational events are enabled. Of several nodes one does.
    async fn report_disk(&self, report: DiskReport) -> Result<(), StoreError>;

    /// Advances the running replays by one step. Returns the number of log rows passed, `None` when no replay runs.
    ///
    /// A replay waits while its endpoint is inactive or has live deliveries due.
    async fn advance_replays(&self) -> Result<Option<usize>, StoreError>;

    /// Advances the erasures that have not ended by one step. Returns how much it did, zero when all of them wait,
    /// `None` when there are none.
    async fn advance_erasures(&self) -> Result<Option<usize>, StoreError>;
}
