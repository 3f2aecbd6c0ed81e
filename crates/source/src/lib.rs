//! Where events come from besides the API: brokers, and an outbox table of the producer's database.
//!
//! ```text
//! feed.pull ──► service.accept_messages ──► feed.settle
//! (a batch)     (one commit: events)        (only now the broker may forget)
//!               (one commit: parked)
//! ```
//!
//! - [`feed`] is what a broker must offer. A file per kind implements it: [`outbox`], `nats`, `rabbitmq`.
//! - `supervisor` is the one loop that all kinds share. It restarts a source that failed, with back-off and without a
//!   last try.
//! - Whether a message becomes an event or is parked is decided in the service. Nothing here reads a message's content.
//!
//! A message may come again at any time: after a crash between commit and settlement, after a lost connection, from
//! two nodes at once. Its `externalId` makes it one event.
//!
//! The operator names every address that is dialled here, so these connections do not pass the guard of `egress`.

pub mod feed;
#[cfg(feature = "brokers")]
pub mod nats;
pub mod outbox;
#[cfg(feature = "brokers")]
pub mod rabbitmq;
mod settings;
mod sources;
mod supervisor;
#[cfg(feature = "brokers")]
mod tls_reactor;

pub use feed::SourceError;
#[cfg(feature = "brokers")]
pub use nats::NatsSettings;
pub use outbox::{OutboxTable, check as check_outbox};
#[cfg(feature = "brokers")]
pub use rabbitmq::{BrokerUrl, RabbitmqSettings};
pub use settings::{Connection, OutboxSettings, SourceSettings};
pub use sources::Sources;
