//! The engine in the whole server: what receivers get, what the log shows, and when.

mod dispatcher;
mod endpoint_options;
mod explanation;
mod health;
mod ordering;
mod recorder;
mod request_log;
mod worker;
