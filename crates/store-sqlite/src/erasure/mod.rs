//! Erasures: jobs that take the content of events out of the store. `step.rs` empties rows, `files.rs` makes their
//! bytes go from the files.
//!
//! Writes `erasures`.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::erasure::{Erasure, ErasureStatus, ErasureTarget, PendingDeliveries};
use postrider_domain::id::{ErasureId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::erasure::OLD_FILE;
use postrider_store::log::changes;
use postrider_store::{EraseError, Erasures, NewErasure, StoreError, Write, Written};

use crate::log::audit;
use crate::machinery::column::{coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};
use crate::{SqliteStore, parked_message};

mod files;
mod step;

pub use step::advance;

#[async_trait]
impl Erasures for SqliteStore {
    async fn create_erasure(&self, write: Write<Erasure>, new: NewErasure) -> Result<Written<Erasure>, EraseError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| create(tx, &write.tenant, write.author, &new))
            .await
    }

    async fn list_erasures(&self, tenant: Tenant, page: PageRequest) -> Result<Page<Erasure>, StoreError> {
        self.read(move |tx| list(tx, &tenant, page)).await
    }

    async fn find_erasure(&self, tenant: Option<Tenant>, id: ErasureId) -> Result<Option<Erasure>, StoreError> {
        self.read(move |tx| find(tx, tenant.as_ref(), id)).await
    }

    async fn find_event_owner(&self, id: EventId) -> Result<Option<Tenant>, StoreError> {
        self.read(move |tx| {
            if id.tag() != tx.tag {
                return Ok(None);
            }
            tx.connection
                .prepare_cached("SELECT workspace_key, mode FROM events WHERE key = ?1")?
                .query_row([id.key().as_i64()], |row| {
                    let workspace = RowKey::from_i64(row.get("workspace_key")?);
                    Ok(Tenant::whole(workspace, coded(row, "mode", mode_from_code)?))
                })
                .optional()
        })
        .await
    }
}

/// The columns that say what an erasure empties.
#[derive(Default)]
struct TargetKeys {
    event: Option<i64>,
    project: Option<String>,
    endpoint: Option<i64>,
}

/// Whether an older version wrote the file and nobody has rewritten it since. A file that was rewritten gives back its
/// free pages, which an old one cannot.
const NEEDS_COMPACT: &str =
    "EXISTS (SELECT 1 FROM meta WHERE name = ?9) AND (SELECT auto_vacuum FROM pragma_auto_vacuum) = 0";

fn create(tx: &mut WriteTx<'_>, tenant: &Tenant, author: Author, new: &NewErasure) -> WriteResult<Erasure, EraseError> {
    let Some(target) = find_target(tx.as_read(), tenant, &new.target)? else { return Ok(Err(EraseError::NotFound)) };
    if let Some(event) = target.event
        && let Some(earlier) = find_of_event(tx.as_read(), tenant, event)?
    {
        return Ok(Ok(repeat(tx, tenant, author, new.pending, earlier)?));
    }
    let max = limits::ERASURES_UNFINISHED;
    if count_unfinished(tx.connection, tenant.workspace, max)? >= max {
        return Ok(Err(EraseError::TooMany { max }));
    }
    if let Some(project) = &target.project {
        // They are few and no event refers to them. The work on the files comes later and includes them.
        parked_message::remove_of_project(tx, tenant, project)?;
    }
    let key = tx.next_key();
    tx.connection
        .prepare_cached(&format!(
            "INSERT INTO erasures (key, workspace_key, mode, event_key, project_id, endpoint_key, pending, status,
                                   needs_compact)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, {NEEDS_COMPACT})"
        ))?
        .execute(params![
            key.as_i64(),
            tenant.workspace.as_i64(),
            mode_code(tenant.mode),
            target.event,
            target.project,
            target.endpoint,
            new.pending.code(),
            ErasureStatus::Pending.code(),
            OLD_FILE,
        ])?;
    let id = ErasureId::new(key, tx.tag);
    let erasure = find(tx.as_read(), Some(tenant), id)?.ok_or_else(|| unexpected("erasures.key"))?;
    let started = changes::erasure_started(&erasure);
    audit::append(tx, tenant.workspace, author, AuditAction::ErasureStarted, id, &started)?;
    Ok(Ok(erasure))
}

