//! Work that keeps the store bounded: expiry, retention, forgotten answers, erased secrets, replays. Each call is one
//! bounded step.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::id::RowKey;

use crate::StoreError;

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

#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// Fails up to `limit` deliveries as `expired` that waited too long behind an inactive endpoint or a blocked strict
    /// order. In a strict order they expire from the front, and the order stops at the last of them.
    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError>;

    /// Removes rows of the log that are old enough. Returns where the next step begins, `None` at the end.
    ///
    /// Kept: pending deliveries, a delivery at which a strict order has stopped, and events that a delivery refers to.
    async fn remove_aged(&self, step: AgedStep) -> Result<Option<RowKey>, StoreError>;

    /// Removes up to `limit` recorded answers whose window is over.
    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError>;

    /// Erases up to `limit` secrets that no delivery can need any more.
    async fn erase_unused_secrets(&self, limit: usize) -> Result<usize, StoreError>;

    /// Advances the running replays by one step. Returns the number of log rows passed, `None` when no replay runs.
    ///
    /// A replay waits while its endpoint is inactive or has live deliveries due.
    async fn advance_replays(&self) -> Result<Option<usize>, StoreError>;
}
