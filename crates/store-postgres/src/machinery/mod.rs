//! What belongs to no role: connections, sessions, transactions, the group commit, nodes, schema and partitions.
//!
//! Nothing here decides anything about a delivery or an endpoint.

pub mod column;
pub mod connect;
pub mod examine;
pub mod fault;
pub mod group;
pub mod node;
pub mod open;
pub mod partition;
#[cfg(test)]
mod plans;
pub mod schema;
pub mod session;
pub mod settings;
pub mod shard;
pub mod time;
pub mod transaction;
pub mod woken_listeners;
