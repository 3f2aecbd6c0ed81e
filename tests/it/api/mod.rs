//! The API from outside: over HTTP, against the whole server.

mod endpoint;
mod event_batch;
mod event_list;
mod event_type;
