//! A source that reads a durable pull consumer of NATS JetStream.
//!
//! Several nodes may read one consumer: the server gives each message to one of them at a time. It gives it again when
//! it is not acknowledged within the consumer's `ack_wait`, so the feed reports progress while the store is slow.
//!
//! Servers that the cluster announces are not dialled: the operator names those that may be.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, AckKind, Message, consumer, stream};
use async_nats::{Client, ConnectOptions, HeaderMap};
use async_trait::async_trait;
use futures_util::StreamExt as _;

use postrider_domain::source::SourceMessage;
use postrider_store_postgres::tls_settings;

use crate::feed::{Connector, Feed, PullLimit, Settlement, SourceError, secret_in};

/// How long a pull waits for the first message, and for each one after it.
const PULL_WAIT: Duration = Duration::from_secs(1);
const NEXT_WAIT: Duration = Duration::from_millis(10);
/// The server tells so often that a pull is still open. Twice without it, and the connection is made anew.
const HEARTBEAT: Duration = Duration::from_secs(5);
const PULL_EXPIRES: Duration = Duration::from_secs(30);
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// A message that could not be parked comes again after this time.
const RELEASED_FOR: Duration = Duration::from_secs(5);
/// `ack_wait` of a consumer that is declared here: many times what a batch takes.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// The header with the id that JetStream itself deduplicates by.
const MESSAGE_ID: &str = "Nats-Msg-Id";

#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// `nats://host:port` or `tls://host:port`, without a password.
    pub urls: Vec<String>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub stream: String,
    pub consumer: String,
    /// Creates the stream with these subjects, and the consumer, where they do not exist.
    pub declared: Option<Vec<String>>,
    pub max_in_flight: usize,
    pub max_bytes_in_flight: usize,
}

pub struct NatsConnector(pub NatsSettings);

#[async_trait]
impl Connector for NatsConnector {
    async fn connect(&self) -> Result<Box<dyn Feed>, SourceError> {
        let settings = &self.0;
        let client = client(settings).await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(REQUEST_WAIT);
        let stream = find_stream(&context, settings).await?;
        let consumer = find_consumer(&stream, settings).await?;
        let config = &consumer.cached_info().config;
        if config.ack_policy != AckPolicy::Explicit {
            return Err(SourceError::Setup(format!(
                "the consumer {} must have the ack policy explicit: with another one, messages are lost",
                settings.consumer
            )));
        }
        if config.max_deliver > 0 {
            tracing::warn!(
                consumer = settings.consumer,
                max_deliver = config.max_deliver,
                "the consumer gives up a message after so many deliveries, also while the store is unavailable; \
                 set max_deliver to -1"
            );
        }
        let ack_wait = config.ack_wait;
        let messages = consumer
            .stream()
            .max_messages_per_batch(settings.max_in_flight)
            .max_bytes_per_batch(settings.max_bytes_in_flight)
            .heartbeat(HEARTBEAT)
            .expires(PULL_EXPIRES)
            .messages()
            .await
            .map_err(SourceError::broken("pull from the consumer"))?;
        let fault = None;
        Ok(Box::new(NatsFeed { client, messages, taken: Vec::new(), fault, ack_wait, told: Instant::now() }))
    }
}

async fn client(settings: &NatsSettings) -> Result<Client, SourceError> {
    let setup = |fault: postrider_store_postgres::ConnectError| SourceError::Broken {
        what: "use the certificate authorities",
        source: Box::new(fault),
    };
    let mut options = ConnectOptions::new()
        .name("postrider")
        .connection_timeout(REQUEST_WAIT)
        .ignore_discovered_servers()
        .tls_client_config(tls_settings(settings.ca_file.as_deref()).map_err(setup)?);
    if let Some(file) = &settings.token_file {
        options = options.token(secret_in(file)?);
    }
    if let Some(user) = &settings.user {
        let password = settings.password_file.as_ref().map(|file| secret_in(file)).transpose()?;
        options = options.user_and_password(user.clone(), password.unwrap_or_default());
    }
    options.connect(settings.urls.clone()).await.map_err(SourceError::broken("connect to NATS"))
}

async fn find_stream(context: &jetstream::Context, settings: &NatsSettings) -> Result<stream::Stream, SourceError> {
    let Some(subjects) = &settings.declared else {
        return context
            .get_stream(&settings.stream)
            .await
            .map_err(SourceError::broken("find the stream of NATS (is its name right? `declare = true` makes it)"));
    };
    let config =
        stream::Config { name: settings.stream.clone(), subjects: subjects.clone(), ..stream::Config::default() };
    context.get_or_create_stream(config).await.map_err(SourceError::broken("make the stream of NATS"))
}

