//! HTML over HTTP: pages for people, rendered here and readable without scripts.
//!
//! It translates and decides nothing: what a page shows comes from `service`, or was given to it when it was made.

pub mod docs;
