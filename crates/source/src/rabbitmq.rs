//! A source that consumes a queue of RabbitMQ.
//!
//! Messages stay unacknowledged until their events are on disk. At most as many are taken as the prefetch allows. It
//! counts messages and not bytes, so it is lowered until events of full size fit into the limit of bytes.
//!
//! Nothing is declared unless the settings ask for it: arguments that differ from those of a queue that exists would
//! close the channel. A message is never rejected without being put back, because a queue may have no dead-letter
//! exchange. It is put back only where it could not be parked.

use std::path::PathBuf;
use std::time::Duration;

use async_rs::Runtime;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPScheme;
pub use lapin::uri::AMQPUri as BrokerUrl;
use lapin::{Channel, Connection, ConnectionProperties, Consumer};

use postrider_domain::limits;
use postrider_domain::source::SourceMessage;
use postrider_store_postgres::tls_settings;

use crate::feed::{Connector, Feed, PullLimit, Settlement, SourceError, secret_in};
use crate::tls_reactor::{TlsParts, runtime};

/// How long a pull waits for the first message, and for each one after it.
const PULL_WAIT: Duration = Duration::from_secs(1);
const NEXT_WAIT: Duration = Duration::from_millis(10);
/// A connection that is silent for twice as long is closed.
const HEARTBEAT_SECONDS: u16 = 10;

#[derive(Clone, Debug)]
pub struct RabbitmqSettings {
    /// Without a password, and with the virtual host as its path.
    pub uri: BrokerUrl,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub queue: String,
    /// Makes the queue as a durable quorum queue if it does not exist.
    pub is_declared: bool,
    pub max_in_flight: usize,
    pub max_bytes_in_flight: usize,
}

impl RabbitmqSettings {
    /// Messages that the broker may send ahead.
    pub fn prefetch(&self) -> u16 {
        let of_full_size = self.max_bytes_in_flight / limits::BODY_BYTES;
        u16::try_from(self.max_in_flight.min(of_full_size).max(1)).unwrap_or(u16::MAX)
    }
}

pub struct RabbitmqConnector(pub RabbitmqSettings);

#[async_trait]
impl Connector for RabbitmqConnector {
    async fn connect(&self) -> Result<Box<dyn Feed>, SourceError> {
        let settings = &self.0;
        let connection = connect(settings).await?;
        let channel = connection.create_channel().await.map_err(SourceError::broken("open a channel of RabbitMQ"))?;
        if settings.is_declared {
            declare(&channel, &settings.queue).await?;
        }
        channel
            .basic_qos(settings.prefetch(), BasicQosOptions::default())
            .await
            .map_err(SourceError::broken("set the prefetch of the channel"))?;
        let tag = ShortString::from("");
        let queue = ShortString::from(settings.queue.as_str());
        let consumer = channel
            .basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(SourceError::broken("consume the queue (does it exist? `declare = true` makes it)"))?;
        Ok(Box::new(RabbitmqFeed { connection, channel, consumer, taken: Vec::new(), fault: None }))
    }
}

async fn connect(settings: &RabbitmqSettings) -> Result<Connection, SourceError> {
    let mut uri = settings.uri.clone();
    if let Some(user) = &settings.user {
        uri.authority.userinfo.username.clone_from(user);
    }
    if let Some(file) = &settings.password_file {
        uri.authority.userinfo.password = secret_in(file)?;
    }
    uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
    let tls = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => Some(TlsParts {
            config: tls_settings(settings.ca_file.as_deref()).map_err(SourceError::broken("set up TLS"))?.into(),
            host: uri.authority.host.clone(),
        }),
    };
    // TLS is below the stream that the client sees.
    uri.scheme = AMQPScheme::AMQP;
    let properties = ConnectionProperties::default().with_connection_name("postrider".into());
    let connecting = Connection::connect_uri_with_runtime(uri, properties, Runtime::new(runtime(tls)));
    connecting.await.map_err(SourceError::broken("connect to RabbitMQ"))
}

