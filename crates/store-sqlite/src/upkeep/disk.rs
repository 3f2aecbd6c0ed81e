//! The disk that the store uses: what its files take, what the file system has left, and the reserve.
//!
//! Free pages of the database count as room, because new rows use them first. So the files never take more than the
//! limit, although they do not shrink at once.
//!
//! The reserve is a file that holds space and nothing else. It is deleted when the disk is full, so that removals can
//! still be committed.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use postrider_store::StoreError;
use postrider_store::directory::create_private;
use postrider_store::disk::DiskUse;

use crate::machinery::schema;
use crate::{Drive, SqliteStore};

const RESERVE: &str = "reserve";

pub async fn measure(store: &SqliteStore) -> Result<DiskUse, StoreError> {
    let live = store.read(|tx| live_bytes(tx.connection)).await?;
    let directory = store.directory.clone();
    blocking(&store.drive, move || measure_files(&directory, live)).await
}

/// The bytes of pages that hold something. The zeros of an erasure stand in pages that are free again afterwards.
fn live_bytes(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, u64>(0));
    let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
    let zeros: u64 = connection
        .prepare_cached("SELECT COALESCE(SUM(octet_length(zeros)), 0) FROM erasure_filler")?
        .query_row([], |row| row.get(0))?;
    Ok((pages * number("PRAGMA page_size")?).saturating_sub(zeros))
}

fn measure_files(directory: &Path, live: u64) -> Result<DiskUse, std::io::Error> {
    let database = schema::database_path(directory);
    let log = bytes_of(&database.with_extension("db-wal"))?;
    let reserve = bytes_of(&directory.join(RESERVE))?;
    let file_system = statvfs(directory)?;
    Ok(DiskUse {
        used: live + log,
        held: bytes_of(&database)? + log + reserve,
        reserve,
        free: Some(file_system.f_bavail * file_system.f_frsize),
        size: Some(file_system.f_blocks * file_system.f_frsize),
        rows_make_room: true,
    })
}

fn bytes_of(file: &Path) -> Result<u64, std::io::Error> {
    match file.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

pub async fn hold_reserve(store: &SqliteStore, bytes: u64) -> Result<(), StoreError> {
    let path = store.directory.join(RESERVE);
    blocking(&store.drive, move || reserve(&path, bytes)).await
}

fn reserve(path: &Path, bytes: u64) -> Result<(), std::io::Error> {
    let removed = match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    if bytes == 0 {
        return removed;
    }
    removed?;
    let allocated = allocate(path, bytes);
    if allocated.is_err() {
        // A part of the reserve would count as a whole one.
        let _ = std::fs::remove_file(path);
    }
    allocated
}

fn allocate(path: &Path, bytes: u64) -> Result<(), std::io::Error> {
    create_private(path)?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // A file system that cannot allocate ahead takes the bytes themselves.
        Err(Errno::OPNOTSUPP) => {
            let block = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                file.write_all(&block[..part])?;
                left -= part as u64;
            }
            file.sync_data()
        }
        allocated => Ok(allocated?),
    }
}

async fn blocking<T: Send + 'static>(
    drive: &Drive,
    work: impl FnOnce() -> Result<T, std::io::Error> + Send + 'static,
) -> Result<T, StoreError> {
    drive.run(work).await?.map_err(|error| StoreError::Unavailable {
        why: "the data directory cannot be used",
        source: Some(error.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_takes_space_until_it_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(RESERVE);
        for bytes in [3_000_000, 1_000_000] {
            reserve(&path, bytes).unwrap();
            let measured = measure_files(directory.path(), 7).unwrap();
            assert_eq!((measured.used, measured.held, measured.reserve), (7, bytes, bytes));
        }
        reserve(&path, 0).unwrap();
        reserve(&path, 0).unwrap();
        assert!(!path.exists());
        assert!(measure_files(directory.path(), 0).unwrap().free.is_some_and(|free| free > 0));
    }
}
