//! The web pages over HTTP, against the whole server.

mod docs;
