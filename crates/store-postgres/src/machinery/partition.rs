//! The daily partitions of the log. Creates partitions, writes no rows.
//!
//! Each table of the log is partitioned by ranges of row keys. A key carries its millisecond, so a day in UTC is a
//! range of keys. Retention drops an old day as a whole (`upkeep/retention.rs`).
//!
//! Days are created ahead of their time. Rows of a day without a partition go to the default partition. They are found
//! there all the same and removed row by row: a missing day costs work, but breaks no promise.
//!
//! Differs from SQLite: it has no partitions and removes all rows one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use postrider_domain::id::RowKey;
use postrider_domain::time::{Day, Timestamp};

use super::column::get;
use super::fault::PgError;
use super::session::{IDLE_TIMEOUT, Session};

/// The tables of the log.
const LOG: [&str; 3] = ["attempts", "deliveries", "events"];

/// Days created ahead.
const DAYS_AHEAD: u32 = 7;
/// Past days created at most for rows copied from another store. Rows of older days go to the default partition: they
/// are few unless the retention is long.
const DAYS_BACK_MAX: u32 = 40;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The number of the advisory lock for creating days. No workspace's lock has this number.
const DAYS_LOCK: i32 = -1;

/// Limits the wait for a table lock. Attaching or detaching a day locks its whole table exclusively, and all later
/// transactions queue behind that wait. The limit is below the one second after which the server looks for deadlocks,
/// so the server never aborts the other transaction.
pub const SHORT_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '500ms'";

/// The key range of a day: its first key, and the first key of the next day.
pub fn keys_of(day: Day) -> (RowKey, RowKey) {
    (RowKey::first_at(day.starts_at()), RowKey::first_at(day_after(day).starts_at()))
}

/// The column by which a table of the log is partitioned.
pub fn key_of(table: &str) -> &'static str {
    if table == "attempts" { "delivery_key" } else { "key" }
}

/// The name of a table's partition for this day.
pub fn name_of(table: &str, day: Day) -> String {
    format!("{table}_{}", day.to_string().replace('-', ""))
}

/// The days for which a table has a partition.
pub async fn days_of(session: &Session, table: &str) -> Result<BTreeSet<Day>, PgError> {
    let rows = session
        .query(
            "SELECT part.relname::text AS name FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid
             WHERE inhparent = $1::text::regclass",
            &[&table],
        )
        .await?;
    let mut days = BTreeSet::new();
    for row in &rows {
        days.extend(day_from(table, get(row, "name")?));
    }
    Ok(days)
}

/// Whether another transaction's lock caused the error, so that a later attempt may succeed.
pub fn is_lock_conflict(error: &PgError) -> bool {
    has_code(error, &[SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED])
}

/// Creates the missing partitions for yesterday, today and the days ahead.
///
/// Call it outside any transaction: each partition is created in its own, so that others wait for one at most. If a
/// table stays locked, the next call goes on.
pub async fn ensure_days(session: &Session, lock_class: i32, now: Timestamp) -> Result<(), PgError> {
    create_missing(session, lock_class, now.minus(DAY), now).await
}

/// As [`ensure_days`], and also for the days since `oldest`, up to [`DAYS_BACK_MAX`] days back.
pub async fn ensure_days_since(
    session: &Session,
    lock_class: i32,
    oldest: Timestamp,
    now: Timestamp,
) -> Result<(), PgError> {
    create_missing(session, lock_class, oldest.max(now.minus(DAY * DAYS_BACK_MAX)).min(now.minus(DAY)), now).await
}

