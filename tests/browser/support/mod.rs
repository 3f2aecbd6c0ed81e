//! Support of the browser tests: Chromium, its tabs, the rules that every page keeps, and the support of `tests/it`.

pub mod browser;
pub mod desk;
pub mod front;
pub mod page;
pub mod protocol;
pub mod session;
pub mod tab;
pub mod tree;

#[expect(dead_code, reason = "the browser tests use a part of what the integration tests need")]
#[path = "../../it/support/mod.rs"]
pub mod server;
