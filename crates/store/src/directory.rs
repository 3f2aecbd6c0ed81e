//! The data directory: private to its owner, and used by one process at a time, whichever store that process has.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
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
        make_private(directory).map_err(|source| fault(directory, source))?;
        let path = directory.join("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
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

/// Creates a file that only its owner reads, or leaves the existing one. SQLite gives its log and its index the mode of
/// the database file.
///
/// # Errors
/// When the file cannot be created.
pub fn create_private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map(drop)
}

/// Takes the directory and the files in it from everybody but their owner, whatever umask they were created with. The
/// directory comes first, so that nobody else opens a file meanwhile.
fn make_private(directory: &Path) -> std::io::Result<()> {
    restrict(directory, 0o700)?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file_type = entry.file_type()?;
        if file_type.is_file() {
            match restrict(&entry.path(), 0o600) {
                // A file may go while the directory is read: SQLite removes its log.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                restricted => restricted?,
            }
        }
    }
    Ok(())
}

fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    if std::fs::metadata(path)?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
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
    #[test]
    fn a_directory_that_others_can_read_becomes_private() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = directory.path().join("master.key");
        std::fs::write(&file, "key").unwrap();
        for (path, open) in [(&*file, 0o644), (directory.path(), 0o755)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(open)).unwrap();
        }
        let _held = DirectoryLock::take(directory.path()).unwrap();
        create_private(&directory.path().join("new")).unwrap();
        assert_eq!(mode(directory.path()), 0o700);
        for name in ["master.key", "lock", "new"] {
            assert_eq!(mode(&directory.path().join(name)), 0o600, "{name}");
        }
    }
}
