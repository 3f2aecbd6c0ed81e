//! The integration tests in one binary. Its modules have the names of the crates and of the modules in `src/`, so that
//! the path of a test can be guessed.

mod api;
mod cli;
mod crash;
mod egress;
mod engine;
mod http;
mod local;
mod nodes;
mod server;
mod store;
mod support;
mod web;
