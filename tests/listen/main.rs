//! Pull instead of push: the routes of listeners as a consumer uses them, and `postrider listen` as a developer does,
//! with servers that stop, networks that break and laptops that sleep.

mod command;
mod desk;
mod link;
mod trouble;
mod wire;

#[expect(dead_code, reason = "these tests use a part of what the integration tests need")]
#[path = "../it/support/mod.rs"]
mod support;