async fn declare(channel: &Channel, queue: &str) -> Result<(), SourceError> {
    let mut arguments = FieldTable::default();
    // With a classic queue a restart of the broker forgets how often a message was delivered.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, arguments).await;
    declared.map(|_| ()).map_err(SourceError::broken("make the queue (one with other arguments exists?)"))
}

struct RabbitmqFeed {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// The last pull.
    taken: Vec<Delivery>,
    /// What ended the pull after some messages.
    fault: Option<SourceError>,
}

#[async_trait]
impl Feed for RabbitmqFeed {
    async fn pull(&mut self, limit: PullLimit) -> Result<Vec<SourceMessage>, SourceError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let (mut bytes, mut wait) = (0, PULL_WAIT);
        while self.taken.len() < limit.messages && bytes < limit.bytes {
            let Ok(next) = tokio::time::timeout(wait, self.consumer.next()).await else { break };
            // The broker ends a consumer when its queue is deleted or moves to another node.
            let ended = || SourceError::Setup("the broker ended the consumer: was the queue deleted?".to_owned());
            match next.ok_or_else(ended).and_then(|next| next.map_err(SourceError::broken("consume the queue"))) {
                Ok(delivery) => {
                    bytes += delivery.data.len();
                    self.taken.push(delivery);
                }
                Err(fault) if self.taken.is_empty() => return Err(fault),
                Err(fault) => {
                    self.fault = Some(fault);
                    break;
                }
            }
            wait = NEXT_WAIT;
        }
        if self.taken.is_empty() {
            self.keep().await?;
        }
        Ok(self.taken.iter().map(message_of).collect())
    }

    async fn settle(&mut self, settlements: &[Settlement]) -> Result<(), SourceError> {
        let taken = std::mem::take(&mut self.taken);
        let fault = || SourceError::broken("acknowledge messages of RabbitMQ");
        if settlements.iter().all(|settlement| *settlement == Settlement::Done) {
            // Everything before was settled before.
            let Some(last) = taken.last() else { return Ok(()) };
            let all = BasicAckOptions { multiple: true };
            return self.channel.basic_ack(last.delivery_tag, all).await.map_err(fault());
        }
        for (delivery, settlement) in taken.iter().zip(settlements) {
            let tag = delivery.delivery_tag;
            let settled = match settlement {
                Settlement::Done => self.channel.basic_ack(tag, BasicAckOptions::default()).await,
                Settlement::Release => {
                    let back = BasicNackOptions { requeue: true, multiple: false };
                    self.channel.basic_nack(tag, back).await
                }
            };
            settled.map_err(fault())?;
        }
        Ok(())
    }

    async fn keep(&mut self) -> Result<(), SourceError> {
        if self.connection.status().connected() && self.channel.status().connected() {
            return Ok(());
        }
        Err(SourceError::Setup("the connection to RabbitMQ was lost".to_owned()))
    }

    fn keeps_over_failures(&self) -> bool {
        true
    }
}

fn message_of(delivery: &Delivery) -> SourceMessage {
    let properties = &delivery.properties;
    let headers = properties.headers().as_ref().map(|table| table.inner().iter()).into_iter().flatten();
    SourceMessage {
        headers: headers.filter_map(|(name, value)| Some((name.to_string(), text_of(value)?))).collect(),
        subject: Some(delivery.routing_key.to_string()),
        sequence: None,
        message_id: properties.message_id().as_ref().map(ToString::to_string),
        body: Bytes::from(delivery.data.clone()),
    }
}

/// The value of a header, if it is a text, a number or a truth value.
fn text_of(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(truth) => truth.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefetch_keeps_full_size_events_within_the_bytes() {
        let settings = |messages, bytes| RabbitmqSettings {
            uri: BrokerUrl::default(),
            user: None,
            password_file: None,
            ca_file: None,
            queue: "q".to_owned(),
            is_declared: false,
            max_in_flight: messages,
            max_bytes_in_flight: bytes,
        };
        assert_eq!(settings(500, 32 << 20).prefetch(), 128);
        assert_eq!(settings(10, 32 << 20).prefetch(), 10);
        assert_eq!(settings(500, 1 << 20).prefetch(), 4);
    }
}
