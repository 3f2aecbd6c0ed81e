//! The admin socket: how commands act on a store that a running server holds.
//!
//! A running server locks its data directory, so a command sends its request through a Unix socket in that directory:
//! one line of JSON in each direction. Without a server the command opens the store itself; on PostgreSQL, other nodes
//! may run meanwhile. Both ways end in [`execute`].

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

use postrider_crypto::MasterKey;
use postrider_domain::access::{ApiKeyName, Mode, Scope, Scopes};
use postrider_domain::audit::AuditFilter;
use postrider_domain::error_chain::Chain;
use postrider_domain::id::{ApiKeyId, WorkspaceId};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest, encode_cursor};
use postrider_domain::time::{Day, Timestamp};
use postrider_domain::workspace::{InvalidWorkspaceName, WorkspaceName};
use postrider_service::{CreateApiKey, CreateLoginCode, KeyChangeProgress, Operator, ServiceError};
use postrider_store::backup::Manifest;

pub use super::admin_listed::{AuditListed, KeyListed, RefusalListed, WorkspaceListed};

use super::backup::{self, BackUp, BackupProgress};
use super::erase_request::{self, EraseWhat, ErasureListed};
use super::error::StartError;
use super::key_file::{self, KeyFileError};

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum AdminRequest {
    CreateKey(CreateKey),
    /// Creates a code that signs in to the dashboard.
    CreateLogin(CreateLogin),
    RevokeKey {
        id: String,
        /// Also the keys that it made, and those that they made.
        #[serde(default)]
        with_children: bool,
    },
    /// Starts the erasure of an event, or those of a project in a workspace.
    Erase {
        what: EraseWhat,
        pending: String,
    },
    /// How far an erasure is.
    Erasure {
        id: String,
    },
    /// Whether the server can read and write its store.
    Health,
    /// Copies the store into a file. Answered by lines of progress before the last answer.
    Backup(BackUp),
    /// Begins a change of the master key, or does its next steps.
    RotateMaster {
        key: KeyDigits,
    },
    /// A page of a list, newest first. `workspace` is a name or an id; `None` means all workspaces.
    List {
        what: Listing,
        workspace: Option<String>,
        limit: u32,
        cursor: Option<String>,
        /// Only entries of the audit log from this instant on.
        #[serde(default)]
        since: Option<String>,
        /// Only entries of the audit log before this instant.
        #[serde(default)]
        until: Option<String>,
    },
}

/// A master key on its way through the socket, which only its owner can open. Never printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyDigits(String);

impl KeyDigits {
    /// Reads a key file, which must exist.
    ///
    /// # Errors
    /// When the file cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        key_file::load(path)?;
        let fault = |source| KeyFileError::Read { path: path.display().to_string(), source };
        Ok(Self(std::fs::read_to_string(path).map_err(fault)?))
    }

    /// The key, if the digits are of one.
    pub fn key(&self) -> Option<MasterKey> {
        key_file::parse(self.0.trim())
    }
}

impl Drop for KeyDigits {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for KeyDigits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDigits(…)")
    }
}

/// Creates a key, and its workspace if a name is given that does not exist.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CreateKey {
    /// A name or an id. `None` means the server's own workspace.
    pub workspace: Option<String>,
    pub name: Option<String>,
    pub scopes: Vec<String>,
    pub test: bool,
    /// The key stops working at 00:00 UTC of this day.
    pub expires: Option<String>,
}

/// Creates a login code.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CreateLogin {
    /// A name or an id. `None` means the server's own workspace.
    pub workspace: Option<String>,
    /// Empty means the default of the workspace.
    pub scopes: Vec<String>,
    pub test: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listing {
    Keys,
    Workspaces,
    Audit,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub enum AdminResponse {
    KeyCreated(KeyCreated),
    LoginCreated(LoginCreated),
    KeyRevoked {
        id: String,
        /// Other keys that were revoked with it.
        #[serde(default)]
        children: Vec<String>,
    },
    Keys {
        items: Vec<KeyListed>,
        next: Option<String>,
    },
    Workspaces {
        items: Vec<WorkspaceListed>,
        next: Option<String>,
    },
    Audit {
        items: Vec<AuditListed>,
        next: Option<String>,
    },
    Erasures {
        items: Vec<ErasureListed>,
    },
    MasterRotated {
        progress: KeyChangeProgress,
    },
    Health {
        ready: bool,
        /// The server sends nothing.
        #[serde(default)]
        restored_copy: bool,
    },
    BackupProgress(BackupProgress),
    BackedUp {
        manifest: Manifest,
    },
    Refused {
        message: String,
    },
}

/// A new key. Its plaintext is shown only here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyCreated {
    pub id: String,
    pub key: String,
    pub workspace_id: String,
    pub scopes: Vec<String>,
}