/// The erasure that an event has already. One that waits for deliveries cancels them if that is asked for now.
fn repeat(
    tx: &mut WriteTx<'_>,
    tenant: &Tenant,
    author: Author,
    pending: PendingDeliveries,
    earlier: Erasure,
) -> Result<Erasure, rusqlite::Error> {
    let waits = earlier.pending == PendingDeliveries::Finish && earlier.status != ErasureStatus::Erased;
    let is_own = matches!(earlier.target, ErasureTarget::Event(_));
    if pending == PendingDeliveries::Finish || !waits || !is_own {
        return Ok(earlier);
    }
    tx.connection
        .prepare_cached("UPDATE erasures SET pending = ?2, resume_at = 0 WHERE key = ?1")?
        .execute([earlier.id.key().as_i64(), pending.code()])?;
    let changed = changes::erasure_cancels(earlier.pending, pending);
    audit::append(tx, tenant.workspace, author, AuditAction::ErasureStarted, earlier.id, &changed)?;
    Ok(Erasure { pending, ..earlier })
}

/// What the tenant means. A deleted endpoint has content too.
fn find_target(tx: ReadTx<'_>, tenant: &Tenant, target: &ErasureTarget) -> Result<Option<TargetKeys>, rusqlite::Error> {
    let of_tenant = "workspace_key = ?2 AND mode = ?3 AND (?4 IS NULL OR project_id = ?4)";
    let (workspace, mode, project) = (tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    match target {
        ErasureTarget::Event(id) if id.tag() != tx.tag => Ok(None),
        ErasureTarget::Event(id) => tx
            .connection
            .prepare_cached(&format!("SELECT key FROM events WHERE key = ?1 AND {of_tenant}"))?
            .query_row(params![id.key().as_i64(), workspace, mode, project], |row| {
                Ok(TargetKeys { event: Some(row.get(0)?), ..TargetKeys::default() })
            })
            .optional(),
        ErasureTarget::Endpoint(id) => tx
            .connection
            .prepare_cached(&format!("SELECT key FROM endpoints WHERE id = ?1 AND {of_tenant}"))?
            .query_row(params![id.to_string(), workspace, mode, project], |row| {
                Ok(TargetKeys { endpoint: Some(row.get(0)?), ..TargetKeys::default() })
            })
            .optional(),
        ErasureTarget::Project(wanted) => {
            let is_own = project.is_none_or(|project| project == wanted.as_str());
            Ok(is_own.then(|| TargetKeys { project: Some(wanted.as_str().to_owned()), ..TargetKeys::default() }))
        }
    }
}

fn count_unfinished(connection: &Connection, workspace: RowKey, max: usize) -> Result<usize, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT COUNT(*) FROM (SELECT 1 FROM erasures INDEXED BY erasures_running
                                   WHERE status < 2 AND workspace_key = ?1 LIMIT ?2)",
        )?
        .query_row(params![workspace.as_i64(), max], |row| row.get(0))
}

const ERASURE_SELECT: &str =
    "SELECT r.key, r.mode, r.event_key, r.project_id, ep.id AS endpoint_id, r.pending, r.status, r.events, r.attempts,
            r.cancelled, r.answers, r.waiting, r.needs_compact, r.completed_at
     FROM erasures r LEFT JOIN endpoints ep ON ep.key = r.endpoint_key";

/// A tenant narrowed to a project sees the erasures of that project.
const IS_OF_TENANT: &str = "r.workspace_key = ?1 AND r.mode = ?2 AND (?3 IS NULL OR r.project_id = ?3)";

