//! Temporary directories of a run.

use std::io;
use std::path::PathBuf;

use postrider_domain::secret::hex;

/// A directory that is removed when it is dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("postrider-bench-{}", random_name()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// 16 random hexadecimal digits.
pub fn random_name() -> String {
    hex(&postrider_crypto::Random::default().bytes::<8>())
}
