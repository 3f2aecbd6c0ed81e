//! HTML over HTTP: pages for people, rendered here and readable without scripts.
//!
//! It decides nothing: a page shows the OpenAPI document that it was given at start.

pub mod docs;
