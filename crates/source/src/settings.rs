//! How to connect to a source. What its messages mean is in [`SourceTerms`].

use std::path::PathBuf;

use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::source::SourceTerms;

#[cfg(feature = "brokers")]
use crate::nats::NatsSettings;
use crate::outbox::OutboxTable;
#[cfg(feature = "brokers")]
use crate::rabbitmq::RabbitmqSettings;

/// A source of the settings file.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    pub terms: SourceTerms,
    pub connection: Connection,
}

#[derive(Clone, Debug)]
pub enum Connection {
    Outbox(OutboxSettings),
    #[cfg(feature = "brokers")]
    Nats(NatsSettings),
    #[cfg(feature = "brokers")]
    Rabbitmq(RabbitmqSettings),
}

#[derive(Clone, Debug)]
pub struct OutboxSettings {
    pub url: DatabaseUrl,
    pub password_file: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust for the database in addition to the public ones.
    pub ca_file: Option<PathBuf>,
    pub table: OutboxTable,
}
