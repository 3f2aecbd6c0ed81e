//! The data directory: private to its owner, and used by one process at a time, whichever store that process has.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use super::OpenError;

/// Held as long as the directory is in use. Two processes in one directory would each take the other's files for their
/// own.
#[derive(Debug)]
pub struct DirectoryLock {
    /// Closing the file releases the lock.
    _file: File,
}

/// Tries and waits for a lock that is held. A process that ends, or starts another, releases its locks a moment later
/// than it appears to.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(25);

impl DirectoryLock {
    /// Creates the directory if it does not exist.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be used.
    pub fn take(directory: &Path) -> Result<Self, OpenError> {
        let fault = |path: &Path, source| OpenError::Directory { path: path.display().to_string(), source };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| fault(directory, source))?;
        let path = directory.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|source| fault(&path, source))?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
                Err(TryLockError::Error(source)) => return Err(fault(&path, source)),
            }
        }
        Err(OpenError::InUse { path: directory.display().to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_by_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(directory.path()).unwrap();
        assert!(matches!(DirectoryLock::take(directory.path()), Err(OpenError::InUse { .. })));
        drop(held);
        assert!(DirectoryLock::take(directory.path()).is_ok());
    }
}
