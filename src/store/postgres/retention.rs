//! What age takes: the log, oldest first.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::id::RowKey;
use crate::store::{LogPart, StoreError};

use super::transaction::Shared;
use super::unavailable;

pub async fn remove(
    _shared: &Arc<Shared>,
    _part: LogPart,
    _age: Duration,
    _after: RowKey,
    _limit: usize,
) -> Result<Option<RowKey>, StoreError> {
    Err(unavailable("not built"))
}
