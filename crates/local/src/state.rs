//! The state that `postrider dev` keeps between starts: its API key, and its endpoint with the secret, which the API
//! shows only once.
//!
//! The file is `dev.json` in the data directory, readable only by its owner.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use postrider_domain::id::EndpointId;
use postrider_domain::secret::WebhookSecret;

use super::client::BearerKey;

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "dev.json";

#[derive(Clone, Debug)]
pub struct DevState {
    pub api_key: BearerKey,
    /// `None` until the receiver is registered.
    pub registration: Option<Registration>,
}

/// The local receiver as the API knows it.
#[derive(Clone, Debug)]
pub struct Registration {
    pub endpoint_id: EndpointId,
    pub secret: WebhookSecret,
    pub receiver_port: u16,
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is damaged: remove it, and the next start creates a new key and endpoint", path.display())]
    Damaged { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateFile {
    api_key: String,
    registration: Option<FileRegistration>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRegistration {
    endpoint_id: String,
    secret: String,
    receiver_port: u16,
}

impl DevState {
    pub fn new(api_key: BearerKey) -> Self {
        Self { api_key, registration: None }
    }

    /// Loads the state of the last start; `None` on the first.
    ///
    /// # Errors
    /// When the file exists but cannot be read or parsed.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, StateError> {
        let path = data_dir.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { path, source }),
        };
        Self::from_text(&text).map(Some).map_err(|source| StateError::Damaged { path, source })
    }

    /// Replaces the file atomically, so that a crash leaves either the old or the new one.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn save(&self, data_dir: &Path) -> Result<(), StateError> {
        let path = data_dir.join(FILE_NAME);
        let scratch = data_dir.join(format!(".{FILE_NAME}.new"));
        write_private(&scratch, self.to_text().as_bytes())
            .and_then(|()| fs::rename(&scratch, &path))
            .map_err(|source| StateError::Write { path, source })
    }

    fn from_text(text: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let file: StateFile = serde_json::from_str(text)?;
        let registration = match file.registration {
            None => None,
            Some(FileRegistration { endpoint_id, secret, receiver_port }) => Some(Registration {
                endpoint_id: endpoint_id.parse()?,
                secret: WebhookSecret::parse(&secret)?,
                receiver_port,
            }),
        };
        Ok(Self { api_key: BearerKey::parse(&file.api_key)?, registration })
    }

    fn to_text(&self) -> Zeroizing<String> {
        let registration = self.registration.as_ref().map(|registration| FileRegistration {
            endpoint_id: registration.endpoint_id.to_string(),
            secret: registration.secret.reveal().to_owned(),
            receiver_port: registration.receiver_port,
        });
        let file = StateFile { api_key: self.api_key.reveal().to_owned(), registration };
        Zeroizing::new(serde_json::to_string_pretty(&file).expect("strings and numbers are valid JSON") + "\n")
    }
}

/// Always creates a new file, because the mode applies only at creation.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> DevState {
        let registration = Registration {
            endpoint_id: EndpointId::from_letters(*b"a1b2c3d4e5f6g7h8"),
            secret: WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
            receiver_port: 40_123,
        };
        DevState { api_key: BearerKey::parse("scripe_sk_live_abc").unwrap(), registration: Some(registration) }
    }

    #[test]
    fn a_saved_state_is_loaded_and_a_first_start_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DevState::load(folder.path()).unwrap().is_none());
        DevState::new(BearerKey::parse("first").unwrap()).save(folder.path()).unwrap();
        assert!(DevState::load(folder.path()).unwrap().unwrap().registration.is_none());
        state().save(folder.path()).unwrap();
        let loaded = DevState::load(folder.path()).unwrap().unwrap();
        assert_eq!(*loaded.to_text(), *state().to_text());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for name in [FILE_NAME.to_owned(), format!(".{FILE_NAME}.new")] {
            fs::write(folder.path().join(&name), "open to all").unwrap();
            fs::set_permissions(folder.path().join(&name), fs::Permissions::from_mode(0o666)).unwrap();
        }
        state().save(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        for damage in ["", "{}", r#"{"apiKey":"a b","registration":null}"#] {
            fs::write(folder.path().join(FILE_NAME), damage).unwrap();
            let error = DevState::load(folder.path()).unwrap_err();
            assert!(error.to_string().contains("dev.json is damaged: remove it"), "{error}");
        }
    }

    #[test]
    fn debug_prints_neither_key_nor_secret() {
        let printed = format!("{:?}", state());
        assert!(!printed.contains("sk_live") && !printed.contains("whsec"), "{printed}");
    }
}