/// A login code. It is shown only here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginCreated {
    pub code: String,
    pub expires_at: String,
    pub valid_seconds: u64,
    pub scopes: Vec<String>,
    /// Of the running server. `None` when none runs.
    pub public_url: Option<String>,
}

/// Shows everything but the code.
impl std::fmt::Debug for LoginCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginCreated").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Why a request to a running server failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No server runs on this directory.
    #[error("no server answers at the admin socket")]
    NoServer,
    #[error("cannot read from or write to the admin socket")]
    Io(#[from] std::io::Error),
    #[error("cannot parse the server's answer: is the server of another version?")]
    Answer(#[from] serde_json::Error),
}

pub async fn execute(operator: &Operator, request: AdminRequest) -> AdminResponse {
    let outcome = match request {
        AdminRequest::CreateKey(create) => create_key(operator, create).await,
        AdminRequest::CreateLogin(create) => create_login(operator, create).await,
        AdminRequest::RevokeKey { id, with_children } => revoke_key(operator, &id, with_children).await,
        AdminRequest::Erase { what, pending } => erase_request::erase(operator, what, &pending).await,
        AdminRequest::Erasure { id } => erase_request::erasure(operator, &id).await,
        AdminRequest::Health => {
            let restored_copy = operator.is_restored_copy();
            Ok(AdminResponse::Health { ready: operator.is_ready().await, restored_copy })
        }
        AdminRequest::Backup(request) => backup::execute(operator, request).await,
        AdminRequest::RotateMaster { key } => rotate_master(operator, &key).await,
        AdminRequest::List { what, workspace, limit, cursor, since, until } => {
            match list_parameters(limit, cursor.as_deref(), since.as_deref(), until.as_deref()) {
                Ok((filter, page)) => list(operator, what, workspace.as_deref(), filter, page).await,
                Err(message) => Err(message),
            }
        }
    };
    outcome.unwrap_or_else(|message| AdminResponse::Refused { message })
}

async fn create_key(operator: &Operator, create: CreateKey) -> Result<AdminResponse, String> {
    let CreateKey { workspace, name, scopes, test, expires } = create;
    let name = name.map(|name| ApiKeyName::parse(&name)).transpose().map_err(|error| format!("the name {error}"))?;
    let scopes: Vec<Scope> = scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>().map_err(with_causes)?;
    let mode = if test { Mode::Test } else { Mode::Live };
    let expires_at = expires.map(|day| Day::parse(&day)).transpose().map_err(|error| format!("--expires {error}"))?;
    let create = CreateApiKey { name, mode, scopes: Scopes::of(&scopes), expires_at };
    let created = match &workspace {
        None => operator.create_operations_api_key(create).await.map_err(with_causes)?,
        Some(text) => match text.parse::<WorkspaceId>() {
            Ok(id) => operator.create_api_key_in(id, create).await.map_err(|error| match error {
                ServiceError::NotFound => format!("there is no workspace {id}"),
                other => with_causes(other),
            })?,
            Err(_) => {
                let name = WorkspaceName::parse(text).map_err(|error| name_fault(&error))?;
                operator.create_api_key(name, create).await.map_err(with_causes)?
            }
        },
    };
    Ok(AdminResponse::KeyCreated(KeyCreated {
        id: created.key.id.to_string(),
        key: created.secret.reveal().to_owned(),
        workspace_id: created.key.workspace_id.to_string(),
        scopes: created.key.scopes.iter().map(|scope| scope.to_string()).collect(),
    }))
}

async fn create_login(operator: &Operator, create: CreateLogin) -> Result<AdminResponse, String> {
    let CreateLogin { workspace, scopes, test } = create;
    let scopes: Vec<Scope> = scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>().map_err(with_causes)?;
    let create = CreateLoginCode {
        workspace: workspace.clone(),
        scopes: Some(Scopes::of(&scopes)).filter(|scopes| !scopes.is_empty()),
        mode: if test { Mode::Test } else { Mode::Live },
    };
    let created = operator.create_login_code(create).await.map_err(|error| match (error, workspace) {
        (ServiceError::NotFound, Some(workspace)) => {
            format!("there is no workspace {workspace:?}: `postrider workspaces list` shows them")
        }
        (ServiceError::NotFound, None) => {
            "there is no workspace \"operations\": set --operator-webhook-url, or create a key with --operations"
                .to_owned()
        }
        (other, _) => with_causes(other),
    })?;
    Ok(AdminResponse::LoginCreated(LoginCreated {
        expires_at: created.expires_at.to_string(),
        valid_seconds: limits::LOGIN_CODE_LIFETIME.as_secs(),
        scopes: created.scopes.iter().map(|scope| scope.to_string()).collect(),
        code: created.code,
        public_url: None,
    }))
}

fn name_fault(error: &InvalidWorkspaceName) -> String {
    let hint = if *error == InvalidWorkspaceName::Operations { " (use --operations)" } else { "" };
    format!("the workspace's name {error}{hint}")
}

async fn revoke_key(operator: &Operator, id: &str, with_children: bool) -> Result<AdminResponse, String> {
    let id: ApiKeyId = id.parse().map_err(|_| format!("{id:?} is not the id of an API key; one looks like key_…"))?;
    let revoked = match with_children {
        true => operator.revoke_with_children(id).await,
        false => operator.revoke_api_key(id).await.map(|key| vec![key.id]),
    };
    let revoked = revoked.map_err(|error| match error {
        ServiceError::NotFound => format!("there is no API key {id}"),
        other => with_causes(other),
    })?;
    let children = revoked.iter().filter(|child| **child != id).map(ToString::to_string).collect();
    Ok(AdminResponse::KeyRevoked { id: id.to_string(), children })
}

fn list_parameters(
    limit: u32,
    cursor: Option<&str>,
    since: Option<&str>,
    until: Option<&str>,
) -> Result<(AuditFilter, PageRequest), String> {
    let instant =
        |name, text: Option<&str>| text.map(Timestamp::parse).transpose().map_err(|error| format!("{name} {error}"));
    let filter =
        AuditFilter { since: instant("since", since)?, until: instant("until", until)?, ..AuditFilter::default() };
    let page = PageRequest::parse(Some(&limit.to_string()), cursor).map_err(with_causes)?;
    Ok((filter, page))
}

async fn rotate_master(operator: &Operator, key: &KeyDigits) -> Result<AdminResponse, String> {
    let new = key.key().ok_or("the new master key is not 64 hexadecimal digits")?;
    let progress = operator.rotate_master_key(&new).await.map_err(with_causes)?;
    Ok(AdminResponse::MasterRotated { progress })
}

async fn list(
    operator: &Operator,
    what: Listing,
    workspace: Option<&str>,
    filter: AuditFilter,
    page: PageRequest,
) -> Result<AdminResponse, String> {
    let failed = |error| match error {
        ServiceError::NotFound => format!("there is no workspace {:?}", workspace.unwrap_or_default()),
        other => with_causes(other),
    };
    Ok(match what {
        Listing::Keys => {
            let (items, next) = shown(operator.list_api_keys(workspace, page).await.map_err(failed)?);
            AdminResponse::Keys { items, next }
        }
        Listing::Workspaces => {
            let (items, next) = shown(operator.list_workspaces(page).await.map_err(failed)?);
            AdminResponse::Workspaces { items, next }
        }
        Listing::Audit => {
            let (items, next) = shown(operator.list_audit(workspace, filter, page).await.map_err(failed)?);
            AdminResponse::Audit { items, next }
        }
    })
}

fn shown<T, V: From<T>>(page: Page<T>) -> (Vec<V>, Option<String>) {
    (page.items.into_iter().map(V::from).collect(), page.next.map(encode_cursor))
}

pub(super) fn with_causes(error: impl std::error::Error + 'static) -> String {
    Chain(&error).to_string()
}

/// Sends a request to the server that holds the directory.
///
/// # Errors
/// [`AdminError::NoServer`] when none does.
pub async fn ask(socket: &Path, request: &AdminRequest) -> Result<AdminResponse, AdminError> {
    ask_watched(socket, request, |_| ()).await
}

/// As [`ask`]. Passes on the progress of a backup.
///
/// # Errors
/// As [`ask`].
pub async fn ask_watched(
    socket: &Path,
    request: &AdminRequest,
    mut progress: impl FnMut(BackupProgress),
) -> Result<AdminResponse, AdminError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let mut stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        NotFound | ConnectionRefused => AdminError::NoServer,
        _ => AdminError::Io(error),
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answers = BufReader::new(stream);
    loop {
        let mut answer = String::new();
        (&mut answers).take(limits::ADMIN_ANSWER_BYTES).read_line(&mut answer).await?;
        match serde_json::from_str(&answer)? {
            AdminResponse::BackupProgress(now) => progress(now),
            last => return Ok(last),
        }
    }
}

