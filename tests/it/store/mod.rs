//! Tests of the store: the promises of every back end, and the behaviour of each one alone.

pub mod backup;
mod compact;
mod conformance;
mod copy;
mod erased_bytes;
mod filled;
mod fixture;
mod growth;
mod nodes;
mod operations_upgrade;
mod postgres;
mod postgres_days;
mod postgres_lanes;
mod postgres_upgrade;
mod rollups;
mod sqlite;

use postrider_domain::id::StoreTag;
use postrider_store::StoreSeed;

/// The version that processes of the tests say they run.
const VERSION: &str = "1.2.3";

/// The seed of a process of the tests.
const fn seed(tag: StoreTag, node: u16) -> StoreSeed {
    StoreSeed { version: VERSION, tag, node }
}
