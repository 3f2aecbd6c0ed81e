//! Runs the SQL of the roles: connections, threads, group commit, flushing, checkpoints, schema, row keys.
//!
//! It holds no SQL of a role. It knows the roles in two places only: the writer owns their caches, and `open.rs` calls
//! their steps at start.

pub mod checkpoint;
pub mod column;
pub mod drive;
pub mod inbox;
pub mod open;
#[cfg(test)]
mod plans;
pub mod reader;
pub mod row_key;
pub mod schema;
pub mod sync;
pub mod writer;
