//! What the tests stand on: the app under test and its callers, a clock that moves when told, a DNS server, receivers
//! that misbehave on purpose, certificates, the one bounded waiter and an independent check of signatures.
//!
//! Everything here is real but the clock: sockets are sockets, DNS is spoken over UDP and TCP, TLS is TLS.

pub mod app;
pub mod caller;
pub mod clock;
pub mod cluster;
pub mod dns;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod tls;
pub mod verify;
pub mod wait;
