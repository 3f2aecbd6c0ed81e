//! A server on a restored copy sends nothing until its operator says that the copy is the only one.
//!
//! The original may still run: both would deliver the same queue. So the copy is marked in the store, and the mark
//! stays over restarts. Only the operator can know that the original is gone.

use postrider_domain::time::Timestamp;
use postrider_store::backup::RESTORED_COPY;
use postrider_store::sealing::FactChange;
use postrider_store::{Store, StoreError};

use crate::error::ServiceError;
use crate::operator::Operator;
use crate::service::Service;

/// Reads the mark, and removes it if the store is the only one. Returns whether the store is still marked.
///
/// # Errors
/// When the store fails.
pub async fn settle_restored_copy(store: &dyn Store, is_the_only_one: bool) -> Result<bool, StoreError> {
    let Some(mark) = store.meta(RESTORED_COPY).await? else { return Ok(false) };
    if !is_the_only_one {
        return Ok(true);
    }
    let removal = FactChange { name: RESTORED_COPY, from: Some(mark), to: None };
    // Another node may have removed it meanwhile.
    store.change_facts_if_unchanged(vec![removal]).await?;
    Ok(false)
}

impl Service {
    /// Whether the store is a copy of another one, so that nothing is sent.
    pub fn is_restored_copy(&self) -> bool {
        self.is_restored_copy
    }

    /// # Errors
    /// When nothing is sent, so that nothing may be accepted that would be.
    pub(crate) fn check_sends(&self) -> Result<(), ServiceError> {
        if self.is_restored_copy { Err(ServiceError::RestoredCopy) } else { Ok(()) }
    }
}

impl Operator {
    /// As [`Service::is_restored_copy`].
    pub fn is_restored_copy(&self) -> bool {
        self.service.is_restored_copy()
    }

    /// Marks the store as a copy of another one. Servers that are started from now on send nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn mark_restored_copy(&self, now: Timestamp) -> Result<(), StoreError> {
        self.store.meta_or_insert(RESTORED_COPY, now.millis().to_be_bytes().to_vec()).await.map(drop)
    }
}
