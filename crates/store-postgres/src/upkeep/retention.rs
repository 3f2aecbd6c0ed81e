//! Retention: removes old rows of the log, oldest first. Deletes from `deliveries`, `attempts`, `events` and
//! `publish_keys`, and re-inserts kept rows of a dropped day.
//!
//! A delivery is removed when it has ended and is old enough. An event is removed when it is old enough and has no
//! delivery left. So a delivery that can still be sent or shown keeps its payload.
//!
//! The walk follows the row keys. A day that is old as a whole is dropped in one short transaction, after the rows that
//! must stay have been moved to the default partition. All other rows are removed one by one, in bounded steps: the
//! rows of the default partition, and those of the day that is old only in part. A day that cannot be dropped now is
//! skipped until the next walk.
//!
//! Differs from SQLite: it has no partitions, so it has no days to drop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Row;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::id::RowKey;
use postrider_domain::time::Day;
use postrider_store::stored_bytes::{ATTEMPT_BYTES, CountedPart};
use postrider_store::{AgedStep, LogPart, Removed, StoreError};

use crate::machinery::column::{get, int, number};
use crate::machinery::fault::{PgError, store_error};
use crate::machinery::partition::{SHORT_LOCK_TIMEOUT, days_of, is_lock_conflict, key_of, keys_of, name_of};
use crate::machinery::session::Session;
use crate::machinery::transaction::{Database, WriteTx};
use crate::stored_bytes::{self, removed};

/// Rows of a day moved at most. The log is locked meanwhile, for some seconds.
const MOVED_MAX: usize = 100_000;
/// `externalId`s of a day deleted in one transaction.
const PUBLISH_KEYS_PER_STEP: i64 = 5_000;

/// Looks at the next rows older than `step.age` and removes those that may go, and every day that is that old as a
/// whole.
pub async fn remove(database: &Arc<Database>, step: AgedStep) -> Result<Removed, StoreError> {
    let AgedStep { part, age, mut after, limit: mut left } = step;
    let mut rows = 0;
    loop {
        let removed = database
            .write(move |tx| {
                let before = RowKey::first_at(tx.now.minus(age));
                Box::pin(async move { remove_rows(tx, part, before, after, left).await })
            })
            .await?;
        rows += removed.gone;
        if removed.looked_at == left {
            return Ok(Removed { rows, next: removed.last });
        }
        left -= removed.looked_at;
        let Some(old) = removed.old_day else { return Ok(Removed { rows, next: None }) };
        let (first, end) = keys_of(old.day);
        let passed = RowKey::from_i64(end.as_i64() - 1);
        match drop_day(database, part, &old).await.map_err(store_error)? {
            DayDrop::Dropped { rows: dropped } => {
                rows += dropped;
                after = passed;
            }
            DayDrop::Kept => after = passed,
            DayDrop::InProgress => return Ok(Removed { rows, next: Some(RowKey::from_i64(first.as_i64() - 1)) }),
            // Other tables may be locked too. One wait per step is enough.
            DayDrop::Locked => return Ok(Removed { rows, next: Some(passed) }),
        }
    }
}

/// A day that is old as a whole.
struct OldDay {
    day: Day,
    /// The tables with a partition for it.
    tables: BTreeSet<&'static str>,
    /// All tables of the part have one: no row needs to be removed one by one.
    is_whole: bool,
}

/// The rows removed up to the next old day, or to the end.
struct RemovedRows {
    looked_at: usize,
    gone: u64,
    last: Option<RowKey>,
    old_day: Option<OldDay>,
}

