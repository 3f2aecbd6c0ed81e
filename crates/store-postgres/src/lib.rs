//! The store on PostgreSQL: one database, shared by several nodes.
//!
//! Any node serves any request and claims any delivery. Transactions coordinate through row locks and advisory locks in
//! the database (`machinery/transaction.rs`), never through the memory of a node.
//!
//! Accepted events are written in groups (`machinery/group.rs`), outcomes in the batches that the engine passes, both
//! with statements for many rows. Every other write is a transaction of its own.
//!
//! Each role of [`postrider_store`] is implemented in the file that holds its SQL. `machinery` holds what belongs to no
//! role: connections, transactions, schema, partitions. This file holds no role.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use postrider_domain::idempotency::Recording;
use postrider_store::disk::DiskGate;
use postrider_store::{StoreError, Written};

mod backup;
pub mod copy;
mod erasure;
mod gauges;
mod idempotency;
mod log;
mod machinery;
mod meta;
mod node;
mod parked_message;
mod publish;
mod queue;
mod rate;
mod registry;
mod replay;
mod sealing;
mod secrets;
mod stats;
mod stored_bytes;
mod upkeep;

pub use machinery::connect::{ConnectError, ConnectionConfig, tls_settings};
pub use machinery::examine;
pub use machinery::settings::{PostgresSettings, TimeSource};

use machinery::fault::PgError;
use machinery::group::GroupCommit;
use machinery::node::Node;
use machinery::session::Session;
use machinery::transaction::{Database, WriteTx};
use rate::OldRatesRemoved;

/// The store in one database.
pub struct PostgresStore {
    database: Arc<Database>,
    groups: GroupCommit,
    old_rates_removed: OldRatesRemoved,
    disk: DiskGate,
    /// The background tasks of this node. `None` for a command.
    _node: Option<Node>,
}

impl PostgresStore {
    /// Runs `query` in one snapshot.
    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Session) -> BoxFuture<'t, Result<T, PgError>> + Send + 'static,
    {
        self.database.read(query).await
    }

    /// Runs `effect` in a transaction. Runs it again when it lost against another transaction.
    async fn write<T, F>(&self, effect: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<T, PgError>> + Send + Sync + 'static,
    {
        self.database.write(effect).await
    }

    /// As [`write`](Self::write), for a request that may carry an idempotency key: runs `effect` at most once for that
    /// key.
    async fn write_once<T, E, F>(&self, recording: Option<Recording<T>>, effect: F) -> Result<Written<T>, E>
    where
        T: Send + Sync + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<Result<T, E>, PgError>> + Send + Sync + 'static,
    {
        self.disk.check_write()?;
        let effect = Arc::new(effect);
        self.write(move |tx| {
            let (recording, effect) = (recording.clone(), Arc::clone(&effect));
            Box::pin(async move { idempotency::once(tx, recording.as_ref(), effect.as_ref()).await })
        })
        .await?
    }
}
