//! What runs the SQL of the roles: connections and their threads, group commit, flushing, checkpoints, schema, row keys.
//!
//! It knows no role and no table of a role, with one exception: the writer owns the caches that live beside the database.

pub mod checkpoint;
pub mod column;
pub mod inbox;
pub mod open;
pub mod reader;
pub mod row_key;
pub mod schema;
pub mod sync;
pub mod writer;
