//! HTML over HTTP: pages for people, rendered here and readable without scripts.
//!
//! It decides nothing: a page shows what `service` returns, or what the page was given at start.

pub mod docs;