/// Checks the path of the socket. To be called before anything is created in the directory.
pub fn check_path(path: &Path) -> Result<(), StartError> {
    if path.as_os_str().len() <= limits::SOCKET_PATH_BYTES {
        return Ok(());
    }
    let source = std::io::Error::other(format!(
        "the path is longer than the {} bytes that a Unix socket may have: use a shorter --data-dir",
        limits::SOCKET_PATH_BYTES
    ));
    Err(StartError::AdminSocket { path: path.display().to_string(), source })
}

/// Listens until `stop`. The caller holds the lock of the directory, so an existing socket belongs to no process.
/// Commands are told the public URL.
pub fn listen(
    path: &Path,
    operator: Operator,
    public_url: &str,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let fault = |source| StartError::AdminSocket { path: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let listener = bind_private(path).map_err(fault)?;
    let (path, public_url): (_, Arc<str>) = (path.to_owned(), public_url.into());
    Ok(tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (operator, public_url) = (operator.clone(), Arc::clone(&public_url));
                    let stop = stop.clone();
                    tokio::spawn(async move { converse(&operator, &public_url, stream, &stop).await });
                }
                Err(error) => tracing::warn!(error = %Chain(&error), "cannot accept a connection at the admin socket"),
            }
        }
        let _ = std::fs::remove_file(path);
    }))
}

