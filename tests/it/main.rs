//! The integration tests: one binary whose modules mirror `src/`, so that a test's path can be guessed.

mod api;
mod cli;
mod crash;
mod dashboard;
mod egress;
mod engine;
mod local;
mod nodes;
mod server;
mod store;
mod support;
