//! How endpoints do, written as outcomes are recorded. The only file that writes `endpoint_health`.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::health::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub const HEALTH_COLUMNS: &str = "first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at";

pub async fn forget(_tx: &mut WriteTx, _endpoint_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn forget_workspace(_tx: &mut WriteTx, _workspace_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn trouble(_tx: &mut WriteTx, _endpoint_key: RowKey) -> Result<Option<Trouble>, PgError> {
    Err(PgError::Unavailable("not built"))
}

/// Reads [`HEALTH_COLUMNS`], which are empty for an endpoint without trouble.
pub fn trouble_from_row(row: &tokio_postgres::Row) -> Result<Option<Trouble>, PgError> {
    use super::column::{get, number, opt_instant};
    let Some(first_failure_at) = opt_instant(row, "first_failure_at")? else { return Ok(None) };
    let pause = match (opt_instant(row, "paused_since")?, opt_instant(row, "next_probe_at")?) {
        (Some(since), Some(next_probe_at)) => {
            Some(Pause { since, failed_probes: number(row, "failed_probes")?, next_probe_at })
        }
        _ => None,
    };
    Ok(Some(Trouble { first_failure_at, failures: number(row, "failures")?, pause, warned: get(row, "warned")? }))
}