async fn remove_rows(
    tx: &WriteTx,
    part: LogPart,
    before: RowKey,
    after: RowKey,
    limit: usize,
) -> Result<RemovedRows, PgError> {
    let old_day = next_old_day(tx, part, before, after).await?;
    let until = match &old_day {
        Some(old) if old.is_whole => keys_of(old.day).0,
        Some(old) => keys_of(old.day).1,
        None => before,
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    read_in_key_order(tx).await?;
    let (looked_at, gone) = match part {
        LogPart::Deliveries => remove_deliveries(tx, until, after, limit).await?,
        LogPart::Events => remove_events(tx, until, after, limit).await?,
    };
    let last = looked_at.last().copied().map(RowKey::from_i64);
    Ok(RemovedRows { looked_at: looked_at.len(), gone, last, old_day })
}

/// Makes a step read its rows in index order and stop at the limit, however few rows the planner expects.
pub(super) async fn read_in_key_order(tx: &WriteTx) -> Result<(), PgError> {
    tx.batch("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off").await
}

/// The first day that ends after `after` and not after `before`.
async fn next_old_day(
    session: &Session,
    part: LogPart,
    before: RowKey,
    after: RowKey,
) -> Result<Option<OldDay>, PgError> {
    let tables = tables_of(part);
    let mut old: BTreeMap<Day, BTreeSet<&'static str>> = BTreeMap::new();
    for table in tables {
        for day in days_of(session, table).await? {
            let (_, end) = keys_of(day);
            if end <= before && end.as_i64() - 1 > after.as_i64() {
                old.entry(day).or_default().insert(table);
            }
        }
    }
    let first = old.pop_first();
    Ok(first.map(|(day, found)| OldDay { day, is_whole: found.len() == tables.len(), tables: found }))
}

/// The tables of a part, in the order in which they are locked.
const fn tables_of(part: LogPart) -> &'static [&'static str] {
    match part {
        LogPart::Deliveries => &["attempts", "deliveries"],
        LogPart::Events => &["events"],
    }
}

/// Removes deliveries with their attempts. Keeps pending ones, and one at which a strict order has stopped. Returns the
/// rows looked at, and how many of them are gone.
async fn remove_deliveries(
    tx: &WriteTx,
    before: RowKey,
    after: RowKey,
    limit: i64,
) -> Result<(Vec<i64>, u64), PgError> {
    let rows = tx
        .query(
            "SELECT key, status <> $4 AND NOT EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = deliveries.key)
                 AS can_go
             FROM deliveries WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3",
            &[&after.as_i64(), &before.as_i64(), &limit, &DeliveryStatus::Pending.code()],
        )
        .await?;
    let (mut looked_at, mut gone) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let key = int(row, "key")?;
        looked_at.push(key);
        if get(row, "can_go")? {
            gone.push(key);
        }
    }
    if !gone.is_empty() {
        count_removed_attempts(tx, &gone).await?;
        tx.execute("DELETE FROM attempts WHERE delivery_key = ANY ($1)", &[&gone]).await?;
        tx.execute("DELETE FROM deliveries WHERE key = ANY ($1)", &[&gone]).await?;
    }
    Ok((looked_at, gone.len() as u64))
}

/// Counts the bytes of the attempts at these deliveries as removed. Call it before they are.
pub(super) async fn count_removed_attempts(tx: &WriteTx, deliveries: &Vec<i64>) -> Result<(), PgError> {
    if tx.database.stored.max.get().is_none() {
        return Ok(());
    }
    let sql = format!(
        "SELECT key, workspace_key, SUM({ATTEMPT_BYTES})::bigint AS bytes
         FROM deliveries JOIN attempts ON delivery_key = key WHERE key = ANY ($1) GROUP BY key, workspace_key"
    );
    let rows = tx.query(&sql, &[deliveries]).await?;
    stored_bytes::count(tx, CountedPart::Attempts, removed(&rows)?.into_iter()).await
}

/// Removes events that no delivery refers to, with their `externalId`s, which may then be published again. Returns the
/// rows looked at, and how many of them are gone.
async fn remove_events(tx: &WriteTx, before: RowKey, after: RowKey, limit: i64) -> Result<(Vec<i64>, u64), PgError> {
    let rows = tx
        .query(
            "SELECT key FROM events WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3",
            &[&after.as_i64(), &before.as_i64(), &limit],
        )
        .await?;
    let looked_at = keys_from(&rows)?;
    let unreferred = without_referred(tx, looked_at.clone()).await?;
    if unreferred.is_empty() {
        return Ok((looked_at, 0));
    }
    // A concurrent transaction may enqueue one of them again. It locks the event first, so lock and then check again.
    let locked =
        tx.query("SELECT key FROM events WHERE key = ANY ($1) ORDER BY key FOR UPDATE", &[&unreferred]).await?;
    let gone = without_referred(tx, keys_from(&locked)?).await?;
    tx.execute("DELETE FROM publish_keys WHERE event_key = ANY ($1)", &[&gone]).await?;
    let sql = "DELETE FROM events WHERE key = ANY ($1)
               RETURNING key, workspace_key, octet_length(envelope)::bigint AS bytes";
    let rows = tx.query(sql, &[&gone]).await?;
    stored_bytes::count(tx, CountedPart::Events, removed(&rows)?.into_iter()).await?;
    Ok((looked_at, gone.len() as u64))
}

