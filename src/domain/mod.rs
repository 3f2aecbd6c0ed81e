//! Pure nouns and rules: no clock, no random source, no environment, no I/O.

pub mod target;
pub mod time;
