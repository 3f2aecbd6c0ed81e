//! The request counts that nodes exchange, so that a rate limit counts over all of them.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::id::RowKey;
use postrider_domain::rate_limit::RateBucket;
use postrider_domain::shared_rate::CountsByAge;

use crate::StoreError;

/// The requests of one workspace in one bucket at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateCounts {
    pub workspace: RowKey,
    pub bucket: RateBucket,
    pub counts: CountsByAge,
    /// How long ago the node stored them.
    pub age: Duration,
}

#[async_trait]
pub trait SharedRates: Send + Sync + 'static {
    /// The nodes that share the store, this one included. `None` when no other node can share it.
    fn nodes_that_share(&self) -> Option<u32>;

    /// Replaces what `node` has stored for these workspaces and buckets. Then reads what the other nodes have stored
    /// for them in the last minute: everything that any of them stored before this call returns is seen by this one or
    /// by that node's own read.
    async fn exchange_rates(&self, node: i64, counts: Vec<RateCounts>) -> Result<Vec<RateCounts>, StoreError>;
}
