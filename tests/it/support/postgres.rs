//! PostgreSQL for the tests: a real server, on which each database under test is a schema.
//!
//! Creating a schema takes longer than most tests, so a schema is emptied and reused when its test ends. A later
//! process drops the schemas that an earlier one left behind.
//!
//! Set `POSTRIDER_TEST_DATABASE_URL` to name the server. The default is the database `postgres` on this machine.
//!
//! Without a server, the tests that need one print a message and pass. In CI they fail.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls};

/// The prefix of schema names. The process id follows it.
const PREFIX: &str = "postrider_test_";
const VARIABLE: &str = "POSTRIDER_TEST_DATABASE_URL";
const OTHERWISE: &str = "postgres://postgres@127.0.0.1:5432/postgres";

/// The number of databases in use at once. Each needs up to [`CONNECTIONS`] connections and a few more, and a server
/// allows 100 by default.
static DATABASES: Semaphore = Semaphore::const_new(8);

/// The pool size of a node under test.
pub const CONNECTIONS: usize = 4;

/// A schema for one test.
pub struct TestDatabase {
    server: String,
    name: String,
    /// Whether a later test may reuse it.
    may_be_used_again: bool,
    _permit: SemaphorePermit<'static>,
}

impl TestDatabase {
    /// Returns `None` and prints a message to standard error when there is no server.
    ///
    /// # Panics
    /// In CI when there is no server.
    pub async fn new() -> Option<Self> {
        static SERVER: OnceCell<Option<String>> = OnceCell::const_new();
        let server = SERVER.get_or_init(find_server).await.clone()?;
        let permit = DATABASES.acquire().await.expect("the semaphore is never closed");
        let free = lock(&FREE).pop();
        let name = match free {
            Some(name) => name,
            None => make(&server).await,
        };
        Some(Self { server, name, may_be_used_again: true, _permit: permit })
    }

    /// As [`Self::new`], but without tables and not reused. For tests of the schema itself.
    pub async fn without_tables() -> Option<Self> {
        let mut database = Self::new().await?;
        database.may_be_used_again = false;
        let name = &database.name;
        let made = format!("DROP SCHEMA {name} CASCADE; CREATE SCHEMA {name}");
        database.client().await.batch_execute(&made).await.expect("a schema");
        Some(database)
    }

    /// The URL with which a node finds it.
    pub fn url(&self) -> String {
        let mark = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{mark}options=-c%20search_path%3D{name}&application_name={name}", self.server, name = self.name)
    }

    /// A client that bypasses the store, for damage that no method of the store can do.
    pub async fn client(&self) -> Client {
        connect(&self.url()).await.expect("a database under test")
    }
}

impl Drop for TestDatabase {
    /// Ends the open connections, because one may be in a transaction that nobody will end.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // `drop` cannot await on the test's own runtime.
        let emptied = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(empty(&server, &name))
        });
        match emptied.join() {
            Ok(Ok(())) if self.may_be_used_again => lock(&FREE).push(self.name.clone()),
            Ok(Ok(())) => {}
            Ok(Err(error)) => say(format_args!("the schema {} is not used again: {error}", self.name)),
            Err(_) => say(format_args!("the schema {} is not used again", self.name)),
        }
    }
}

/// Schemas of this process that no test uses now.
static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lock(names: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates a schema whose name has the process id.
async fn make(server: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    // A killed process may have had the same id.
    let name = format!("{PREFIX}{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let client = connect(server).await.expect("the server that answered before");
    let made = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
    client.batch_execute(&made).await.expect("a schema");
    name
}

/// Ends the open connections and deletes every row, except those that describe the schema itself.
async fn empty(server: &str, name: &str) -> Result<(), tokio_postgres::Error> {
    let client = connect(server).await?;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ";
    client.batch_execute(&format!("SET lock_timeout = '5s'; {cut}'{name}'")).await?;
    let tables = format!(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = '{name}'::regnamespace AND c.relkind IN ('r', 'p')
         AND NOT c.relispartition AND c.relname <> 'refinery_schema_history'"
    );
    let deletes: Vec<String> = client
        .query(&tables, &[])
        .await?
        .iter()
        .map(|row| format!("DELETE FROM {name}.{};", row.get::<_, &str>(0)))
        .collect();
    // Triggers check foreign keys, and the replica role does not run triggers.
    client.batch_execute(&format!("SET session_replication_role = replica; {}", deletes.concat())).await
}

/// Drops the schemas of processes that have ended.
async fn sweep(client: &Client) -> Result<(), tokio_postgres::Error> {
    let like = format!("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '{PREFIX}%'");
    for row in client.query(&like, &[]).await? {
        let name: String = row.get(0);
        let process = name[PREFIX.len()..].split('_').next().unwrap_or_default().to_owned();
        if !std::path::Path::new("/proc").join(process).exists() {
            client.batch_execute(&format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await?;
        }
    }
    Ok(())
}

/// Connects. A task drives the connection until the client is dropped.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[expect(clippy::disallowed_methods, reason = "the tests have no settings but these two variables")]
async fn find_server() -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let url = std::env::var(VARIABLE).unwrap_or_else(|_| OTHERWISE.to_owned());
    let fault = match tokio::time::timeout(PATIENCE, connect(&url)).await {
        Ok(Ok(client)) => {
            if let Err(error) = sweep(&client).await {
                say(format_args!("schemas of earlier runs were left behind: {error}"));
            }
            return Some(url);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    skip(&format!(
        "every test on PostgreSQL, since there is none at {url} ({fault}). To run them, start one there that asks for no \
         password, or name another: {VARIABLE}=postgres://user:password@host:port/database cargo test"
    ));
    None
}

/// Prints what is not tested because something is missing.
///
/// # Panics
/// In CI, where nothing may be missing.
#[expect(clippy::disallowed_methods, reason = "the tests have no settings but these two variables")]
pub fn skip(what: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI cannot skip {what}");
    say(format_args!("SKIPPED: {what}"));
}

/// Prints to standard error past the capture of test output, so that a passing test shows it too.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
