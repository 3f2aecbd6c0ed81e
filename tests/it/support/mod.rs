//! Test support: the app under test and its callers, a manual clock, a DNS server, receivers that misbehave on purpose,
//! certificates, the bounded waiter, and an independent check of signatures.
//!
//! Only the clock is simulated. The sockets, DNS over UDP and TCP, and TLS are real.

pub mod app;
pub mod caller;
pub mod clock;
pub mod cluster;
pub mod dns;
pub mod files;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod rollups;
pub mod scrape;
pub mod tls;
pub mod verify;
pub mod visitor;
pub mod wait;
