//! Request counts stay in the memory of the one process that has the file open.

use async_trait::async_trait;

use postrider_store::{RateCounts, SharedRates, StoreError};

use crate::SqliteStore;

#[async_trait]
impl SharedRates for SqliteStore {
    fn nodes_that_share(&self) -> Option<u32> {
        None
    }

    async fn exchange_rates(&self, _node: i64, _counts: Vec<RateCounts>) -> Result<Vec<RateCounts>, StoreError> {
        Ok(Vec::new())
    }
}
