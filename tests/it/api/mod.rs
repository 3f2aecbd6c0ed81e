//! The API from outside: over HTTP, against the whole server.

mod endpoint;