/// The events among these that no delivery refers to. `events` must be sorted.
async fn without_referred(session: &Session, events: Vec<i64>) -> Result<Vec<i64>, PgError> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(events) };
    let sql = "SELECT DISTINCT event_key AS key FROM deliveries WHERE event_key >= $1 AND event_key <= $2";
    let referred: BTreeSet<i64> = keys_from(&session.query(sql, &[first, last]).await?)?.into_iter().collect();
    Ok(events.into_iter().filter(|key| !referred.contains(key)).collect())
}

pub(super) fn keys_from(rows: &[Row]) -> Result<Vec<i64>, PgError> {
    rows.iter().map(|row| int(row, "key")).collect()
}

/// The result of the attempt to drop an old day.
enum DayDrop {
    /// About so many rows are gone.
    Dropped { rows: u64 },
    /// More `externalId`s must be deleted first.
    InProgress,
    /// The day stays for now.
    Kept,
    /// Another transaction holds a lock.
    Locked,
}

async fn drop_day(database: &Arc<Database>, part: LogPart, old: &OldDay) -> Result<DayDrop, PgError> {
    let mut tx = WriteTx::begin(database).await?;
    match drop_day_in(&mut tx, part, old).await {
        Ok(outcome @ (DayDrop::Dropped { .. } | DayDrop::InProgress)) => {
            tx.commit().await?;
            Ok(outcome)
        }
        Ok(outcome) => {
            tx.roll_back().await;
            Ok(outcome)
        }
        Err(error) => {
            tx.roll_back().await;
            if !is_lock_conflict(&error) {
                return Err(error);
            }
            tracing::debug!(day = %old.day, ?part, "cannot drop an old day of the log yet: its table is locked");
            Ok(DayDrop::Locked)
        }
    }
}

