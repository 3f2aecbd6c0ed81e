//! German phrases, by the part of the pages that shows them. The reader is addressed as "Sie".

mod deliveries;
mod endpoints;
mod faults;
mod forms;
mod frame;
mod statistics;
mod verification;
mod words;

/// Those of the tables that come from below the pages.
pub use faults::PHRASES as FAULTS;

/// All tables. A phrase stands in one of them.
pub const TABLES: &[&[(&str, &str)]] = &[
    frame::PHRASES,
    words::PHRASES,
    endpoints::PHRASES,
    statistics::PHRASES,
    deliveries::PHRASES,
    forms::PHRASES,
    faults::PHRASES,
    verification::PHRASES,
];
