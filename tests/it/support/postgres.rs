//! A PostgreSQL for the tests: a real server, on which each database under test is a schema of its own, dropped when its
//! test is over. The server is that of `POSTRIDER_TEST_DATABASE_URL`, or else `postgres` on this machine.
//!
//! Without a server the tests that need one say so and pass; in CI, where there must be one, they fail.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls};

const VARIABLE: &str = "POSTRIDER_TEST_DATABASE_URL";
const OTHERWISE: &str = "postgres://postgres@127.0.0.1:5432/postgres";

/// Databases in use at once: each takes up to [`CONNECTIONS`] and a few beside them, and a server takes 100 by default.
static DATABASES: Semaphore = Semaphore::const_new(8);

/// The pool of a node under test.
pub const CONNECTIONS: usize = 4;

/// A schema that nobody else uses.
pub struct TestDatabase {
    server: String,
    name: String,
    _permit: SemaphorePermit<'static>,
}

impl TestDatabase {
    /// `None` where there is no server, which is said on standard error.
    ///
    /// # Panics
    /// In CI when there is no server.
    pub async fn new() -> Option<Self> {
        static SERVER: OnceCell<Option<String>> = OnceCell::const_new();
        static MADE: AtomicU32 = AtomicU32::new(0);
        let server = SERVER.get_or_init(find_server).await.clone()?;
        let permit = DATABASES.acquire().await.expect("the semaphore is never closed");
        // Another process may have had our id and have been killed.
        let name = format!("postrider_test_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let client = connect(&server).await.expect("the server that answered before");
        let made = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
        client.batch_execute(&made).await.expect("a schema");
        Some(Self { server, name, _permit: permit })
    }

    /// Where a node finds it.
    pub fn url(&self) -> String {
        let mark = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{mark}options=-c%20search_path%3D{name}&application_name={name}", self.server, name = self.name)
    }

    /// A way into it past the store, for damage that no method of the store does.
    pub async fn client(&self) -> Client {
        connect(&self.url()).await.expect("a database under test")
    }
}

impl Drop for TestDatabase {
    /// What is still connected is cut off: it may be in the middle of a transaction that nobody will end.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let drop = async move {
            let client = connect(&server).await?;
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ";
            client.batch_execute(&format!("SET lock_timeout = '5s'; {cut}'{name}'")).await?;
            client.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await
        };
        // The test's own runtime is not to be waited for in here.
        let dropped = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(drop)
        });
        match dropped.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => say(format_args!("the schema {} was left behind: {error}", self.name)),
            Err(_) => say(format_args!("the schema {} was left behind", self.name)),
        }
    }
}

/// Connects; what drives the connection runs beside until the client is dropped.
async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[expect(clippy::disallowed_methods, reason = "the tests have no settings but these two variables")]
async fn find_server() -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let url = std::env::var(VARIABLE).unwrap_or_else(|_| OTHERWISE.to_owned());
    let fault = match tokio::time::timeout(PATIENCE, connect(&url)).await {
        Ok(Ok(_)) => return Some(url),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "no PostgreSQL at {url}: {fault}");
    say(format_args!(
        "SKIPPED: every test on PostgreSQL, since there is none at {url} ({fault}). To run them, start one there that asks for no \
         password, or name another: {VARIABLE}=postgres://user:password@host:port/database cargo test"
    ));
    None
}

/// To standard error past the capture of the tests' output: a test that passes is not to be silent about this.
fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