async fn drop_day_in(tx: &mut WriteTx, part: LogPart, old: &OldDay) -> Result<DayDrop, PgError> {
    if part == LogPart::Events && has_deliveries(tx, old.day).await? {
        return Ok(DayDrop::Kept);
    }
    // First without a lock, so that the lock below is taken only when it will be held briefly.
    let Some(kept) = kept_of(tx, part, old).await? else { return Ok(DayDrop::Kept) };
    if part == LogPart::Events && forget_publish_keys(tx, old.day, &kept).await? == PUBLISH_KEYS_PER_STEP.unsigned_abs()
    {
        return Ok(DayDrop::InProgress);
    }
    tx.batch(SHORT_LOCK_TIMEOUT).await?;
    for table in &old.tables {
        tx.batch(&format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")).await?;
        if !days_of(tx, table).await?.contains(&old.day) {
            // Another node has dropped it.
            return Ok(DayDrop::Kept);
        }
    }
    let Some(kept) = kept_of(tx, part, old).await? else { return Ok(DayDrop::Kept) };
    let first_table = if part == LogPart::Events { "events" } else { "deliveries" };
    let rows = about_rows_of(tx, first_table, old.day).await?.saturating_sub(kept.len() as u64);
    for table in &old.tables {
        replace(tx, table, old.day, &kept).await?;
    }
    if old.is_whole {
        let counted = if part == LogPart::Events { CountedPart::Events } else { CountedPart::Attempts };
        stored_bytes::count_kept(tx, counted, keys_of(old.day).0, &kept).await?;
    }
    tracing::info!(day = %old.day, ?part, rows_kept = kept.len(), "dropped an old day of the log");
    Ok(DayDrop::Dropped { rows })
}

/// The number of rows of a day, as the last vacuum of its partition estimated it.
async fn about_rows_of(session: &Session, table: &str, day: Day) -> Result<u64, PgError> {
    let sql = "SELECT COALESCE(MAX(GREATEST(reltuples, 0)), 0)::bigint AS rows FROM pg_class
               WHERE oid = to_regclass($1::text)";
    number(&session.query_one(sql, &[&name_of(table, day)]).await?, "rows")
}

/// Whether the deliveries of a day still have a partition.
async fn has_deliveries(session: &Session, day: Day) -> Result<bool, PgError> {
    for table in tables_of(LogPart::Deliveries) {
        if days_of(session, table).await?.contains(&day) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys of the rows of an old day that stay. `None` if there are too many to move.
async fn kept_of(session: &Session, part: LogPart, old: &OldDay) -> Result<Option<Vec<i64>>, PgError> {
    let kept = match part {
        // A pending delivery has a row in the queue.
        LogPart::Deliveries if old.is_whole => {
            "SELECT delivery_key AS key FROM due WHERE delivery_key >= $1 AND delivery_key < $2
             UNION SELECT blocked_by FROM ordered_lanes WHERE blocked_by >= $1 AND blocked_by < $2"
        }
        // The others have already been removed one by one.
        LogPart::Deliveries => "SELECT key FROM deliveries WHERE key >= $1 AND key < $2",
        LogPart::Events => {
            "SELECT event_key AS key FROM deliveries WHERE event_key >= $1 AND event_key < $2
             UNION SELECT event_key FROM due WHERE event_key >= $1 AND event_key < $2"
        }
    };
    let (first, end) = keys_of(old.day);
    let limit = i64::try_from(MOVED_MAX + 1).unwrap_or(i64::MAX);
    let sql = format!("SELECT key FROM ({kept}) AS kept LIMIT $3");
    let kept = keys_from(&session.query(&sql, &[&first.as_i64(), &end.as_i64(), &limit]).await?)?;
    if kept.len() > MOVED_MAX {
        tracing::warn!(day = %old.day, ?part, rows_max = MOVED_MAX, "an old day of the log is not dropped: too many of its rows must stay");
        return Ok(None);
    }
    Ok(Some(kept))
}

/// Deletes up to [`PUBLISH_KEYS_PER_STEP`] `externalId`s of a day's events, except of events that stay. Returns how
/// many.
async fn forget_publish_keys(tx: &WriteTx, day: Day, kept: &Vec<i64>) -> Result<u64, PgError> {
    let (first, end) = keys_of(day);
    // Without a hash join, each row would be compared with all kept keys.
    tx.batch("SET LOCAL enable_hashjoin = on").await?;
    tx.execute(
        "DELETE FROM publish_keys WHERE ctid = ANY (ARRAY (
             SELECT p.ctid FROM publish_keys p
             WHERE p.event_key >= $1 AND p.event_key < $2
               AND NOT EXISTS (SELECT 1 FROM unnest($3) AS kept (key) WHERE kept.key = p.event_key)
             LIMIT $4))",
        &[&first.as_i64(), &end.as_i64(), kept, &PUBLISH_KEYS_PER_STEP],
    )
    .await
}

/// Drops a day's partition. Inserts its kept rows again, which then go to the default partition.
async fn replace(tx: &WriteTx, table: &str, day: Day, kept: &Vec<i64>) -> Result<(), PgError> {
    let partition = name_of(table, day);
    tx.batch(&format!("ALTER TABLE {table} DETACH PARTITION {partition}")).await?;
    if !kept.is_empty() {
        let (columns, key) = (columns_of(tx, table).await?, key_of(table));
        let sql = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {partition} WHERE {key} = ANY ($1)");
        tx.execute(&sql, &[kept]).await?;
    }
    tx.batch(&format!("DROP TABLE {partition}")).await
}

/// The columns of a table, without generated ones.
async fn columns_of(session: &Session, table: &str) -> Result<String, PgError> {
    let sql = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns FROM pg_attribute
               WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
    get(&session.query_one(sql, &[&table]).await?, "columns")
}
