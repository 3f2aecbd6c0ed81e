//! The setup of a run: a server with a new data directory, workspaces with a key each, and endpoints.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use postrider_domain::secret::{WebhookSecret, hex};
use postrider_local::client::{BearerKey, Client};

use super::arrivals::Arrivals;
use super::database::DatabaseOptions;
use super::directory::{Directory, random_name};
use super::error::BenchError;
use super::load::Load;
use super::process::{ServerProcess, directory_bytes};
use super::producer::connect;
use super::wire::read_message;

/// The servers under test and their workspaces.
pub struct TestBed {
    pub server: ServerProcess,
    program: PathBuf,
    /// The flags of the servers.
    flags: Vec<String>,
    /// Additional nodes on the same database, each with its directory.
    others: Vec<(ServerProcess, Directory)>,
    directory: Directory,
    operator: BearerKey,
    workspaces: Vec<Workspace>,
    /// Distinguishes the workspaces from those of an earlier run in the same database.
    tag: String,
    /// Whether the store is in a database, so that it outlives the directory.
    is_store_shared: bool,
}

/// The location of the store: the directory of each server, or one database for all.
pub struct StoreLocation {
    database: Option<DatabaseOptions>,
    /// The directory of the shared master key. All servers on a database need the same key.
    shared: Option<Directory>,
}

/// A workspace and a key for it.
#[derive(Clone)]
pub struct Workspace {
    pub id: String,
    pub key: BearerKey,
}

/// The event type that all endpoints of a run subscribe to.
const EVENT: &str = "post.created";
/// The scopes of a workspace's key: what publishers need, and who looks at the pages.
const SCOPES: [&str; 6] = ["webhooks:manage", "events:write", "events:read", "keys:manage", "audit:read", "dashboard"];
const REMOVED_DELIVERIES: &str = "postrider_retention_removed_rows_total{kind=\"deliveries\"}";
/// Concurrent requests during setup: enough that each commit contains several.
const SETUP_WORKERS: usize = 16;
/// Turns off limits that a benchmark exceeds.
const LIMITS: [&str; 4] = ["--rate-limit-management", "0", "--endpoints-per-project", "50000"];
const WITHOUT_METRICS: [&str; 2] = ["--metrics-listen", "off"];
const WITH_METRICS: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

impl TestBed {
    /// Starts a server, or several nodes. Their store contains only the key for the setup.
    pub async fn start(
        program: &Path,
        store: &StoreLocation,
        nodes: usize,
        flags: &[String],
    ) -> Result<Self, BenchError> {
        let directory = Directory::create()?;
        let store_flags = store.flags();
        let operator = make_operator_key(program, &directory.0, &store_flags).await?;
        let mut all = store_flags;
        all.extend(LIMITS.iter().map(ToString::to_string).chain(flags.iter().cloned()));
        let quiet: Vec<String> = all.iter().cloned().chain(WITHOUT_METRICS.map(str::to_owned)).collect();
        let server = ServerProcess::start(program, &directory.0, &quiet).await?;
        let mut others = Vec::new();
        for _ in 1..nodes {
            let directory = Directory::create()?;
            others.push((ServerProcess::start(program, &directory.0, &quiet).await?, directory));
        }
        let is_store_shared = store.database.is_some();
        Ok(Self {
            server,
            program: program.to_owned(),
            flags: all,
            others,
            directory,
            operator,
            workspaces: Vec::new(),
            tag: random_name(),
            is_store_shared,
        })
    }

    /// Stops the first server and starts it again with metrics, on the same store, with more flags.
    pub async fn restart_with(&mut self, more: &[String]) -> Result<(), BenchError> {
        let flags: Vec<String> =
            self.flags.iter().cloned().chain(WITH_METRICS.map(str::to_owned)).chain(more.iter().cloned()).collect();
        self.server.stop().await?;
        self.server = ServerProcess::start(&self.program, &self.directory.0, &flags).await?;
        Ok(())
    }