fn find(tx: ReadTx<'_>, tenant: Option<&Tenant>, id: ErasureId) -> Result<Option<Erasure>, rusqlite::Error> {
    if id.tag() != tx.tag {
        return Ok(None);
    }
    let workspace = tenant.map(|tenant| tenant.workspace.as_i64());
    let mode = tenant.map(|tenant| mode_code(tenant.mode));
    let project = tenant.and_then(Tenant::project_text);
    tx.connection
        .prepare_cached(&format!("{ERASURE_SELECT} WHERE r.key = ?4 AND (?1 IS NULL OR ({IS_OF_TENANT}))"))?
        .query_row(params![workspace, mode, project, id.key().as_i64()], |row| erasure_from_row(row, tx.tag))
        .optional()
}

/// The erasure of an event: its own, or the one that emptied it with its project.
fn find_of_event(tx: ReadTx<'_>, tenant: &Tenant, event: i64) -> Result<Option<Erasure>, rusqlite::Error> {
    let own = "SELECT key FROM erasures WHERE event_key = ?1";
    let of_project = "SELECT r.key FROM events e JOIN erasures r INDEXED BY erasures_by_project
                          ON r.workspace_key = e.workspace_key AND r.mode = e.mode AND r.project_id = e.project_id
                         AND r.key > e.key
                      WHERE e.key = ?1 AND e.payload = ?2 ORDER BY r.key LIMIT 1";
    let mut found: Option<i64> = tx.connection.prepare_cached(own)?.query_row([event], |row| row.get(0)).optional()?;
    if found.is_none() {
        let parameters = [event, PayloadState::Erased.code()];
        found = tx.connection.prepare_cached(of_project)?.query_row(parameters, |row| row.get(0)).optional()?;
    }
    let Some(key) = found else { return Ok(None) };
    find(tx, Some(tenant), ErasureId::new(RowKey::from_i64(key), tx.tag))
}

fn list(tx: ReadTx<'_>, tenant: &Tenant, page: PageRequest) -> Result<Page<Erasure>, rusqlite::Error> {
    let items = tx
        .connection
        .prepare_cached(&format!("{ERASURE_SELECT} WHERE {IS_OF_TENANT} AND r.key < ?4 ORDER BY r.key DESC LIMIT ?5"))?
        .query_map(
            params![
                tenant.workspace.as_i64(),
                mode_code(tenant.mode),
                tenant.project_text(),
                page.before().as_i64(),
                page.limit() + 1,
            ],
            |row| erasure_from_row(row, tx.tag),
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |erasure| erasure.id.key()))
}

fn erasure_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Erasure, rusqlite::Error> {
    let event: Option<i64> = row.get("event_key")?;
    let target = match (event, row.get_ref("project_id")?.as_str_or_null()?) {
        (Some(event), _) => ErasureTarget::Event(EventId::new(RowKey::from_i64(event), tag)),
        (None, Some(project)) => {
            ErasureTarget::Project(ProjectId::parse(project).map_err(|_| unexpected("erasures.project_id"))?)
        }
        (None, None) => ErasureTarget::Endpoint(parsed(row, "endpoint_id")?),
    };
    Ok(Erasure {
        id: ErasureId::new(RowKey::from_i64(row.get("key")?), tag),
        target,
        mode: coded(row, "mode", mode_from_code)?,
        pending: coded(row, "pending", PendingDeliveries::from_code)?,
        status: coded(row, "status", ErasureStatus::from_code)?,
        events: row.get("events")?,
        attempts: row.get("attempts")?,
        cancelled: row.get("cancelled")?,
        answers: row.get("answers")?,
        waiting: row.get("waiting")?,
        needs_compact: row.get("needs_compact")?,
        completed_at: row.get::<_, Option<i64>>("completed_at")?.map(Timestamp::from_millis),
    })
}
