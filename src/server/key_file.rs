//! The file of the master key: 64 hexadecimal digits, readable only by its owner.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::config::Settings;
use postrider_crypto::{MasterKey, Random};
use postrider_domain::secret::hex;
use postrider_store::directory::write_private_new;
use postrider_store::sealing::key_state::KEY_ID;
use postrider_store::{Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read the master key file {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write the master key file {path}")]
    Write {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the master key file {path} does not hold 64 hexadecimal digits")]
    Form { path: String },
    #[error("the master key file {path} is missing, but the store was created with a key: restore the file")]
    Gone { path: String },
    #[error("cannot read the id of the master key from the store")]
    Store(#[from] StoreError),
}

/// Reads the key of a file that must exist.
pub fn load(path: &Path) -> Result<MasterKey, KeyFileError> {
    let fault = |source| KeyFileError::Read { path: path.display().to_string(), source };
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fault)?);
    warn_if_readable_by_others(path);
    parse(text.trim()).ok_or_else(|| KeyFileError::Form { path: path.display().to_string() })
}

/// Reads the key. Creates one only in the data directory, and only for a store that has none yet.
pub async fn load_or_make(settings: &Settings, store: &dyn Store, random: &Random) -> Result<MasterKey, KeyFileError> {
    let path = settings.master_key_path();
    let shown = path.display().to_string();
    match load(&path) {
        Err(KeyFileError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && settings.master_key_file.is_none() =>
        {
            if store.meta(KEY_ID).await?.is_some() {
                return Err(KeyFileError::Gone { path: shown });
            }
            let bytes = Zeroizing::new(random.bytes::<32>());
            write(&path, &bytes).map_err(|source| KeyFileError::Write { path: shown.clone(), source })?;
            tracing::info!(
                path = shown,
                "created a master key; back it up: without it the secrets in the store are lost"
            );
            Ok(MasterKey::new(&bytes))
        }
        loaded => loaded,
    }
}

/// Reads a key: 64 hexadecimal digits.
pub fn parse(text: &str) -> Option<MasterKey> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    if text.len() != 2 * bytes.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(MasterKey::new(&bytes))
}

/// The file is whole and on disk when this returns, because a store must not outlive its key.
fn write(path: &Path, key: &[u8; 32]) -> std::io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", hex(key)));
    write_private_new(path, text.as_bytes())
}

fn warn_if_readable_by_others(path: &Path) {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "other users can read the master key file: set its mode to 600");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_hexadecimal_digits_are_a_key() {
        assert!(parse(&"0f".repeat(32)).is_some());
        assert_eq!(parse(&"0f".repeat(32)).unwrap().id(), parse(&"0F".repeat(32)).unwrap().id());
        for bad in ["", "0f", &"0f".repeat(31), &"0g".repeat(32), &"é".repeat(32), &"+f".repeat(32)] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_the_owner_reads_a_key_file_and_nothing_overwrites_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        write(&path, &[7; 32]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&path, &[8; 32]).is_err());
        assert_eq!(parse(std::fs::read_to_string(&path).unwrap().trim()).unwrap().id(), MasterKey::new(&[7; 32]).id());
    }
}
