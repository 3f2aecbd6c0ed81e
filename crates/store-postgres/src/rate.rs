//! The request counts of the nodes. Writes `rate_counts`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use postrider_domain::id::RowKey;
use postrider_domain::rate_limit::RateBucket;
use postrider_domain::shared_rate::CountsByAge;
use postrider_store::{RateCounts, SharedRates, StoreError};

use crate::PostgresStore;
use crate::machinery::column::{get, int, key, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};

/// Rows older than this count no more. Twice the window, so that no clock of a node matters.
const KEPT_MILLIS: i64 = 120_000;
/// How often old rows are removed.
const REMOVE_EVERY_MILLIS: i64 = 60_000;

/// When this process last removed old rows.
#[derive(Default)]
pub struct OldRatesRemoved(AtomicI64);

#[async_trait]
impl SharedRates for PostgresStore {
    fn nodes_that_share(&self) -> Option<u32> {
        Some(u32::try_from(self.database.nodes.load(Ordering::Relaxed)).unwrap_or(u32::MAX))
    }

    async fn exchange_rates(&self, node: i64, counts: Vec<RateCounts>) -> Result<Vec<RateCounts>, StoreError> {
        let (workspaces, buckets): (Vec<i64>, Vec<String>) = counts.iter().map(name_of).unzip();
        let texts: Vec<String> = counts.iter().map(|counted| counted.counts.to_text()).collect();
        let now = self.database.time.about_now().millis();
        let is_time = now - self.old_rates_removed.0.load(Ordering::Relaxed) >= REMOVE_EVERY_MILLIS;
        let (stored_workspaces, stored_buckets) = (workspaces.clone(), buckets.clone());
        self.write(effect!(|tx, stored_workspaces, stored_buckets, texts| async move {
            store(tx, node, stored_workspaces, stored_buckets, texts).await?;
            if is_time { remove_old(tx).await } else { Ok(()) }
        }))
        .await?;
        if is_time {
            self.old_rates_removed.0.store(now, Ordering::Relaxed);
        }
        // A transaction of its own, after the commit: two nodes that store at once must not both miss the other.
        self.read(move |session| Box::pin(read_others(session, node, workspaces, buckets))).await
    }
}

fn name_of(counts: &RateCounts) -> (i64, String) {
    (counts.workspace.as_i64(), counts.bucket.as_str().to_owned())
}

async fn store(
    tx: &WriteTx,
    node: i64,
    workspaces: Vec<i64>,
    buckets: Vec<String>,
    counts: Vec<String>,
) -> Result<(), PgError> {
    tx.execute(
        "INSERT INTO rate_counts (workspace_key, bucket, node, stored_at, counts)
         SELECT workspace_key, bucket, $4, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, counts
         FROM unnest($1, $2, $3) AS given (workspace_key, bucket, counts)
         ON CONFLICT (workspace_key, bucket, node)
         DO UPDATE SET stored_at = excluded.stored_at, counts = excluded.counts",
        &[&workspaces, &buckets, &counts, &node],
    )
    .await?;
    Ok(())
}

async fn remove_old(tx: &WriteTx) -> Result<(), PgError> {
    let sql = "DELETE FROM rate_counts WHERE stored_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1";
    tx.execute(sql, &[&KEPT_MILLIS]).await?;
    Ok(())
}

async fn read_others(
    session: &Session,
    node: i64,
    workspaces: Vec<i64>,
    buckets: Vec<String>,
) -> Result<Vec<RateCounts>, PgError> {
    let rows = session
        .query(
            "SELECT workspace_key, bucket, counts,
                    (extract(epoch FROM clock_timestamp()) * 1000)::bigint - stored_at AS age
             FROM rate_counts JOIN unnest($1, $2) AS asked (workspace_key, bucket) USING (workspace_key, bucket)
             WHERE node <> $3 AND stored_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $4",
            &[&workspaces, &buckets, &node, &KEPT_MILLIS],
        )
        .await?;
    rows.iter().map(counts_from_row).collect()
}

fn counts_from_row(row: &Row) -> Result<RateCounts, PgError> {
    let workspace: RowKey = key(row, "workspace_key")?;
    let age = Duration::from_millis(u64::try_from(int(row, "age")?).unwrap_or_default());
    let bucket = RateBucket::parse(get(row, "bucket")?).ok_or_else(|| unexpected("rate_counts.bucket"))?;
    let counts = CountsByAge::from_text(get(row, "counts")?).ok_or_else(|| unexpected("rate_counts.counts"))?;
    Ok(RateCounts { workspace, bucket, counts, age })
}
