//! Limits of sources of events, and of messages that are parked.

use std::time::Duration;

use super::RETENTION;

/// Sources of one server. Each holds connections and memory.
pub const SOURCES: usize = 100;
/// The name of a source stands before the ids of its events, and a hash must fit behind it.
pub const SOURCE_NAME_CHARS: usize = 20;
/// Messages of one source that are accepted together. A larger batch gains nothing and holds the writer longer.
pub const SOURCE_BATCH: usize = 500;
/// Messages that a source has taken and not settled, by default and at most.
pub const SOURCE_IN_FLIGHT: usize = 500;
pub const SOURCE_IN_FLIGHT_MAX: usize = 10_000;
/// The bytes of their bodies, by default, at least (so that the largest message of a broker fits) and at most.
pub const SOURCE_BYTES_IN_FLIGHT: usize = 32 << 20;
pub const SOURCE_BYTES_IN_FLIGHT_MIN: usize = 1 << 20;
pub const SOURCE_BYTES_IN_FLIGHT_MAX: usize = 1 << 30;
/// Parked messages of one source, by default and at most.
pub const PARKED_MAX: u32 = 10_000;
pub const PARKED_MAX_MAX: u32 = 1_000_000;
/// How long a parked message is kept by default: as long as the log.
pub const PARKED_RETENTION: Duration = RETENTION;
/// Bytes of names and values of headers that are kept of a parked message.
pub const PARKED_HEADER_BYTES: usize = 16 * 1024;
/// Characters of a parked message's subject, sequence and id.
pub const PARKED_PLACE_CHARS: usize = 512;
/// Characters of the text that says what is wrong with a parked message.
pub const PARKED_DETAIL_CHARS: usize = 500;
