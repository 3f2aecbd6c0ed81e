//! The work of erasures on the tables, which all jobs share that have emptied their rows: a vacuum of the partitions
//! that they touched, and of the tables with `externalId`s and answers.
//!
//! A vacuum removes the old versions of rows. Their bytes can stay in the free space of a page until it is used again,
//! and they stay in archives of the write-ahead log, in replicas that lag, and in dumps.
//!
//! Differs from SQLite: a vacuum runs outside a transaction, on a connection of its own. A node that dies meanwhile
//! leaves the jobs to the next one, after [`VACUUM_LEASE`].
//!
//! Writes `erasures`.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_domain::erasure::ErasureStatus;
use postrider_domain::time::Day;
use postrider_store::StoreError;
use postrider_store::erasure::Phase;

use crate::PostgresStore;
use crate::machinery::column::{get, int, unexpected};
use crate::machinery::connect::connection;
use crate::machinery::fault::{PgError, store_error};
use crate::machinery::partition::name_of;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};

/// Jobs that share a vacuum.
const JOBS_PER_ROUND: i64 = 1_000;
/// For this long no other node vacuums for the same jobs.
const VACUUM_LEASE: Duration = Duration::from_secs(600);
/// Vacuumed in every round. The default partitions hold rows of days that have no partition.
const ALWAYS: [&str; 5] = ["publish_keys", "idempotency", "events_kept", "attempts_kept", "parked_messages"];

/// Jobs that wait for a vacuum, and the days that they have touched.
#[derive(Clone)]
pub struct Round {
    jobs: Vec<i64>,
    days: BTreeSet<Day>,
}

/// Takes the jobs that wait for a vacuum. `None` if there are none.
pub async fn begin(tx: &mut WriteTx) -> Result<Option<Round>, PgError> {
    let rows = tx
        .query(
            "SELECT key, days FROM erasures WHERE status < 2 AND phase >= $1 AND resume_at <= $2 ORDER BY key LIMIT $3
             FOR UPDATE SKIP LOCKED",
            &[&Phase::Emptied.code(), &tx.now.millis(), &JOBS_PER_ROUND],
        )
        .await?;
    let mut round = Round { jobs: Vec::new(), days: BTreeSet::new() };
    for row in &rows {
        round.jobs.push(int(row, "key")?);
        round.days.append(&mut days_from(get(row, "days")?)?);
    }
    if round.jobs.is_empty() {
        return Ok(None);
    }
    let sql = "UPDATE erasures SET resume_at = $2 WHERE key = ANY ($1)";
    tx.execute(sql, &[&round.jobs, &tx.now.plus(VACUUM_LEASE).millis()]).await?;
    Ok(Some(round))
}

/// Vacuums for a round, and ends its jobs. Returns how many.
pub async fn vacuum(store: &PostgresStore, round: Round) -> Result<usize, StoreError> {
    let session = Session::new(connection(&store.database.maintenance).await.map_err(store_error)?);
    let vacuumed = vacuum_tables(&session, &round.days).await;
    session.discard();
    vacuumed.map_err(store_error)?;
    let jobs = round.jobs.len();
    store.write(effect!(|tx, round| end(tx, round))).await?;
    Ok(jobs)
}

async fn vacuum_tables(session: &Session, days: &BTreeSet<Day>) -> Result<(), PgError> {
    let of_days = days.iter().flat_map(|day| ["events", "attempts"].map(|table| name_of(table, *day)));
    let tables = of_days.chain(ALWAYS.map(str::to_owned));
    // A large day takes longer than a statement may.
    session.batch("SET statement_timeout = 0").await?;
    for table in tables {
        let exists = "SELECT to_regclass($1::text) IS NOT NULL AS exists";
        if get(&session.query_one(exists, &[&table]).await?, "exists")? {
            // To shorten a table, a vacuum would lock it.
            session.batch(&format!("VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF) {table}")).await?;
        }
    }
    session.batch("RESET statement_timeout").await
}

async fn end(tx: &mut WriteTx, round: Round) -> Result<(), PgError> {
    let sql = "UPDATE erasures SET status = $2, completed_at = $3, waiting = 0 WHERE key = ANY ($1) AND status < $2";
    tx.execute(sql, &[&round.jobs, &ErasureStatus::Erased.code(), &tx.now.millis()]).await?;
    Ok(())
}

/// Days separated by spaces.
pub fn days_to(days: &BTreeSet<Day>) -> String {
    days.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// # Errors
/// When the text is not one that [`days_to`] makes.
pub fn days_from(text: &str) -> Result<BTreeSet<Day>, PgError> {
    let days = text.split_ascii_whitespace().map(|day| Day::parse(day).map_err(|_| unexpected("erasures.days")));
    days.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_days_of_an_erasure_read_back_as_stored() {
        let days = ["2026-11-27", "2026-11-26"].map(|day| Day::parse(day).unwrap());
        let days = BTreeSet::from(days);
        assert_eq!(days_to(&days), "2026-11-26 2026-11-27");
        assert_eq!(days_from(&days_to(&days)).unwrap(), days);
        assert!(days_from("").unwrap().is_empty() && days_from("yesterday").is_err());
    }
}
