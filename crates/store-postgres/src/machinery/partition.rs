//! The days of the log. Each of its tables is partitioned by ranges of row keys, and a key carries its millisecond, so that a day
//! in UTC is a range of keys and goes as a whole when its age has come (`retention.rs`).
//!
//! Days are made ahead of their time. What falls on a day that has no partition goes to the default one, where it is found just
//! the same and is removed row by row: a missing day costs work, never a promise.

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

/// How many days are made ahead.
const DAYS_AHEAD: u32 = 7;
/// How many days back are made for rows that are copied from another store. Older ones are few, or of one who keeps them for
/// long: they go to the default partition.
const DAYS_BACK_MAX: u32 = 40;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The lock of those who make days. None of the workspaces' has this number.
const DAYS_LOCK: i32 = -1;

/// To attach a day, or to detach one, its whole table is locked against everybody. The wait for that lock holds up whoever comes
/// after, so it is short, and shorter than the second after which the server looks for deadlocks: of two that wait for each
/// other, it is never the other that is given up.
pub const LOCK_PATIENCE: &str = "SET LOCAL lock_timeout = '500ms'";

/// The keys of a day: the first, and the first of the next.
pub fn keys_of(day: Day) -> (RowKey, RowKey) {
    (RowKey::first_at(day.starts_at()), RowKey::first_at(day_after(day).starts_at()))
}

/// The column of a table of the log that its days are ranges of.
pub fn key_of(table: &str) -> &'static str {
    if table == "attempts" { "delivery_key" } else { "key" }
}

/// The partition of a table for this day.
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

/// Whether it was another's lock that stood in the way, so that the next round may fare better.
pub fn stood_in_the_way(error: &PgError) -> bool {
    has_code(error, &[SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED])
}

/// Makes the partitions for yesterday, today and the days ahead, where there are none yet. To be called outside of any
/// transaction: each partition is made in one of its own, so that nobody waits for more than one. A table that is in use for
/// too long is left to the next round.
pub async fn ensure_days(session: &Session, lock_class: i32, now: Timestamp) -> Result<(), PgError> {
    make_days(session, lock_class, now.minus(DAY), now).await
}

/// Makes the partitions also for the days since `oldest` on which rows are about to be added, as far back as a log is usually kept.
pub async fn make_days_since(
    session: &Session,
    lock_class: i32,
    oldest: Timestamp,
    now: Timestamp,
) -> Result<(), PgError> {
    make_days(session, lock_class, oldest.max(now.minus(DAY * DAYS_BACK_MAX)).min(now.minus(DAY)), now).await
}

async fn make_days(session: &Session, lock_class: i32, first: Timestamp, now: Timestamp) -> Result<(), PgError> {
    let last = now.plus(DAY * DAYS_AHEAD);
    let days = (0..).map(|later| first.plus(DAY * later)).take_while(|day| *day <= last);
    let wanted: Vec<Day> = days.map(Day::containing).collect();
    let mut kept_by_default = BTreeSet::new();
    for table in LOG {
        let existing = days_of(session, table).await?;
        for day in wanted.iter().copied().filter(|day| !existing.contains(day)) {
            match make(session, lock_class, table, day).await {
                Ok(Made::Yes) => {}
                Ok(Made::DefaultHoldsRows) => drop(kept_by_default.insert(name_of(table, day))),
                Err(error) if stood_in_the_way(&error) => {
                    tracing::debug!(table, %day, "a day of the log could not be made yet");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
    if !kept_by_default.is_empty() {
        let missing = kept_by_default.into_iter().collect::<Vec<_>>().join(" ");
        tracing::debug!(missing, "days of the log are left to the default partition, which holds rows of them");
    }
    Ok(())
}

enum Made {
    Yes,
    /// There are rows of the day already, where they can stay.
    DefaultHoldsRows,
}

async fn make(session: &Session, lock_class: i32, table: &str, day: Day) -> Result<Made, PgError> {
    session.batch(&format!("BEGIN; {IDLE_TIMEOUT}")).await?;
    let made = make_in_transaction(session, lock_class, table, day).await;
    session.batch(if made.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    match made {
        // They came in between.
        Err(error) if has_code(&error, &[SqlState::CHECK_VIOLATION]) => Ok(Made::DefaultHoldsRows),
        made => made,
    }
}

async fn make_in_transaction(session: &Session, lock_class: i32, table: &str, day: Day) -> Result<Made, PgError> {
    session.batch(LOCK_PATIENCE).await?;
    // The nodes of a store take turns.
    session.query("SELECT pg_advisory_xact_lock($1, $2)", &[&lock_class, &DAYS_LOCK]).await?;
    if days_of(session, table).await?.contains(&day) {
        return Ok(Made::Yes);
    }
    let (first, end) = keys_of(day);
    let (first, end, key) = (first.as_i64(), end.as_i64(), key_of(table));
    let of_the_day = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {key} >= $1 AND {key} < $2) AS held");
    if get(&session.query_one(&of_the_day, &[&first, &end]).await?, "held")? {
        return Ok(Made::DefaultHoldsRows);
    }
    let name = name_of(table, day);
    // Each delivery is updated once, soon: room for its second version on the same page.
    let with = if table == "deliveries" { " WITH (fillfactor = 70)" } else { "" };
    session
        .batch(&format!("CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({end}){with}"))
        .await?;
    Ok(Made::Yes)
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
    fn a_partition_is_named_after_its_day_and_read_back() {
        let day = Day::parse("2026-11-26").unwrap();
        assert_eq!(name_of("events", day), "events_20261126");
        assert_eq!(day_from("events", "events_20261126"), Some(day));
        for other in ["events_kept", "events_2026112", "events_202611261", "events_20261126_old", "deliveries_20261126"]
        {
            assert_eq!(day_from("events", other), None, "{other}");
        }
    }

    #[test]
    fn a_day_holds_the_keys_of_its_milliseconds_and_no_others() {
        let day = Day::parse("2026-11-26").unwrap();
        let (first, end) = keys_of(day);
        assert_eq!(first.created_at(), day.starts_at());
        assert_eq!(end.created_at().to_string(), "2026-11-27T00:00:00.000Z");
        assert_eq!(keys_of(day_after(day)).0, end);
    }
}
