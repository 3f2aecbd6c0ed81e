//! The engine within the whole server: what receivers get, what the log tells, and when.

mod dispatcher;
mod ordering;
mod recorder;
mod worker;
