//! Pure nouns and rules: no clock, no random source, no environment, no I/O.

pub mod access;
pub mod attempt;
pub mod audit;
pub mod delivery;
pub mod endpoint;
pub mod endpoint_options;
pub mod event;
pub mod event_type;
pub mod id;
pub mod idempotency;
pub mod json;
pub mod limits;
pub mod page;
pub mod private_options;
pub mod rate_limit;
pub mod replay;
pub mod retry;
pub mod schema;
pub mod secret;
pub mod signing;
pub mod target;
pub mod time;
pub mod workspace;