async fn create_missing(session: &Session, lock_class: i32, first: Timestamp, now: Timestamp) -> Result<(), PgError> {
    let last = now.plus(DAY * DAYS_AHEAD);
    let days = (0..).map(|later| first.plus(DAY * later)).take_while(|day| *day <= last);
    let wanted: Vec<Day> = days.map(Day::containing).collect();
    let mut left_to_default = BTreeSet::new();
    for table in LOG {
        let existing = days_of(session, table).await?;
        for day in wanted.iter().copied().filter(|day| !existing.contains(day)) {
            match create(session, lock_class, table, day).await {
                Ok(Creation::Created) => {}
                Ok(Creation::DefaultHoldsRows) => drop(left_to_default.insert(name_of(table, day))),
                Err(error) if is_lock_conflict(&error) => {
                    tracing::debug!(table, %day, "cannot create a daily partition yet: the table is locked");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
    if !left_to_default.is_empty() {
        let missing = left_to_default.into_iter().collect::<Vec<_>>().join(" ");
        tracing::debug!(missing, "some days have no partition: the default partition already holds rows of them");
    }
    Ok(())
}

enum Creation {
    Created,
    /// The default partition already holds rows of the day. They stay there.
    DefaultHoldsRows,
}

async fn create(session: &Session, lock_class: i32, table: &str, day: Day) -> Result<Creation, PgError> {
    session.batch(&format!("BEGIN; {IDLE_TIMEOUT}")).await?;
    let created = create_in_transaction(session, lock_class, table, day).await;
    session.batch(if created.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    match created {
        // Rows of the day arrived meanwhile.
        Err(error) if has_code(&error, &[SqlState::CHECK_VIOLATION]) => Ok(Creation::DefaultHoldsRows),
        created => created,
    }
}

async fn create_in_transaction(session: &Session, lock_class: i32, table: &str, day: Day) -> Result<Creation, PgError> {
    session.batch(SHORT_LOCK_TIMEOUT).await?;
    // One node at a time creates days.
    session.query("SELECT pg_advisory_xact_lock($1, $2)", &[&lock_class, &DAYS_LOCK]).await?;
    if days_of(session, table).await?.contains(&day) {
        return Ok(Creation::Created);
    }
    let (first, end) = keys_of(day);
    let (first, end, key) = (first.as_i64(), end.as_i64(), key_of(table));
    let of_the_day = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {key} >= $1 AND {key} < $2) AS held");
    if get(&session.query_one(&of_the_day, &[&first, &end]).await?, "held")? {
        return Ok(Creation::DefaultHoldsRows);
    }
    let name = name_of(table, day);
    // Each delivery is updated once, soon. This leaves space for its second version on the same page.
    let with = if table == "deliveries" { " WITH (fillfactor = 70)" } else { "" };
    session
        .batch(&format!("CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({end}){with}"))
        .await?;
    Ok(Creation::Created)
}

fn has_code(error: &PgError, codes: &[SqlState]) -> bool {
    matches!(error, PgError::Database(error) if error.code().is_some_and(|code| codes.contains(code)))
}

fn day_after(day: Day) -> Day {
    Day::containing(day.starts_at().plus(DAY))
}

fn day_from(table: &str, name: &str) -> Option<Day> {
    let digits = name.strip_prefix(table)?.strip_prefix('_')?;
    let (year, month, day) = (digits.get(..4)?, digits.get(4..6)?, digits.get(6..)?);
    Day::parse(&format!("{year}-{month}-{day}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_name_is_read_back_as_its_day() {
        let day = Day::parse("2026-11-26").unwrap();
        assert_eq!(name_of("events", day), "events_20261126");
        assert_eq!(day_from("events", "events_20261126"), Some(day));
        for other in ["events_kept", "events_2026112", "events_202611261", "events_20261126_old", "deliveries_20261126"]
        {
            assert_eq!(day_from("events", other), None, "{other}");
        }
    }

    #[test]
    fn a_day_holds_the_keys_of_its_milliseconds_only() {
        let day = Day::parse("2026-11-26").unwrap();
        let (first, end) = keys_of(day);
        assert_eq!(first.created_at(), day.starts_at());
        assert_eq!(end.created_at().to_string(), "2026-11-27T00:00:00.000Z");
        assert_eq!(keys_of(day_after(day)).0, end);
    }
}
