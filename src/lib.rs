//! The parts of the binary: command line, server, settings, logs and the system clock and
//! the limit of open files.
//!
//! `ARCHITECTURE.md` has the map of the crates and the life of an event.

pub mod cli;
pub mod clock;
pub mod config;
pub mod lossy_writer;
pub mod open_files;
pub mod server;
pub mod telemetry;
