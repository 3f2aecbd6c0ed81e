//! The profile file: the server and the key that commands use by default.
//!
//! It holds a key, so it must be readable by its owner alone.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::super::environment::config_directory;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub url: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    pub api_key: Option<Zeroizing<String>>,
    pub ca_file: Option<PathBuf>,
}

impl Profile {
    /// The profile of the user. Empty when there is none.
    pub fn load() -> anyhow::Result<Self> {
        match path() {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read the profile {shown}")),
        };
        let mode = file.metadata().with_context(|| format!("cannot read the profile {shown}"))?.mode();
        if mode & 0o077 != 0 {
            bail!("others may read the profile {shown} (mode {:o}): run chmod 600 {shown}", mode & 0o777);
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).with_context(|| format!("cannot read the profile {shown}"))?;
        // The error of the parser would show the line, which may be that of the key.
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("{shown}:{line}: {}. A profile has url, api_key and ca_file", error.message())
        })
    }
}

fn secret<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(Zeroizing::new(text)))
}

/// `$XDG_CONFIG_HOME/postrider/profile.toml`.
fn path() -> Option<PathBuf> {
    config_directory().map(|directory| directory.join("profile.toml"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(text: &str, mode: u32) -> anyhow::Result<Profile> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Profile::read(&path)
    }

    #[test]
    fn a_profile_names_server_and_key() {
        let profile = read("url = \"https://a.example\"\napi_key = \"k\"\n", 0o600).unwrap();
        assert_eq!(profile.url.as_deref(), Some("https://a.example"));
        assert_eq!(profile.api_key.unwrap().as_str(), "k");
        assert!(Profile::read(Path::new("/nowhere/profile.toml")).unwrap().url.is_none());
    }

    #[test]
    fn a_profile_that_others_may_read_is_refused() {
        for mode in [0o640, 0o604, 0o660] {
            let error = read("", mode).err().unwrap().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn an_error_in_a_profile_has_its_line_and_not_the_key() {
        for text in ["url = \"a\"\napi_key = [\"hush\"]\n", "url = \"a\"\napi_key = \"hush\n", "\nkey = \"hush\"\n"] {
            let error = format!("{:#}", read(text, 0o600).err().unwrap());
            assert!(error.contains("profile.toml:2:") && !error.contains("hush"), "{error}");
        }
    }
}
