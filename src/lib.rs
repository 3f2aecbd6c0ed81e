//! The binary's own parts: the command line, the server that puts the crates together, settings, logs and the clock.
//!
//! `ARCHITECTURE.md` has the map of the crates, what each may use, and the life of an event.

pub mod cli;
pub mod clock;
pub mod config;
pub mod server;
pub mod telemetry;