    /// Deliveries that retention has removed so far, if the first server has metrics.
    pub async fn removed_deliveries(&self) -> Result<Option<u64>, BenchError> {
        let Some(address) = self.server.metrics else { return Ok(None) };
        let (mut stream, mut buffer) = (connect(address).await?, BytesMut::new());
        stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        read_message(&mut stream, &mut buffer).await?;
        let scraped = String::from_utf8_lossy(&buffer);
        let value = scraped.lines().find_map(|line| line.strip_prefix(REMOVED_DELIVERIES)?.trim().parse().ok());
        value.map(Some).ok_or_else(|| BenchError::setup(format!("the metrics have no {REMOVED_DELIVERIES}")))
    }

    /// The directories of all nodes.
    pub fn directories(&self) -> Vec<PathBuf> {
        let others = self.others.iter().map(|(_, directory)| directory.0.clone());
        std::iter::once(self.directory.0.clone()).chain(others).collect()
    }

    /// All nodes.
    pub fn servers(&self) -> impl Iterator<Item = &ServerProcess> {
        std::iter::once(&self.server).chain(self.others.iter().map(|(server, _)| server))
    }

    /// Creates the workspaces and endpoints of a load, and gives their secrets to `arrivals`. The endpoints are spread
    /// over the base URLs in `sinks`. Returns the keys of the workspaces.
    pub async fn prepare(
        &mut self,
        load: &Load,
        sinks: &[String],
        arrivals: &Arc<Arrivals>,
    ) -> Result<Vec<String>, BenchError> {
        let workspaces: Arc<[Workspace]> = self.workspaces("bench", load.workspaces).await?.into();
        let workspace_of = |endpoint: &usize| load.workspace_of(endpoint / load.fan_out);
        let mut endpoints: Vec<usize> = (0..load.endpoints()).collect();
        endpoints.sort_by_key(workspace_of);
        let mut workers = Vec::new();
        for share in endpoints.chunks(endpoints.len().div_ceil(SETUP_WORKERS)) {
            let work = share.iter().map(|endpoint| {
                let url = format!("{}/{endpoint}", sinks[endpoint % sinks.len()]);
                let project = load.project_id(endpoint / load.fan_out);
                let body =
                    json!({ "name": format!("sink {endpoint}"), "url": url, "events": [EVENT], "projectId": project });
                (*endpoint, workspace_of(endpoint), body)
            });
            let (work, workspaces, arrivals) = (work.collect(), Arc::clone(&workspaces), Arc::clone(arrivals));
            workers.push(tokio::spawn(register(self.server.base_url(), work, workspaces, arrivals)));
        }
        for worker in workers {
            worker.await.map_err(io::Error::other)??;
        }
        Ok(workspaces.iter().map(|workspace| workspace.key.reveal().to_owned()).collect())
    }

    /// Creates workspaces with a common prefix in their names, each with a key.
    pub async fn workspaces(&mut self, name: &str, count: usize) -> Result<Vec<Workspace>, BenchError> {
        let mut client = self.client(&self.operator)?;
        let mut made = Vec::with_capacity(count);
        for number in 0..count {
            let name = json!({ "name": format!("{name} {} {number}", self.tag) });
            let workspace = client.post("/v1/workspaces", &name).await.map_err(BenchError::setup)?;
            let id = text(&workspace, "id")?;
            let scopes = json!({ "scopes": SCOPES });
            let key =
                client.post(&format!("/v1/workspaces/{id}/api-keys"), &scopes).await.map_err(BenchError::setup)?;
            made.push(Workspace { id, key: BearerKey::parse(&text(&key, "key")?).map_err(BenchError::setup)? });
        }
        self.workspaces.extend_from_slice(&made);
        Ok(made)
    }

    pub fn client(&self, key: &BearerKey) -> Result<Client, BenchError> {
        Client::new(&self.server.base_url(), key).map_err(BenchError::setup)
    }

