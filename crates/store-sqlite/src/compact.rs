//! Rewrites the database of a stopped store without its free pages, so that its file is as small as its content.
//!
//! A new file replaces the old one by a rename, so a process that is killed leaves the old store or the new one. The
//! new file gives its free pages back in small steps from then on (`auto_vacuum`), and holds nothing of rows that were
//! removed.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use postrider_domain::error_chain::Chain;
use postrider_store::backup::CompactError;
use postrider_store::backup::file::{check_space, remove_if_there, sync_folder_of};
use postrider_store::directory::{DirectoryLock, create_private};

use crate::SqliteStore;
use crate::backup::{Depth, check_integrity};
use crate::machinery::schema;

/// The size of the database before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Compacts the store in a directory that no process uses.
///
/// # Errors
/// When a process uses it, there is too little room for the new file, or the database is damaged. The store is then as
/// it was.
pub fn compact(directory: &Path) -> Result<Compacted, CompactError> {
    if !SqliteStore::is_in(directory) {
        return Err(CompactError::NoStore { path: directory.display().to_string() });
    }
    let _lock = DirectoryLock::take(directory)?;
    let (database, compacted) = (schema::database_path(directory), compacted_path(directory));
    remove_rest(directory);
    let written = write_compacted(&database, &compacted).and_then(|sizes| {
        refuse_log(&database)?;
        std::fs::rename(&compacted, &database)
            .and_then(|()| sync_folder_of(&database))
            .map_err(|source| CompactError::Write { path: database.display().to_string(), source })?;
        Ok(sizes)
    });
    if written.is_err() {
        remove_rest(directory);
    }
    written
}

/// Removes the new file of a compaction that was killed. The old one is whole.
pub(crate) fn remove_rest(directory: &Path) {
    for suffix in ["compact", "compact-journal"] {
        if let Err(error) = remove_if_there(&directory.join(format!("postrider.db.{suffix}"))) {
            tracing::warn!(error = %Chain(&error), "cannot remove the rest of a compaction");
        }
    }
}

fn write_compacted(database: &Path, compacted: &Path) -> Result<Compacted, CompactError> {
    let connection = schema::connect(database).map_err(fault)?;
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).map_err(fault);
    number("PRAGMA wal_checkpoint(TRUNCATE)")?;
    let page_bytes = number("PRAGMA page_size")?;
    let bytes_before = number("PRAGMA page_count")? * page_bytes;
    let bytes_used = bytes_before - number("PRAGMA freelist_count")? * page_bytes;
    let folder = compacted.parent().unwrap_or(compacted);
    check_space(folder, bytes_used)?;
    let write_fault = |source| CompactError::Write { path: compacted.display().to_string(), source };
    create_private(compacted).map_err(write_fault)?;
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(fault)?;
    connection.execute("VACUUM INTO ?1", [compacted.to_string_lossy()]).map_err(fault)?;
    let version = schema::version(&connection).map_err(fault)?;
    connection.close().map_err(|(_, error)| fault(error))?;
    let new = Connection::open_with_flags(compacted, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(fault)?;
    if let Some(found) = check_integrity(&new, Depth::Quick).map_err(fault)? {
        return Err(CompactError::Damaged { fault: found });
    }
    if schema::version(&new).map_err(fault)? != version {
        return Err(CompactError::Damaged { fault: "its schema differs".to_owned() });
    }
    drop(new);
    let file = File::open(compacted).map_err(write_fault)?;
    file.sync_all().map_err(write_fault)?;
    let bytes_after = file.metadata().map_err(write_fault)?.len();
    Ok(Compacted { bytes_before, bytes_after })
}

/// A log that is left belongs to the old file and would destroy the new one.
fn refuse_log(database: &Path) -> Result<(), CompactError> {
    match std::fs::metadata(database.with_extension("db-wal")).is_ok_and(|log| log.len() > 0) {
        true => Err(CompactError::InUse),
        false => Ok(()),
    }
}

fn compacted_path(directory: &Path) -> PathBuf {
    directory.join("postrider.db.compact")
}

fn fault(error: rusqlite::Error) -> CompactError {
    CompactError::Database(error.into())
}
