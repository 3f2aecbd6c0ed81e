//! The size of the database. The disk is the database server's, so nothing is known of what it has left.

use postrider_store::StoreError;
use postrider_store::disk::DiskUse;

use crate::PostgresStore;
use crate::machinery::column::number;

pub async fn measure(store: &PostgresStore) -> Result<DiskUse, StoreError> {
    let bytes = store
        .read(|session| {
            Box::pin(async move {
                let sql = "SELECT pg_database_size(current_database()) AS bytes";
                number::<u64>(&session.query_one(sql, &[]).await?, "bytes")
            })
        })
        .await?;
    Ok(DiskUse { used: bytes, held: bytes, reserve: 0, free: None, size: None, rows_make_room: false })
}