    /// Stops the servers. Returns how long the first took, and the size of its directory in bytes.
    pub async fn stop(mut self) -> Result<(Duration, u64), BenchError> {
        if self.is_store_shared {
            self.delete_workspaces().await?;
        }
        for (mut server, _directory) in self.others {
            server.stop().await?;
        }
        let stop_took = self.server.stop().await?;
        Ok((stop_took, directory_bytes(&self.directory.0)))
    }
}

impl TestBed {
    /// Deletes the workspaces, so that the next server on this store finds no waiting deliveries.
    async fn delete_workspaces(&self) -> Result<(), BenchError> {
        let mut client = self.client(&self.operator)?;
        for workspace in &self.workspaces {
            client.delete(&format!("/v1/workspaces/{}", workspace.id)).await.map_err(BenchError::setup)?;
        }
        Ok(())
    }
}

impl StoreLocation {
    pub fn prepare(database: Option<DatabaseOptions>) -> Result<Self, BenchError> {
        let shared = database.is_some().then(Directory::create).transpose()?;
        if let Some(directory) = &shared {
            let key = hex(&postrider_crypto::Random::default().bytes::<32>());
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(master_key_path(directory))?;
            file.write_all(key.as_bytes())?;
        }
        Ok(Self { database, shared })
    }

    /// The flags for `serve` and `keys`.
    fn flags(&self) -> Vec<String> {
        let mut flags = self.database.as_ref().map_or_else(Vec::new, DatabaseOptions::flags);
        if let Some(directory) = &self.shared {
            flags.extend(["--master-key-file".to_owned(), master_key_path(directory).display().to_string()]);
        }
        flags
    }

    pub fn database_cpu(&self) -> Option<Duration> {
        self.database.as_ref()?.cpu()
    }
}

fn master_key_path(directory: &Directory) -> PathBuf {
    directory.0.join("master.key")
}

/// Creates endpoints one after the other. Each is given as number, workspace and body.
async fn register(
    base_url: String,
    work: Vec<(usize, usize, Value)>,
    workspaces: Arc<[Workspace]>,
    arrivals: Arc<Arrivals>,
) -> Result<(), BenchError> {
    let mut kept: Option<(usize, Client)> = None;
    for (endpoint, workspace, body) in work {
        let (_, client) = match &mut kept {
            Some(kept) if kept.0 == workspace => kept,
            _ => {
                kept.insert((workspace, Client::new(&base_url, &workspaces[workspace].key).map_err(BenchError::setup)?))
            }
        };
        let made = client.post("/v1/webhook-endpoints", &body).await.map_err(BenchError::setup)?;
        let secret = WebhookSecret::parse(&text(&made, "secret")?).map_err(BenchError::setup)?;
        arrivals.expect_signed_with(endpoint, secret.mac_key());
    }
    Ok(())
}

/// Creates the operator's key before the server starts.
async fn make_operator_key(program: &Path, data_dir: &Path, store_flags: &[String]) -> Result<BearerKey, BenchError> {
    let output = tokio::process::Command::new(program)
        .env_clear()
        .args(["keys", "create", "--json", "--workspace", "operator", "--scope", "workspaces:manage"])
        .args(SCOPES.iter().flat_map(|scope| ["--scope", scope]))
        .arg("--data-dir")
        .arg(data_dir)
        .args(store_flags)
        .output()
        .await?;
    let created: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let key = created["key"].as_str().ok_or_else(|| BenchError::setup(String::from_utf8_lossy(&output.stderr)))?;
    BearerKey::parse(key).map_err(BenchError::setup)
}

pub fn text(answer: &Value, field: &str) -> Result<String, BenchError> {
    let missing = || BenchError::setup(format!("an answer lacks the field `{field}`"));
    answer["data"][field].as_str().map(str::to_owned).ok_or_else(missing)
}
