//! The work of erasures on the files, which all jobs share that have emptied their rows.
//!
//! Emptied rows are overwritten with zeros where they stand (`PRAGMA secure_delete`). Copies can still stand in free
//! pages, of rows that moved earlier, and in the write-ahead log. So:
//!
//! 1. Zeros take every free page, in small steps, until none is free.
//! 2. The zeros are removed, which gives the pages back.
//! 3. The log is copied into the database and truncated. A reader holds that up, and the next step tries again.
//!
//! A restart goes on with the step that its jobs name. Zeros that are left of a job are found in the table.
//!
//! Writes `erasures` and `erasure_filler`.

use postrider_domain::erasure::ErasureStatus;
use postrider_store::StoreError;
use postrider_store::erasure::Phase;

use crate::SqliteStore;
use crate::machinery::checkpoint::EmptyStep;
use crate::machinery::writer::{JobSize, WriteTx};

/// Free pages that one step takes.
const PAGES_PER_STEP: i64 = 256;
/// Bytes of a row of zeros that stand beside its overflow pages: the remainder that SQLite keeps in the row's own page,
/// so that the rest fills overflow pages to their last byte. It is so for every size of pages from 2 KiB.
const BESIDE_OVERFLOW: i64 = 600;

/// Takes one step, given the phase of the job that has come furthest. Returns zero while it waits.
pub async fn advance(store: &SqliteStore, furthest: Phase) -> Result<usize, StoreError> {
    let step = JobSize { rows: 16, bytes: 1 << 20 };
    match furthest {
        Phase::Walk | Phase::Answers => Ok(0),
        // Jobs that come so far later are part of the next round.
        Phase::Emptied => store.write(JobSize::ONE_ROW, |tx| enter(tx, Phase::Overwriting)).await,
        Phase::Overwriting => store.write(step, overwrite_free_pages).await,
        Phase::GivingBack => {
            if store.write(step, give_back).await? > 0 {
                return Ok(1);
            }
            match store.writer()?.empty_log_step().await? {
                EmptyStep::Copying => Ok(1),
                EmptyStep::HeldByReader => Ok(0),
                EmptyStep::Empty => store.write(JobSize::ONE_ROW, end).await,
            }
        }
    }
}

/// Moves the jobs of the phase before to this one.
fn enter(tx: &mut WriteTx<'_>, phase: Phase) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE erasures SET phase = ?1 WHERE status < 2 AND phase = ?1 - 1")?
        .execute([phase.code()])
}

fn overwrite_free_pages(tx: &mut WriteTx<'_>) -> Result<usize, rusqlite::Error> {
    let pages = free_pages(tx)?.min(PAGES_PER_STEP);
    if pages > 0 {
        let page_bytes: i64 = tx.connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        // Each overflow page begins with the number of the next one.
        let bytes = pages * (page_bytes - 4) + BESIDE_OVERFLOW;
        tx.connection
            .prepare_cached("INSERT INTO erasure_filler (key, zeros) VALUES (?1, zeroblob(?2))")?
            .execute([tx.next_key().as_i64(), bytes])?;
    }
    if free_pages(tx)? == 0 {
        enter(tx, Phase::GivingBack)?;
    }
    Ok(1)
}

fn free_pages(tx: &WriteTx<'_>) -> Result<i64, rusqlite::Error> {
    tx.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))
}

/// Returns how many rows of zeros were removed.
fn give_back(tx: &mut WriteTx<'_>) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached("DELETE FROM erasure_filler WHERE key = (SELECT MIN(key) FROM erasure_filler)")?
        .execute([])
}

fn end(tx: &mut WriteTx<'_>) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "UPDATE erasures SET status = ?1, completed_at = ?2, waiting = 0 WHERE status < 2 AND phase = ?3",
        )?
        .execute([ErasureStatus::Erased.code(), tx.now.millis(), Phase::GivingBack.code()])
}
