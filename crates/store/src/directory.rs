//! The data directory: private to its owner, and used by one process at a time, whichever store that process has.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
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
        let made = create_durable(directory);
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

/// Creates the directory, and those above it that are missing. Flushes the name of each in the one above it: a power
/// failure must not take the directory together with what was acknowledged in it.
fn create_durable(directory: &Path) -> std::io::Result<()> {
    let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).count();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    if missing == 0 {
        // Its name may not be flushed yet, as after a kill. But the one above need not be ours, nor readable.
        let _ = sync_parent(directory);
    }
    directory.ancestors().take(missing).try_for_each(sync_parent)?;
    // A process that was killed may have left names in it that no flush covers, such as that of a key.
    File::open(directory)?.sync_all()
}

/// Flushes the directory that holds this name, so that the name survives a power failure.
fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Creates a file that only its owner reads, with its whole content or not at all, whatever fails meanwhile. Once this
/// returns, the file survives a power failure.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_private_new(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let unfinished = path.with_file_name(name);
    // One that an earlier start left behind is incomplete.
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    // A link replaces no file, which a rename would.
    let linked = written.and_then(|()| std::fs::hard_link(&unfinished, path));
    let removed = std::fs::remove_file(&unfinished);
    linked?;
    removed?;
    sync_parent(path)
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
    fn a_directory_is_made_with_those_above_it() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b/c");
        drop(DirectoryLock::take(&directory).unwrap());
        drop(DirectoryLock::take(&directory).unwrap());
        assert!(directory.is_dir());
    }

    #[test]
    fn a_new_file_is_whole_and_replaces_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        // A start that was cut off has left this behind.
        std::fs::write(directory.path().join("master.key.new"), "hal").unwrap();
        write_private_new(&path, b"whole").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = write_private_new(&path, b"other").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
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
