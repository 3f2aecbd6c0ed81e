//! What an operator does from the command line, whether or not a server runs.
//!
//! A running server holds its data directory, so the command line sends its request through a Unix socket in that
//! directory: one line of JSON each way. Without a server it opens the directory itself. Both ways end in
//! [`execute`].

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::domain::access::{Mode, Scope, Scopes};
use crate::domain::id::ApiKeyId;
use crate::domain::workspace::WorkspaceName;
use crate::service::{CreateApiKey, Service};

use super::StartError;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum AdminRequest {
    CreateKey { workspace: String, scopes: Vec<String>, test: bool },
    RevokeKey { id: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub enum AdminResponse {
    KeyCreated(KeyCreated),
    KeyRevoked { id: String },
    Refused { message: String },
}

/// The one moment at which a key is shown.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyCreated {
    pub id: String,
    pub key: String,
    pub workspace_id: String,
    pub scopes: Vec<String>,
}

/// Why a running server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens: no server runs on this directory.
    #[error("no server answers at the admin socket")]
    NoServer,
    #[error("the admin socket failed")]
    Io(#[from] std::io::Error),
    #[error("the server's answer cannot be read; is it of another version?")]
    Answer(#[from] serde_json::Error),
}

/// A request of the longest kind is far below this.
const LINE_BYTES: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn execute(service: &Service, request: AdminRequest) -> AdminResponse {
    let outcome = match request {
        AdminRequest::CreateKey { workspace, scopes, test } => create_key(service, &workspace, &scopes, test).await,
        AdminRequest::RevokeKey { id } => revoke_key(service, &id).await,
    };
    outcome.unwrap_or_else(|message| AdminResponse::Refused { message })
}

async fn create_key(
    service: &Service,
    workspace: &str,
    scopes: &[String],
    test: bool,
) -> Result<AdminResponse, String> {
    let workspace = WorkspaceName::parse(workspace).map_err(|error| format!("the workspace's name {error}"))?;
    let scopes: Vec<Scope> = scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>().map_err(told)?;
    let mode = if test { Mode::Test } else { Mode::Live };
    let create = CreateApiKey { workspace, mode, scopes: Scopes::of(&scopes), expires_at: None };
    let created = service.create_api_key(create).await.map_err(told)?;
    tracing::info!(key_id = %created.key.id, workspace_id = %created.key.workspace_id, "API key created");
    Ok(AdminResponse::KeyCreated(KeyCreated {
        id: created.key.id.to_string(),
        key: created.secret.reveal().to_owned(),
        workspace_id: created.key.workspace_id.to_string(),
        scopes: created.key.scopes.iter().map(|scope| scope.to_string()).collect(),
    }))
}

async fn revoke_key(service: &Service, id: &str) -> Result<AdminResponse, String> {
    let id: ApiKeyId = id.parse().map_err(|_| format!("{id:?} is not the id of an API key; one looks like key_…"))?;
    service.revoke_api_key(id).await.map_err(|error| match error {
        crate::service::ServiceError::NotFound => format!("there is no API key {id}"),
        other => told(other),
    })?;
    tracing::info!(key_id = %id, "API key revoked");
    Ok(AdminResponse::KeyRevoked { id: id.to_string() })
}

fn told(error: impl std::error::Error + 'static) -> String {
    crate::telemetry::chain(&error)
}

/// Asks the server that holds the directory.
///
/// # Errors
/// [`AdminError::NoServer`] when none does.
pub async fn ask(socket: &Path, request: &AdminRequest) -> Result<AdminResponse, AdminError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let mut stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        NotFound | ConnectionRefused => AdminError::NoServer,
        _ => AdminError::Io(error),
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES)).read_line(&mut answer).await?;
    Ok(serde_json::from_str(&answer)?)
}

/// Listens until `stop`. The caller holds the directory's lock, so a socket that is there already is a dead one.
pub fn listen(path: &Path, service: Arc<Service>, stop: CancellationToken) -> Result<JoinHandle<()>, StartError> {
    let fault = |source| StartError::AdminSocket { path: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fault)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fault)?;
    let path = path.to_owned();
    Ok(tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let service = Arc::clone(&service);
                    tokio::spawn(async move {
                        if tokio::time::timeout(PATIENCE, converse(&service, stream)).await.is_err() {
                            tracing::warn!("a caller of the admin socket took too long");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "the admin socket could not take a caller"),
            }
        }
        let _ = std::fs::remove_file(path);
    }))
}

async fn converse(service: &Service, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    if let Err(error) = BufReader::new(read.take(LINE_BYTES)).read_line(&mut line).await {
        tracing::warn!(%error, "a request at the admin socket could not be read");
        return;
    }
    let response = match serde_json::from_str(&line) {
        Ok(request) => execute(service, request).await,
        Err(_) => AdminResponse::Refused {
            message: "the server does not know this request; is it of another version?".to_owned(),
        },
    };
    let mut answer = serde_json::to_vec(&response).unwrap_or_default();
    answer.push(b'\n');
    if let Err(error) = write.write_all(&answer).await {
        tracing::warn!(%error, "an answer at the admin socket could not be written");
    }
}
