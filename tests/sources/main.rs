//! Sources of events, with the real parts: an outbox on PostgreSQL, a NATS server, a RabbitMQ,
//! and the whole server.
//!
//! Each test asks for what a user relies on: every message becomes one event or one parked message, whatever fails
//! meanwhile. Where a known mistake of other programs would break that, the test says which.

mod desk;
#[cfg(feature = "brokers")]
mod nats;
mod outbox;
#[cfg(feature = "brokers")]
mod rabbitmq;

#[expect(dead_code, reason = "these tests use a part of what the integration tests need")]
#[path = "../it/support/mod.rs"]
mod support;
