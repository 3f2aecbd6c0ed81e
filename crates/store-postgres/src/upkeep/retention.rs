//! What age takes: the log, oldest first.
//!
//! Deliveries go when they are over and old enough; an event goes when it is old enough and no delivery of it is left, so
//! whatever is still to be sent, or shown, keeps its payload.
//!
//! The walk goes by row keys. It comes through days that are old as a whole: such a day is dropped with all its rows, in one
//! short transaction, once what must stay was moved to the default partition. Everything else is removed row by row, a bounded
//! step at a time: what lies in the default partition, and the day that is old in part. A day that cannot be dropped now is
//! passed over; the next walk comes by again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Row;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::id::RowKey;
use postrider_domain::time::Day;
use postrider_store::{AgedStep, LogPart, StoreError};

use crate::machinery::column::{get, int};
use crate::machinery::fault::{PgError, store_error};
use crate::machinery::partition::{LOCK_PATIENCE, days_of, key_of, keys_of, name_of, stood_in_the_way};
use crate::machinery::session::Session;
use crate::machinery::transaction::{Database, WriteTx};

/// Rows of a day that are moved at most, while nobody can use the log: some seconds.
const MOVED_MAX: usize = 100_000;
/// `externalId`s of a day forgotten in one transaction.
const PUBLISH_KEYS_PER_STEP: i64 = 5_000;

/// Looks at the next rows older than `step.age` and removes those that may go, and every day that is that old as a whole. Returns where
/// the next step begins.
pub async fn remove(database: &Arc<Database>, step: AgedStep) -> Result<Option<RowKey>, StoreError> {
    let AgedStep { part, age, mut after, limit: mut left } = step;
    loop {
        let stretch = database
            .write(move |tx| {
                let before = RowKey::first_at(tx.now.minus(age));
                Box::pin(async move { remove_rows(tx, part, before, after, left).await })
            })
            .await?;
        if stretch.looked_at == left {
            return Ok(stretch.last);
        }
        left -= stretch.looked_at;
        let Some(old) = stretch.old_day else { return Ok(None) };
        let (first, end) = keys_of(old.day);
        let passed = RowKey::from_i64(end.as_i64() - 1);
        match drop_day(database, part, &old).await.map_err(store_error)? {
            Dropping::Done | Dropping::Left => after = passed,
            Dropping::UnderWay => return Ok(Some(RowKey::from_i64(first.as_i64() - 1))),
            // Others may be in use too: one wait is enough for one step.
            Dropping::InUse => return Ok(Some(passed)),
        }
    }
}

/// A day that is old as a whole.
struct OldDay {
    day: Day,
    /// The tables that have a partition for it.
    tables: BTreeSet<&'static str>,
    /// All that belongs together has a partition: then nothing of it needs to be removed row by row.
    is_whole: bool,
}

/// The rows up to the next old day, or to the end.
struct Stretch {
    looked_at: usize,
    last: Option<RowKey>,
    old_day: Option<OldDay>,
}

async fn remove_rows(
    tx: &WriteTx,
    part: LogPart,
    before: RowKey,
    after: RowKey,
    limit: usize,
) -> Result<Stretch, PgError> {
    let old_day = next_old_day(tx, part, before, after).await?;
    let until = match &old_day {
        Some(old) if old.is_whole => keys_of(old.day).0,
        Some(old) => keys_of(old.day).1,
        None => before,
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // A step reads its rows in the order of the index and stops, however few the planner takes them for.
    tx.batch("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off").await?;
    let looked_at = match part {
        LogPart::Deliveries => remove_deliveries(tx, until, after, limit).await?,
        LogPart::Events => remove_events(tx, until, after, limit).await?,
    };
    let last = looked_at.last().copied().map(RowKey::from_i64);
    Ok(Stretch { looked_at: looked_at.len(), last, old_day })
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

/// In the order in which they are locked.
const fn tables_of(part: LogPart) -> &'static [&'static str] {
    match part {
        LogPart::Deliveries => &["attempts", "deliveries"],
        LogPart::Events => &["events"],
    }
}

/// Removes deliveries with their attempts. One that is pending stays, and one at which an order has stopped until someone has
/// decided. Returns the rows looked at.
async fn remove_deliveries(tx: &WriteTx, before: RowKey, after: RowKey, limit: i64) -> Result<Vec<i64>, PgError> {
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
        tx.execute("DELETE FROM attempts WHERE delivery_key = ANY ($1)", &[&gone]).await?;
        tx.execute("DELETE FROM deliveries WHERE key = ANY ($1)", &[&gone]).await?;
    }
    Ok(looked_at)
}

