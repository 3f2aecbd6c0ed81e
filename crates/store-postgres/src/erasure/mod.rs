//! Erasures: jobs that take the content of events out of the store. `step.rs` empties rows, `files.rs` vacuums what was
//! touched.
//!
//! Writes `erasures`.

use async_trait::async_trait;
use tokio_postgres::Row;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::erasure::{Erasure, ErasureStatus, ErasureTarget, PendingDeliveries};
use postrider_domain::id::{ErasureId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::changes;
use postrider_store::{EraseError, Erasures, NewErasure, StoreError, Write, Written};

use crate::log::audit;
use crate::machinery::column::{coded, get, int, key, number, opt_instant, opt_int, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};
use crate::machinery::transaction::{WriteTx, effect};
use crate::{PostgresStore, parked_message};

mod files;
mod step;

pub use step::advance;

#[async_trait]
impl Erasures for PostgresStore {
    async fn create_erasure(&self, write: Write<Erasure>, new: NewErasure) -> Result<Written<Erasure>, EraseError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, tenant, new| create(tx, tenant, author, new))).await
    }

    async fn list_erasures(&self, tenant: Tenant, page: PageRequest) -> Result<Page<Erasure>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(list(session, tag, tenant, page))).await
    }

    async fn find_erasure(&self, tenant: Option<Tenant>, id: ErasureId) -> Result<Option<Erasure>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(async move { find(session, tag, tenant.as_ref(), id).await })).await
    }

    async fn find_event_owner(&self, id: EventId) -> Result<Option<Tenant>, StoreError> {
        if id.tag() != self.database.tag {
            return Ok(None);
        }
        self.read(move |session| {
            Box::pin(async move {
                let sql = "SELECT workspace_key, mode FROM events WHERE key = $1";
                let found = session.query_opt(sql, &[&id.key().as_i64()]).await?;
                let owner = |row| Ok(Tenant::whole(key(row, "workspace_key")?, coded(row, "mode", mode_from_code)?));
                found.as_ref().map(owner).transpose()
            })
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

async fn create(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    new: NewErasure,
) -> Result<Result<Erasure, EraseError>, PgError> {
    if matches!(new.target, ErasureTarget::Project(_)) {
        // Waits for concurrent accepts: their keys lie before this one, and the walk must not miss them.
        tx.lock_workspace(tenant.workspace).await?;
    }
    let Some(target) = find_target(tx, &tenant, &new.target).await? else { return Ok(Err(EraseError::NotFound)) };
    if let Some(event) = target.event
        && let Some(earlier) = find_of_event(tx, &tenant, event).await?
    {
        return repeat(tx, &tenant, author, new.pending, earlier).await.map(Ok);
    }
    let max = limits::ERASURES_UNFINISHED;
    let sql =
        "SELECT COUNT(*) AS count FROM (SELECT 1 FROM erasures WHERE status < 2 AND workspace_key = $1 LIMIT $2) AS e";
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let unfinished: usize = number(&tx.query_one(sql, &[&tenant.workspace.as_i64(), &limit]).await?, "count")?;
    if unfinished >= max {
        return Ok(Err(EraseError::TooMany { max }));
    }
    if let Some(project) = &target.project {
        // They are few and no event refers to them. The vacuum at the end includes them.
        parked_message::remove_of_project(tx, &tenant, project).await?;
    }
    let key = tx.next_key();
    tx.execute(
        "INSERT INTO erasures (key, workspace_key, mode, event_key, project_id, endpoint_key, pending, status)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            &key.as_i64(),
            &tenant.workspace.as_i64(),
            &mode_code(tenant.mode),
            &target.event,
            &target.project,
            &target.endpoint,
            &new.pending.code(),
            &ErasureStatus::Pending.code(),
        ],
    )
    .await?;
    let id = ErasureId::new(key, tx.tag);
    let erasure = find(tx, tx.tag, Some(&tenant), id).await?.ok_or_else(|| unexpected("erasures.key"))?;
    let started = changes::erasure_started(&erasure);
    audit::append(tx, tenant.workspace, author, AuditAction::ErasureStarted, id, &started).await?;
    Ok(Ok(erasure))
}

/// The erasure that an event has already. One that waits for deliveries cancels them if that is asked for now.
async fn repeat(
    tx: &mut WriteTx,
    tenant: &Tenant,
    author: Author,
    pending: PendingDeliveries,
    earlier: Erasure,
) -> Result<Erasure, PgError> {
    let waits = earlier.pending == PendingDeliveries::Finish && earlier.status != ErasureStatus::Erased;
    let is_own = matches!(earlier.target, ErasureTarget::Event(_));
    if pending == PendingDeliveries::Finish || !waits || !is_own {
        return Ok(earlier);
    }
    let sql = "UPDATE erasures SET pending = $2, resume_at = 0 WHERE key = $1";
    tx.execute(sql, &[&earlier.id.key().as_i64(), &pending.code()]).await?;
    let changed = changes::erasure_cancels(earlier.pending, pending);
    audit::append(tx, tenant.workspace, author, AuditAction::ErasureStarted, earlier.id, &changed).await?;
    Ok(Erasure { pending, ..earlier })
}

/// What the tenant means. A deleted endpoint has content too.
async fn find_target(tx: &WriteTx, tenant: &Tenant, target: &ErasureTarget) -> Result<Option<TargetKeys>, PgError> {
    let of_tenant = "workspace_key = $2 AND mode = $3 AND ($4::text IS NULL OR project_id = $4)";
    let (workspace, mode, project) = (tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    match target {
        ErasureTarget::Event(id) if id.tag() != tx.tag => Ok(None),
        ErasureTarget::Event(id) => {
            // Locked, so that of two requests at once the second finds the erasure of the first.
            let sql = format!("SELECT key FROM events WHERE key = $1 AND {of_tenant} FOR UPDATE");
            let found = tx.query_opt(&sql, &[&id.key().as_i64(), &workspace, &mode, &project]).await?;
            let of_event = |row| Ok(TargetKeys { event: Some(int(row, "key")?), ..TargetKeys::default() });
            found.as_ref().map(of_event).transpose()
        }
        ErasureTarget::Endpoint(id) => {
            let sql = format!("SELECT key FROM endpoints WHERE id = $1 AND {of_tenant}");
            let found = tx.query_opt(&sql, &[&id.to_string(), &workspace, &mode, &project]).await?;
            let of_endpoint = |row| Ok(TargetKeys { endpoint: Some(int(row, "key")?), ..TargetKeys::default() });
            found.as_ref().map(of_endpoint).transpose()
        }
        ErasureTarget::Project(wanted) => {
            let is_own = project.is_none_or(|project| project == wanted.as_str());
            Ok(is_own.then(|| TargetKeys { project: Some(wanted.as_str().to_owned()), ..TargetKeys::default() }))
        }
    }
}

const ERASURE_SELECT: &str =
    "SELECT r.key, r.mode, r.event_key, r.project_id, ep.id AS endpoint_id, r.pending, r.status, r.events, r.attempts,
            r.cancelled, r.answers, r.waiting, r.needs_compact, r.completed_at
     FROM erasures r LEFT JOIN endpoints ep ON ep.key = r.endpoint_key";

/// A tenant narrowed to a project sees the erasures of that project.
const IS_OF_TENANT: &str = "r.workspace_key = $1 AND r.mode = $2 AND ($3::text IS NULL OR r.project_id = $3)";

async fn find(
    session: &Session,
    tag: StoreTag,
    tenant: Option<&Tenant>,
    id: ErasureId,
) -> Result<Option<Erasure>, PgError> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!("{ERASURE_SELECT} WHERE r.key = $4 AND ($1::bigint IS NULL OR ({IS_OF_TENANT}))");
    let workspace = tenant.map(|tenant| tenant.workspace.as_i64());
    let mode = tenant.map(|tenant| mode_code(tenant.mode));
    let project = tenant.and_then(Tenant::project_text);
    let found = session.query_opt(&sql, &[&workspace, &mode, &project, &id.key().as_i64()]).await?;
    found.map(|row| erasure_from_row(&row, tag)).transpose()
}

/// The erasure of an event: its own, or the one that emptied it with its project.
async fn find_of_event(tx: &WriteTx, tenant: &Tenant, event: i64) -> Result<Option<Erasure>, PgError> {
    let own = "SELECT key FROM erasures WHERE event_key = $1";
    let of_project = "SELECT r.key FROM events e JOIN erasures r
                          ON r.workspace_key = e.workspace_key AND r.mode = e.mode AND r.project_id = e.project_id
                         AND r.key > e.key
                      WHERE e.key = $1 AND e.payload = $2 ORDER BY r.key LIMIT 1";
    let mut found = tx.query_opt(own, &[&event]).await?;
    if found.is_none() {
        found = tx.query_opt(of_project, &[&event, &PayloadState::Erased.code()]).await?;
    }
    let Some(row) = found else { return Ok(None) };
    find(tx, tx.tag, Some(tenant), ErasureId::new(key(&row, "key")?, tx.tag)).await
}

async fn list(session: &Session, tag: StoreTag, tenant: Tenant, page: PageRequest) -> Result<Page<Erasure>, PgError> {
    let sql = format!("{ERASURE_SELECT} WHERE {IS_OF_TENANT} AND r.key < $4 ORDER BY r.key DESC LIMIT $5");
    let parameters: [&dyn Parameter; 5] = [
        &tenant.workspace.as_i64(),
        &mode_code(tenant.mode),
        &tenant.project_text(),
        &page.before().as_i64(),
        &(i64::from(page.limit()) + 1),
    ];
    let rows = session.query(&sql, &parameters).await?;
    let items = rows.iter().map(|row| erasure_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |erasure| erasure.id.key()))
}

fn erasure_from_row(row: &Row, tag: StoreTag) -> Result<Erasure, PgError> {
    let event = opt_int(row, "event_key")?;
    let target = match (event, get::<Option<&str>>(row, "project_id")?) {
        (Some(event), _) => ErasureTarget::Event(EventId::new(RowKey::from_i64(event), tag)),
        (None, Some(project)) => {
            ErasureTarget::Project(ProjectId::parse(project).map_err(|_| unexpected("erasures.project_id"))?)
        }
        (None, None) => ErasureTarget::Endpoint(parsed(row, "endpoint_id")?),
    };
    Ok(Erasure {
        id: ErasureId::new(key(row, "key")?, tag),
        target,
        mode: coded(row, "mode", mode_from_code)?,
        pending: coded(row, "pending", PendingDeliveries::from_code)?,
        status: coded(row, "status", ErasureStatus::from_code)?,
        events: number(row, "events")?,
        attempts: number(row, "attempts")?,
        cancelled: number(row, "cancelled")?,
        answers: number(row, "answers")?,
        waiting: number(row, "waiting")?,
        needs_compact: get(row, "needs_compact")?,
        completed_at: opt_instant(row, "completed_at")?,
    })
}
