//! The file of a backup and its manifest: written under a name that ends in `.partial`, moved into place when both are
//! whole and on disk, and checked before they are used.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use postrider_crypto::Sha256;
use postrider_domain::limits;
use postrider_domain::secret::hex;

use super::{BackupError, MANIFEST_FORMAT, Manifest};

/// The bytes and the SHA-256 of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// A backup that is being written. Dropped before its end, it removes what it has written.
#[derive(Debug)]
pub struct PartialBackup {
    to: PathBuf,
    partial: PathBuf,
    replace: bool,
    is_finished: bool,
}

impl PartialBackup {
    /// Creates an empty file that only its owner reads. Removes the rest of a backup that was killed.
    ///
    /// # Errors
    /// When the file exists and may not be replaced, or cannot be created.
    pub fn create(to: &Path, replace: bool) -> Result<Self, BackupError> {
        refuse_existing(to, replace)?;
        let partial = with_suffix(to, ".partial");
        remove_partial(&partial);
        remove_partial(&manifest_path(&partial));
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        created.map_err(|source| BackupError::NotAFile { path: to.display().to_string(), source })?;
        Ok(Self { to: to.to_owned(), partial, replace, is_finished: false })
    }

    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Flushes the file, writes the manifest beside it, and moves both into place. `describe` makes the manifest.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(mut self, describe: impl FnOnce(Digest) -> Manifest) -> Result<Manifest, BackupError> {
        let fault = |source: io::Error| write_fault(&self.to, source);
        File::open(&self.partial).and_then(|file| file.sync_all()).map_err(fault)?;
        let manifest = describe(digest(&self.partial).map_err(fault)?);
        let (partial_manifest, final_manifest) = (manifest_path(&self.partial), manifest_path(&self.to));
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| write_fault(&self.to, error))?;
        write_whole(&partial_manifest, &text).map_err(fault)?;
        refuse_existing(&self.to, self.replace)?;
        // A backup without a manifest can be restored. One with the manifest of another cannot.
        remove_if_there(&final_manifest).map_err(fault)?;
        std::fs::rename(&self.partial, &self.to).map_err(fault)?;
        std::fs::rename(&partial_manifest, &final_manifest).map_err(fault)?;
        sync_folder_of(&self.to).map_err(fault)?;
        self.is_finished = true;
        Ok(manifest)
    }
}

impl Drop for PartialBackup {
    fn drop(&mut self) {
        if !self.is_finished {
            remove_partial(&self.partial);
            remove_partial(&manifest_path(&self.partial));
        }
    }
}

fn refuse_existing(to: &Path, replace: bool) -> Result<(), BackupError> {
    let path = || to.display().to_string();
    match std::fs::symlink_metadata(to) {
        Ok(found) if found.is_dir() => {
            let source = io::Error::from(io::ErrorKind::IsADirectory);
            Err(BackupError::NotAFile { path: path(), source })
        }
        Ok(_) if !replace => Err(BackupError::Exists { path: path() }),
        _ => Ok(()),
    }
}

/// Where the manifest of a backup is.
pub fn manifest_path(backup: &Path) -> PathBuf {
    with_suffix(backup, ".manifest")
}

/// Why the file of a backup is not as it was written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not the manifest of a backup, or of a newer version of postrider")]
    Form { path: String },
    #[error("the file has {found} bytes, but its manifest says {expected}: it was not copied whole, or was changed")]
    Length { expected: u64, found: u64 },
    #[error("the checksum of the file is {found}, but its manifest says {expected}: the file was changed or damaged")]
    Checksum { expected: String, found: String },
}

/// The manifest beside a backup. `None` when there is none.
///
/// # Errors
/// When it cannot be read.
pub fn read_manifest(backup: &Path) -> Result<Option<Manifest>, ManifestError> {
    let path = manifest_path(backup);
    let shown = || path.display().to_string();
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|source| ManifestError::Read { path: shown(), source })?,
    };
    let mut text = Vec::new();
    let read = file.take(limits::MANIFEST_BYTES).read_to_end(&mut text);
    read.map_err(|source| ManifestError::Read { path: shown(), source })?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| ManifestError::Form { path: shown() })?;
    if manifest.format != MANIFEST_FORMAT {
        return Err(ManifestError::Form { path: shown() });
    }
    Ok(Some(manifest))
}

impl Manifest {
    /// Whether the file is the one of this manifest.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, found: &Digest) -> Result<(), ManifestError> {
        if found.bytes != self.bytes {
            return Err(ManifestError::Length { expected: self.bytes, found: found.bytes });
        }
        if found.sha256 != self.sha256 {
            return Err(ManifestError::Checksum { expected: self.sha256.clone(), found: found.sha256.clone() });
        }
        Ok(())
    }
}

/// Reads a whole file.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> io::Result<Digest> {
    copy_and_digest(path, &mut io::sink())
}

