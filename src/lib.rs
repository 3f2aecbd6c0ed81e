//! Postrider: the webhook sender that a product team runs itself.
//!
//! The map of the modules, what each may use and the life of an event stand in `ARCHITECTURE.md`.

pub mod api;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod dashboard;
pub mod domain;
pub mod egress;
pub mod engine;
pub mod local;
pub mod server;
pub mod service;
pub mod store;
pub mod telemetry;
