//! Connecting to the database: the URL, TLS, the password, the pool and the listening connection.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::PgError;
use super::settings::PostgresSettings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a free or a new connection.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// A connection whose peer is silent for this long is closed.
const SILENCE: Duration = Duration::from_secs(20);

/// Why the settings cannot be used to connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot parse the database URL; its form is postgres://user@host:5432/database")]
    Url(#[source] tokio_postgres::Error),
    #[error("cannot read {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no certificate")]
    NoCertificate { path: String },
    #[error("cannot use the trusted certificates")]
    Tls(#[source] rustls::Error),
    #[error("cannot set up the connection pool")]
    Pool(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How to connect, from a URL and the settings beside it.
pub struct ConnectionConfig {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl ConnectionConfig {
    /// # Errors
    /// When the URL cannot be parsed, or a file of the settings cannot be read.
    pub fn of(url: &str, settings: &PostgresSettings) -> Result<Self, ConnectError> {
        // The driver does not know these modes. Here every encrypted connection is verified.
        let known =
            url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = known.parse().map_err(ConnectError::Url)?;
        if let Some(path) = &settings.password_file {
            config.password(read(path)?.trim_end_matches(['\r', '\n']));
        }
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(SILENCE).keepalives_idle(SILENCE);
        if config.get_application_name().is_none() {
            config.application_name("postrider");
        }
        if !url.contains("sslmode=") {
            config.ssl_mode(if is_this_machine(&config) { SslMode::Disable } else { SslMode::Require });
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(MakeRustlsConnect::new(tls_settings(settings.ca_file.as_deref())?)),
        };
        Ok(Self { config, tls })
    }

    /// # Errors
    /// When the pool refuses its settings.
    pub fn pool(&self, size: usize) -> Result<Pool, ConnectError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &self.tls {
            Some(tls) => Manager::from_config(self.config.clone(), tls.clone(), recycling),
            None => Manager::from_config(self.config.clone(), NoTls, recycling),
        };
        Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(POOL_WAIT))
            .build()
            .map_err(|error| ConnectError::Pool(Box::new(error)))
    }
}

impl ConnectionConfig {
    /// A connection of its own, which ends when the client is dropped.
    ///
    /// # Errors
    /// When the database cannot be reached or refuses the connection.
    pub async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        async fn ended<S, T>(connection: Connection<S, T>)
        where
            S: AsyncRead + AsyncWrite + Unpin,
            T: AsyncRead + AsyncWrite + Unpin,
        {
            // The client reports the fault with its next statement.
            let _ = connection.await;
        }
        match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                tokio::spawn(ended(connection));
                Ok(client)
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                tokio::spawn(ended(connection));
                Ok(client)
            }
        }
    }

    /// Listens on a channel until the connection is lost. Calls `notified` for each notification. Notifies the channel
    /// when `nudge` fires, at most once per `pause`.
    pub async fn listen(
        &self,
        channel: &str,
        (nudge, text): (&Notify, impl Fn() -> String),
        pause: Duration,
        notified: impl Fn(&str),
    ) -> Result<(), tokio_postgres::Error> {
        match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                exchange(client, connection, channel, (nudge, text), pause, notified).await
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                exchange(client, connection, channel, (nudge, text), pause, notified).await
            }
        }
    }
}

/// Stands for the notifications that were missed: everything may be due.
const MISSED: &str = "*";

async fn exchange<S, T>(
    client: Client,
    mut connection: Connection<S, T>,
    channel: &str,
    (nudge, text): (&Notify, impl Fn() -> String),
    pause: Duration,
    notified: impl Fn(&str),
) -> Result<(), tokio_postgres::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let notify = async {
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        // Notifications before this LISTEN were missed.
        notified(MISSED);
        loop {
            nudge.notified().await;
            client.execute("SELECT pg_notify($1, $2)", &[&channel, &text()]).await?;
            tokio::time::sleep(pause).await;
        }
    };
    let listen = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message? {
                notified(notification.payload());
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = notify => ended,
        ended = listen => ended,
    }
}

/// Takes a connection from the pool.
pub async fn connection(pool: &Pool) -> Result<Object, PgError> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => match error.code() {
            Some(_) => PgError::Database(error),
            None => PgError::Connection(Box::new(error)),
        },
        PoolError::Timeout(_) => PgError::Unavailable("all connections to the database are in use"),
        other => PgError::Connection(Box::new(other)),
    })
}

fn is_this_machine(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    })
}

/// Trusts the public authorities, and those of a PEM file.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn tls_settings(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, ConnectError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let pem = read(path)?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(ConnectError::NoCertificate { path: path.display().to_string() });
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(ConnectError::Tls)?.with_root_certificates(roots).with_no_client_auth())
}

fn read(path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|source| ConnectError::File { path: path.display().to_string(), source })
}
