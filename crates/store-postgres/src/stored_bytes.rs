//! Counters of what each workspace stores, and its budget. The rules stand in `postrider_store::stored_bytes`.
//!
//! A transaction gathers its changes and writes them in one statement before it commits. Without a budget nothing is
//! counted.
//!
//! Differs from SQLite: several transactions of one workspace run at once, and must not wait for each other. So each
//! writes to counters of its own, in a shard that it holds until it ends (`machinery/shard.rs`). A total is read at
//! most once a second and includes what this node has written since. What other nodes have written in that second is
//! missing.
//!
//! Writes `stored_bytes`, and the progress of the count in `meta`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_postgres::Row;

use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::stored_bytes::{
    CountProgress, CountedPart, PROGRESS, StoredBytes, StoredBytesChange, day_of, is_over,
};

use crate::machinery::column::{get, int, key, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::shard::Shard;
use crate::machinery::transaction::{Database, WriteTx};
use crate::meta;

/// Workspaces whose totals are cached, and for how long.
const TOTALS_CACHED: usize = 10_000;
const TOTAL_AGE_MAX: Duration = Duration::from_secs(1);

/// This node's view of the counters.
pub struct StoredBytesBook {
    /// The budget of each workspace. Unset: nothing is counted.
    pub max: OnceLock<u64>,
    /// What was stored before the budget has been counted, as far as this node knows.
    is_done: AtomicBool,
    totals: Mutex<BoundedCache<RowKey, CachedTotal>>,
}

#[derive(Clone, Copy)]
struct CachedTotal {
    read_at: Timestamp,
    bytes: i64,
}

impl Default for StoredBytesBook {
    fn default() -> Self {
        Self {
            max: OnceLock::new(),
            is_done: AtomicBool::new(false),
            totals: Mutex::new(BoundedCache::new(TOTALS_CACHED)),
        }
    }
}

/// The changes of a transaction. Behind a lock only because transactions are shared while statements are pipelined.
#[derive(Default)]
pub struct StoredChanges(Mutex<StoredBytes>);

impl StoredChanges {
    fn add(&self, workspace: RowKey, part: CountedPart, key: RowKey, bytes: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(workspace, part, key, bytes);
    }

    fn total_of(&self, workspace: RowKey) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total_of(workspace)
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Vec<StoredBytesChange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A row whose bytes were added, or removed if negative.
#[derive(Clone, Copy)]
pub struct Change {
    pub workspace: RowKey,
    pub key: RowKey,
    pub bytes: i64,
}

/// Removed rows, as `key`, `workspace_key` and `bytes`.
pub fn removed(rows: &[Row]) -> Result<Vec<Change>, PgError> {
    let change =
        |row| Ok(Change { workspace: key(row, "workspace_key")?, key: key(row, "key")?, bytes: -int(row, "bytes")? });
    rows.iter().map(change).collect()
}

/// Counts the changes of rows of one part.
pub async fn count(
    tx: &WriteTx,
    part: CountedPart,
    changes: impl Iterator<Item = Change> + Send,
) -> Result<(), PgError> {
    if tx.database.stored.max.get().is_none() {
        return Ok(());
    }
    let Some(progress) = progress(tx).await? else { return Ok(()) };
    for Change { workspace, key, bytes } in changes.filter(|change| progress.includes(part, change.key)) {
        tx.stored.add(workspace, part, key, bytes);
    }
    Ok(())
}

/// The budget, if the workspace has no room for `more` bytes. The operator's own workspace has no budget.
pub async fn exceeded_budget(tx: &WriteTx, workspace: RowKey, more: usize) -> Result<Option<u64>, PgError> {
    let stored = &tx.database.stored;
    let Some(max) = stored.max.get().copied() else { return Ok(None) };
    if tx.database.operations.get() == Some(&workspace) {
        return Ok(None);
    }
    let now = tx.database.time.local();
    let cached = lock(&stored.totals).get(&workspace).copied();
    let bytes = match cached.filter(|cached| now.since(cached.read_at) < TOTAL_AGE_MAX) {
        Some(cached) => cached.bytes,
        None => {
            let sql = "SELECT COALESCE(SUM(bytes), 0)::bigint AS bytes FROM stored_bytes WHERE workspace_key = $1";
            let bytes = int(&tx.query_one(sql, &[&workspace.as_i64()]).await?, "bytes")?;
            lock(&stored.totals).insert(workspace, CachedTotal { read_at: now, bytes });
            bytes
        }
    };
    Ok(Some(max).filter(|max| is_over(*max, bytes + tx.stored.total_of(workspace), more)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes that were written and are about to be committed.
pub struct Flushed(Vec<StoredBytesChange>);

impl Flushed {
    /// After the commit: the cached totals include the changes.
    pub fn committed(self, database: &Database) {
        let mut totals = lock(&database.stored.totals);
        for (workspace, _, _, bytes) in self.0 {
            if let Some(total) = totals.get_mut(&workspace) {
                total.bytes += bytes;
            }
        }
    }
}

/// Writes the changes of a transaction. Call it before the commit.
pub async fn flush(tx: &WriteTx, shard: &Shard) -> Result<Option<Flushed>, PgError> {
    let changes = tx.stored.take();
    if changes.is_empty() {
        return Ok(None);
    }
    let sql = "INSERT INTO stored_bytes (workspace_key, part, day, shard, bytes)
               SELECT workspace_key, part, day, $5, bytes
               FROM unnest($1, $2, $3, $4) AS change (workspace_key, part, day, bytes)
               ON CONFLICT (workspace_key, part, day, shard) DO UPDATE SET bytes = stored_bytes.bytes + excluded.bytes";
    tx.execute(
        sql,
        &[
            &changes.iter().map(|(workspace, ..)| workspace.as_i64()).collect::<Vec<i64>>(),
            &changes.iter().map(|(_, part, ..)| part.code()).collect::<Vec<i64>>(),
            &changes.iter().map(|(_, _, day, _)| *day).collect::<Vec<i64>>(),
            &changes.iter().map(|(.., bytes)| *bytes).collect::<Vec<i64>>(),
            &shard.number(tx),
        ],
    )
    .await?;
    Ok(Some(Flushed(changes)))
}

async fn progress(tx: &WriteTx) -> Result<Option<CountProgress>, PgError> {
    if tx.database.stored.is_done.load(Ordering::Relaxed) {
        return Ok(Some(CountProgress::Done));
    }
    let Some(text) = meta::find(tx, PROGRESS).await? else { return Ok(None) };
    let progress = CountProgress::from_text(&text).ok_or_else(|| unexpected("meta.stored_bytes"))?;
    tx.database.stored.is_done.store(progress == CountProgress::Done, Ordering::Relaxed);
    Ok(Some(progress))
}

/// One step of the count of what is stored already. Without a budget it forgets an earlier count, which does not hold
/// any more. Returns whether there is more to count.
pub async fn count_step(tx: &WriteTx, limit: usize) -> Result<bool, PgError> {
    let progress = progress(tx).await?;
    if tx.database.stored.max.get().is_none() {
        if progress.is_some() {
            tx.execute("DELETE FROM meta WHERE name = $1", &[&PROGRESS]).await?;
            tx.execute("DELETE FROM stored_bytes", &[]).await?;
            tx.database.stored.is_done.store(false, Ordering::Relaxed);
        }
        return Ok(false);
    }
    if progress == Some(CountProgress::Done) {
        return Ok(false);
    }
    let start = CountProgress::start(tx.next_key()).to_text().into_bytes();
    meta::find_or_insert(tx, PROGRESS, &start).await?;
    // One node counts at a time. The progress is read again under the lock.
    let sql = "SELECT value FROM meta WHERE name = $1 FOR UPDATE";
    let text: Vec<u8> = get(&tx.query_one(sql, &[&PROGRESS]).await?, "value")?;
    let progress = CountProgress::from_text(&text).ok_or_else(|| unexpected("meta.stored_bytes"))?;
    let CountProgress::Counting { part, after, until } = progress else { return Ok(false) };
    tx.batch("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off").await?;
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = tx.query(&part.select('$'), &[&after.as_i64(), &until.as_i64(), &rows_max]).await?;
    let mut last = None;
    for row in &rows {
        let row_key = key(row, "key")?;
        tx.stored.add(key(row, "workspace_key")?, part, row_key, int(row, "bytes")?);
        last = Some(row_key);
    }
    let next = progress.after_step(last.filter(|_| rows.len() == limit));
    tx.execute("UPDATE meta SET value = $2 WHERE name = $1", &[&PROGRESS, &next.to_text().into_bytes()]).await?;
    Ok(next != CountProgress::Done)
}

/// The rows of a dropped day are gone, except those that were kept: counts these alone.
pub async fn count_kept(tx: &WriteTx, part: CountedPart, day: RowKey, kept: &Vec<i64>) -> Result<(), PgError> {
    if tx.database.stored.max.get().is_none() {
        return Ok(());
    }
    tx.execute("DELETE FROM stored_bytes WHERE part = $1 AND day = $2", &[&part.code(), &day_of(day)]).await?;
    if kept.is_empty() {
        return Ok(());
    }
    let (first, last) = (i64::MIN, i64::MAX);
    let selected = part.select('$').replace("WHERE key", "WHERE key = ANY ($4) AND key");
    let kept_max = i64::try_from(kept.len()).unwrap_or(i64::MAX);
    let rows = tx.query(&selected, &[&first, &last, &kept_max, kept]).await?;
    let kept = removed(&rows)?.into_iter().map(|change| Change { bytes: -change.bytes, ..change });
    self::count(tx, part, kept).await
}

/// Removes counters of days before `before` that have come to nothing.
pub async fn remove_empty(tx: &WriteTx, before: RowKey, limit: usize) -> Result<usize, PgError> {
    let sql = "DELETE FROM stored_bytes WHERE (workspace_key, part, day) IN
                   (SELECT workspace_key, part, day FROM stored_bytes WHERE day < $1
                    GROUP BY workspace_key, part, day HAVING SUM(bytes) = 0 LIMIT $2)";
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
    let removed = tx.execute(sql, &[&day_of(before), &rows_max]).await?;
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}