/// Copies a whole file, and computes its digest meanwhile.
///
/// # Errors
/// When it cannot be read or written.
pub fn copy_and_digest(from: &Path, to: &mut impl io::Write) -> io::Result<Digest> {
    let (mut file, mut hash, mut bytes) = (File::open(from)?, Sha256::default(), 0);
    let mut part = vec![0; 256 * 1024];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(Digest { bytes, sha256: hex(&hash.finish()) }),
            read => {
                hash.update(&part[..read]);
                to.write_all(&part[..read])?;
                bytes += read as u64;
            }
        }
    }
}

/// Refuses to write `needed` bytes in the folder if too few are free. A file system that does not say is taken as
/// empty.
///
/// # Errors
/// When they do not fit.
pub fn check_space(folder: &Path, needed: u64) -> Result<(), BackupError> {
    let needed = needed.saturating_add(limits::BACKUP_SPARE_BYTES);
    let free = free_bytes(folder).unwrap_or(u64::MAX);
    if free >= needed {
        return Ok(());
    }
    Err(BackupError::NoSpace { path: folder.display().to_string(), needed, free })
}

/// The bytes that this process may still write in the file system of the folder.
///
/// # Errors
/// When the file system does not say.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Writes a new file and flushes it.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Flushes the folder of a file, so that its name survives a power failure.
///
/// # Errors
/// When the folder cannot be flushed.
pub fn sync_folder_of(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Removes a partial file of SQLite, with what SQLite keeps beside it.
fn remove_partial(partial: &Path) {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        // A file that stays is reported by the next step that needs its name.
        drop(remove_if_there(&with_suffix(partial, suffix)));
    }
}

/// # Errors
/// When it is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn write_fault(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackupError {
    BackupError::Write { path: path.display().to_string(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn manifest(found: Digest) -> Manifest {
        Manifest {
            format: MANIFEST_FORMAT,
            postrider: "1.0.0".to_owned(),
            schema_version: 18,
            store_tag: "00c0ffee".to_owned(),
            taken_at: "2026-05-15T12:00:00.000Z".to_owned(),
            last_key: 7,
            last_key_at: "2026-05-15T12:00:00.000Z".to_owned(),
            bytes: found.bytes,
            sha256: found.sha256,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_finished_backup_is_private_and_checked_by_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a.db");
        let partial = PartialBackup::create(&to, false).unwrap();
        std::fs::write(partial.path(), "the content").unwrap();
        let written = partial.finish(manifest).unwrap();
        assert_eq!(names(folder.path()), ["a.db", "a.db.manifest"]);
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_manifest(&to).unwrap().unwrap(), written);
        written.check(&digest(&to).unwrap()).unwrap();
        std::fs::write(&to, "the Content").unwrap();
        assert!(matches!(written.check(&digest(&to).unwrap()), Err(ManifestError::Checksum { .. })));
        std::fs::write(&to, "the conten").unwrap();
        assert!(matches!(written.check(&digest(&to).unwrap()), Err(ManifestError::Length { .. })));
    }

    #[test]
    fn a_file_is_replaced_only_on_command_and_only_by_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a.db");
        std::fs::write(&to, "older").unwrap();
        std::fs::write(manifest_path(&to), "older").unwrap();
        assert!(matches!(PartialBackup::create(&to, false), Err(BackupError::Exists { .. })));
        drop(PartialBackup::create(&to, true).unwrap());
        assert_eq!(std::fs::read(&to).unwrap(), b"older");
        assert_eq!(names(folder.path()), ["a.db", "a.db.manifest"]);
        PartialBackup::create(&to, true).unwrap().finish(manifest).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"");
    }

    #[test]
    fn the_rest_of_a_killed_backup_is_removed_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a.db");
        let killed = PartialBackup::create(&to, false).unwrap();
        std::fs::write(with_suffix(killed.path(), "-wal"), "rest").unwrap();
        std::fs::write(killed.path(), "half").unwrap();
        std::mem::forget(killed);
        let next = PartialBackup::create(&to, false).unwrap();
        assert_eq!(std::fs::read(next.path()).unwrap(), b"");
        drop(next);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn a_folder_and_a_missing_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for to in [folder.path().to_owned(), folder.path().join("gone/a.db")] {
            assert!(matches!(PartialBackup::create(&to, true), Err(BackupError::NotAFile { .. })), "{}", to.display());
        }
    }

    #[test]
    fn a_manifest_of_another_form_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        assert_eq!(read_manifest(&file).unwrap(), None);
        let text = serde_json::to_string(&manifest(Digest { bytes: 1, sha256: String::new() })).unwrap();
        for text in ["", "{}", &text.replace("\"format\":1", "\"format\":2")] {
            std::fs::write(manifest_path(&file), text).unwrap();
            assert!(matches!(read_manifest(&file), Err(ManifestError::Form { .. })), "{text}");
        }
    }

    #[test]
    fn a_file_system_that_is_too_full_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        check_space(folder.path(), 1).unwrap();
        assert!(matches!(check_space(folder.path(), u64::MAX / 2), Err(BackupError::NoSpace { .. })));
    }
}
