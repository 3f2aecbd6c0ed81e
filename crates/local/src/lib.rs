//! Tools for a developer's machine: a receiver that verifies webhooks, a client of the API, and the tour of
//! `postrider dev`.
//!
//! They use the server as a customer does, over HTTP. They must not bypass the API, and connect only to addresses that
//! the user named.

pub mod client;
pub mod curl;
pub mod dev;
pub mod forward;
pub mod listen;
pub mod pages;
pub mod receiver;
pub mod reconnect;
pub mod screen;
mod server_address;
pub mod state;
pub mod tail;
pub mod verify;