/// Removes events that no delivery refers to. With an event goes its `externalId`, which may then be published again. Returns
/// the rows looked at.
async fn remove_events(tx: &WriteTx, before: RowKey, after: RowKey, limit: i64) -> Result<Vec<i64>, PgError> {
    let rows = tx
        .query(
            "SELECT key FROM events WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3",
            &[&after.as_i64(), &before.as_i64(), &limit],
        )
        .await?;
    let looked_at = keys_from(&rows)?;
    let unreferred = without_referred(tx, looked_at.clone()).await?;
    if unreferred.is_empty() {
        return Ok(looked_at);
    }
    // Someone may be about to send one of them once more. Who has it locked is waited for, then it is looked at anew.
    let locked =
        tx.query("SELECT key FROM events WHERE key = ANY ($1) ORDER BY key FOR UPDATE", &[&unreferred]).await?;
    let gone = without_referred(tx, keys_from(&locked)?).await?;
    tx.execute("DELETE FROM publish_keys WHERE event_key = ANY ($1)", &[&gone]).await?;
    tx.execute("DELETE FROM events WHERE key = ANY ($1)", &[&gone]).await?;
    Ok(looked_at)
}

/// Those of these events, which are in order, that no delivery refers to.
async fn without_referred(session: &Session, events: Vec<i64>) -> Result<Vec<i64>, PgError> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(events) };
    let sql = "SELECT DISTINCT event_key AS key FROM deliveries WHERE event_key >= $1 AND event_key <= $2";
    let referred: BTreeSet<i64> = keys_from(&session.query(sql, &[first, last]).await?)?.into_iter().collect();
    Ok(events.into_iter().filter(|key| !referred.contains(key)).collect())
}

fn keys_from(rows: &[Row]) -> Result<Vec<i64>, PgError> {
    rows.iter().map(|row| int(row, "key")).collect()
}

/// What came of an old day.
enum Dropping {
    Done,
    /// There is more to be done before.
    UnderWay,
    /// It stays for now.
    Left,
    /// Somebody else's lock was in the way.
    InUse,
}

async fn drop_day(database: &Arc<Database>, part: LogPart, old: &OldDay) -> Result<Dropping, PgError> {
    let mut tx = WriteTx::begin(database).await?;
    match drop_day_in(&mut tx, part, old).await {
        Ok(outcome @ (Dropping::Done | Dropping::UnderWay)) => {
            tx.commit().await?;
            Ok(outcome)
        }
        Ok(outcome) => {
            tx.roll_back().await;
            Ok(outcome)
        }
        Err(error) => {
            tx.roll_back().await;
            if !stood_in_the_way(&error) {
                return Err(error);
            }
            tracing::debug!(day = %old.day, ?part, "an old day of the log is in use and is not dropped yet");
            Ok(Dropping::InUse)
        }
    }
}

async fn drop_day_in(tx: &mut WriteTx, part: LogPart, old: &OldDay) -> Result<Dropping, PgError> {
    if part == LogPart::Events && has_deliveries(tx, old.day).await? {
        return Ok(Dropping::Left);
    }
    // First without a lock: it is known then that nobody will have to wait for long.
    let Some(kept) = kept_of(tx, part, old).await? else { return Ok(Dropping::Left) };
    if part == LogPart::Events && forget_publish_keys(tx, old.day, &kept).await? == PUBLISH_KEYS_PER_STEP.unsigned_abs()
    {
        return Ok(Dropping::UnderWay);
    }
    tx.batch(LOCK_PATIENCE).await?;
    for table in &old.tables {
        tx.batch(&format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")).await?;
        if !days_of(tx, table).await?.contains(&old.day) {
            // Another node has dropped it.
            return Ok(Dropping::Left);
        }
    }
    let Some(kept) = kept_of(tx, part, old).await? else { return Ok(Dropping::Left) };
    for table in &old.tables {
        replace(tx, table, old.day, &kept).await?;
    }
    tracing::info!(day = %old.day, ?part, rows_kept = kept.len(), "an old day of the log was dropped");
    Ok(Dropping::Done)
}

/// Whether the deliveries of a day are still to go.
async fn has_deliveries(session: &Session, day: Day) -> Result<bool, PgError> {
    for table in tables_of(LogPart::Deliveries) {
        if days_of(session, table).await?.contains(&day) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys of the rows of an old day that stay; `None` if these are too many.
async fn kept_of(session: &Session, part: LogPart, old: &OldDay) -> Result<Option<Vec<i64>>, PgError> {
    let kept = match part {
        // What is pending has a row in the queue.
        LogPart::Deliveries if old.is_whole => {
            "SELECT delivery_key AS key FROM due WHERE delivery_key >= $1 AND delivery_key < $2
             UNION SELECT blocked_by FROM ordered_lanes WHERE blocked_by >= $1 AND blocked_by < $2"
        }
        // The others have been removed by row.
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
        tracing::warn!(day = %old.day, ?part, rows_max = MOVED_MAX, "an old day of the log is not dropped: too much of it has to stay");
        return Ok(None);
    }
    Ok(Some(kept))
}

/// Forgets `externalId`s of the events of a day, except of those that stay, and returns how many.
async fn forget_publish_keys(tx: &WriteTx, day: Day, kept: &Vec<i64>) -> Result<u64, PgError> {
    let (first, end) = keys_of(day);
    // Otherwise each is compared with everything that stays.
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

/// Puts the rows that stay where the day's partition was.
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

/// The columns of a table that are written, which are not those that it makes itself.
async fn columns_of(session: &Session, table: &str) -> Result<String, PgError> {
    let sql = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns FROM pg_attribute
               WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
    get(&session.query_one(sql, &[&table]).await?, "columns")
}
