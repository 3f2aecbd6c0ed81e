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
