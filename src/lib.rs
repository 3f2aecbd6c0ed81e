//! Postrider: the webhook sender that a product team runs itself.
//!
//! The map of the modules, what each may use and the life of an event stand in `ARCHITECTURE.md`.

pub mod clock;
pub mod crypto;
pub mod domain;
pub mod egress;
pub mod engine;
pub mod store;