/// Binds the socket in a private directory and moves it to its path once only its owner may open it. `bind` itself
/// gives it the mode that the umask leaves.
fn bind_private(path: &Path) -> std::io::Result<UnixListener> {
    // Both names are short, so that the path of the socket stays within its limit.
    let directory = path.with_file_name(".a");
    let unbound = directory.join("s");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let listener = UnixListener::bind(&unbound)?;
    std::fs::set_permissions(&unbound, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unbound, path)?;
    std::fs::remove_dir(&directory)?;
    Ok(listener)
}

async fn converse(operator: &Operator, public_url: &str, stream: UnixStream, stop: &CancellationToken) {
    let (read, mut write) = stream.into_split();
    let (mut read, mut line) = (BufReader::new(read.take(limits::ADMIN_REQUEST_BYTES)), String::new());
    match timeout(limits::ADMIN_DEADLINE, read.read_line(&mut line)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %Chain(&error), "cannot read a request at the admin socket");
            return;
        }
        Err(_) => return warn_of_deadline(),
    }
    let response = match serde_json::from_str(&line) {
        // It takes as long as it takes.
        Ok(AdminRequest::Backup(request)) => backup::converse(operator, request, read, &mut write, stop).await,
        Ok(request) => match timeout(limits::ADMIN_DEADLINE, execute(operator, request)).await {
            Ok(AdminResponse::LoginCreated(created)) => {
                AdminResponse::LoginCreated(LoginCreated { public_url: Some(public_url.to_owned()), ..created })
            }
            Ok(response) => response,
            Err(_) => return warn_of_deadline(),
        },
        Err(_) => AdminResponse::Refused {
            message: "the server does not know this request: is it of another version?".to_owned(),
        },
    };
    match timeout(limits::ADMIN_DEADLINE, write.write_all(&backup::line_of(&response))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %Chain(&error), "cannot write an answer at the admin socket"),
        Err(_) => warn_of_deadline(),
    }
}

fn warn_of_deadline() {
    tracing::warn!("a client of the admin socket exceeded the deadline");
}
