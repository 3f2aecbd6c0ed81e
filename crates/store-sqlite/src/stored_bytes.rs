//! Counters of what each workspace stores, and its budget. The rules stand in `postrider_store::stored_bytes`.
//!
//! The writer gathers the changes of a group and writes them before it commits. It caches the totals: it alone writes
//! the counters, so they are exact until a rollback, which clears them. Without a budget nothing is counted.
//!
//! Writes `stored_bytes`, and the progress of the count in `meta`.

use rusqlite::{Connection, OptionalExtension, params};

use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::id::RowKey;
use postrider_store::stored_bytes::{CountProgress, CountedPart, PROGRESS, StoredBytes, day_of, is_over};

use crate::machinery::column::unexpected;
use crate::machinery::writer::WriteTx;

/// Workspaces whose totals are cached.
const TOTALS_CACHED: usize = 10_000;

/// The writer's view of the counters.
pub struct StoredBytesBook {
    /// The budget of each workspace. `None`: nothing is counted.
    pub max: Option<u64>,
    changes: StoredBytes,
    totals: BoundedCache<RowKey, i64>,
    /// As in `meta`, once read. `Some(None)`: the count has not begun.
    progress: Option<Option<CountProgress>>,
}

impl Default for StoredBytesBook {
    fn default() -> Self {
        Self { max: None, changes: StoredBytes::default(), totals: BoundedCache::new(TOTALS_CACHED), progress: None }
    }
}

impl StoredBytesBook {
    /// After a rollback.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.totals.clear();
        self.progress = None;
    }
}

/// Counts bytes that were added for a row, or removed if negative.
pub fn count(
    tx: &mut WriteTx<'_>,
    workspace: RowKey,
    part: CountedPart,
    key: RowKey,
    bytes: i64,
) -> Result<(), rusqlite::Error> {
    if tx.stored.max.is_none() {
        return Ok(());
    }
    if progress(tx)?.is_some_and(|progress| progress.includes(part, key)) {
        add(tx, workspace, part, key, bytes);
    }
    Ok(())
}

fn add(tx: &mut WriteTx<'_>, workspace: RowKey, part: CountedPart, key: RowKey, bytes: i64) {
    tx.stored.changes.add(workspace, part, key, bytes);
    if let Some(total) = tx.stored.totals.get_mut(&workspace) {
        *total += bytes;
    }
}

/// The budget, if the workspace has no room for `more` bytes. The operator's own workspace has no budget.
pub fn exceeded_budget(tx: &mut WriteTx<'_>, workspace: RowKey, more: usize) -> Result<Option<u64>, rusqlite::Error> {
    let Some(max) = tx.stored.max.filter(|_| tx.operations != Some(workspace)) else { return Ok(None) };
    let total = match tx.stored.totals.get(&workspace) {
        Some(total) => *total,
        None => {
            let total = stored_total(tx.connection, workspace)? + tx.stored.changes.total_of(workspace);
            tx.stored.totals.insert(workspace, total);
            total
        }
    };
    Ok(Some(max).filter(|max| is_over(*max, total, more)))
}

fn stored_total(connection: &Connection, workspace: RowKey) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached("SELECT COALESCE(SUM(bytes), 0) FROM stored_bytes WHERE workspace_key = ?1")?
        .query_row([workspace.as_i64()], |row| row.get(0))
}

/// Writes the changes of the group. Call it before the commit.
pub fn flush(tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error> {
    for (workspace, part, day, bytes) in tx.stored.changes.take() {
        tx.connection
            .prepare_cached(
                "INSERT INTO stored_bytes (workspace_key, part, day, shard, bytes) VALUES (?1, ?2, ?3, 0, ?4)
                 ON CONFLICT (workspace_key, part, day, shard) DO UPDATE SET bytes = bytes + excluded.bytes",
            )?
            .execute(params![workspace.as_i64(), part.code(), day, bytes])?;
    }
    Ok(())
}

fn progress(tx: &mut WriteTx<'_>) -> Result<Option<CountProgress>, rusqlite::Error> {
    if let Some(known) = tx.stored.progress {
        return Ok(known);
    }
    let text: Option<Vec<u8>> = tx
        .connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([PROGRESS], |row| row.get(0))
        .optional()?;
    let found =
        text.map(|text| CountProgress::from_text(&text).ok_or_else(|| unexpected("meta.stored_bytes"))).transpose()?;
    tx.stored.progress = Some(found);
    Ok(found)
}

fn set_progress(tx: &mut WriteTx<'_>, to: CountProgress) -> Result<(), rusqlite::Error> {
    tx.stored.progress = Some(Some(to));
    tx.connection
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![PROGRESS, to.to_text().into_bytes()])?;
    Ok(())
}

/// One step of the count of what is stored already. Without a budget it forgets an earlier count, which does not hold
/// any more. Returns whether there is more to count.
pub fn count_step(tx: &mut WriteTx<'_>, limit: usize) -> Result<bool, rusqlite::Error> {
    let now = progress(tx)?;
    if tx.stored.max.is_none() {
        if now.is_some() {
            tx.connection.execute("DELETE FROM meta WHERE name = ?1", [PROGRESS])?;
            tx.connection.execute("DELETE FROM stored_bytes", [])?;
            tx.stored.clear();
        }
        return Ok(false);
    }
    let (part, after, until) = match now {
        Some(CountProgress::Done) => return Ok(false),
        Some(CountProgress::Counting { part, after, until }) => (part, after, until),
        None => {
            let until = tx.next_key();
            set_progress(tx, CountProgress::start(until))?;
            return Ok(true);
        }
    };
    let rows = tx
        .connection
        .prepare_cached(&part.select('?'))?
        .query_map(params![after.as_i64(), until.as_i64(), limit], |row| {
            Ok((RowKey::from_i64(row.get(0)?), RowKey::from_i64(row.get(1)?), row.get(2)?))
        })?
        .collect::<Result<Vec<(RowKey, RowKey, i64)>, _>>()?;
    for (key, workspace, bytes) in &rows {
        add(tx, *workspace, part, *key, *bytes);
    }
    let last = rows.last().map(|(key, ..)| *key).filter(|_| rows.len() == limit);
    let next = CountProgress::Counting { part, after, until }.after_step(last);
    set_progress(tx, next)?;
    Ok(next != CountProgress::Done)
}

/// Removes counters of days before `before` that have come to nothing.
pub fn remove_empty(tx: &WriteTx<'_>, before: RowKey, limit: usize) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM stored_bytes WHERE (workspace_key, part, day) IN
                 (SELECT workspace_key, part, day FROM stored_bytes INDEXED BY stored_bytes_by_day WHERE day < ?1
                  GROUP BY workspace_key, part, day HAVING SUM(bytes) = 0 LIMIT ?2)",
        )?
        .execute(params![day_of(before), limit])
}