async fn find_consumer(
    stream: &stream::Stream,
    settings: &NatsSettings,
) -> Result<consumer::Consumer<pull::Config>, SourceError> {
    if settings.declared.is_none() {
        return stream
            .get_consumer(&settings.consumer)
            .await
            .map_err(SourceError::broken("find the consumer of NATS (is its name right? `declare = true` makes it)"));
    }
    let config = pull::Config {
        durable_name: Some(settings.consumer.clone()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: i64::try_from(settings.max_in_flight).unwrap_or(i64::MAX) * MAX_NODES,
        max_deliver: -1,
        ..pull::Config::default()
    };
    stream
        .get_or_create_consumer(&settings.consumer, config)
        .await
        .map_err(SourceError::broken("make the consumer of NATS"))
}

/// A consumer that is declared here has room for so many nodes with a full batch each.
const MAX_NODES: i64 = 4;

struct NatsFeed {
    client: Client,
    messages: pull::Stream,
    /// The last pull.
    taken: Vec<Message>,
    /// What ended the pull after some messages.
    fault: Option<SourceError>,
    ack_wait: Duration,
    /// When the server was last told that the batch is worked on.
    told: Instant,
}

#[async_trait]
impl Feed for NatsFeed {
    async fn pull(&mut self, limit: PullLimit) -> Result<Vec<SourceMessage>, SourceError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let (mut bytes, mut wait) = (0, PULL_WAIT);
        while self.taken.len() < limit.messages && bytes < limit.bytes {
            let Ok(next) = tokio::time::timeout(wait, self.messages.next()).await else { break };
            let ended = || SourceError::Setup("the pull from the consumer of NATS ended".to_owned());
            match next.ok_or_else(ended).and_then(|next| next.map_err(SourceError::broken("pull from the consumer"))) {
                Ok(message) => {
                    bytes += message.payload.len();
                    self.taken.push(message);
                }
                Err(fault) if self.taken.is_empty() => return Err(fault),
                Err(fault) => {
                    self.fault = Some(fault);
                    break;
                }
            }
            wait = NEXT_WAIT;
        }
        self.told = Instant::now();
        Ok(self.taken.iter().map(message_of).collect())
    }

    async fn settle(&mut self, settlements: &[Settlement]) -> Result<(), SourceError> {
        let taken = std::mem::take(&mut self.taken);
        let last = settlements.iter().rposition(|settlement| *settlement == Settlement::Done);
        for (index, (message, settlement)) in taken.iter().zip(settlements).enumerate() {
            let settled = match settlement {
                Settlement::Release => message.ack_with(AckKind::Nak(Some(RELEASED_FOR))).await,
                // The server answers the last one, and has then read those before it.
                Settlement::Done if Some(index) == last => message.double_ack().await,
                Settlement::Done => message.ack().await,
            };
            settled.map_err(SourceError::broken("acknowledge messages of NATS"))?;
        }
        Ok(())
    }

    async fn keep(&mut self) -> Result<(), SourceError> {
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return Err(SourceError::Setup("the connection to NATS was lost".to_owned()));
        }
        if self.told.elapsed() < self.ack_wait / 3 {
            return Ok(());
        }
        self.told = Instant::now();
        for message in &self.taken {
            let told = message.ack_with(AckKind::Progress).await;
            told.map_err(SourceError::broken("report progress to NATS"))?;
        }
        Ok(())
    }

    fn keeps_over_failures(&self) -> bool {
        true
    }
}

fn message_of(message: &Message) -> SourceMessage {
    let headers = message.headers.as_ref().map(headers_of).unwrap_or_default();
    let mut found = SourceMessage {
        headers,
        subject: Some(message.subject.to_string()),
        sequence: message.info().ok().map(|info| info.stream_sequence.to_string()),
        message_id: None,
        body: message.payload.clone(),
    };
    found.message_id = found.header(MESSAGE_ID).map(str::to_owned);
    found
}

fn headers_of(headers: &HeaderMap) -> Vec<(String, String)> {
    let values = headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.as_str().to_owned())));
    let mut headers: Vec<(String, String)> = values.collect();
    // The map has no order of its own.
    headers.sort();
    headers
}
