//! German phrases, by the part of the pages that shows them. The reader is addressed as "Sie".

mod frame;

/// All tables. A phrase stands in one of them.
pub const TABLES: &[&[(&str, &str)]] = &[frame::PHRASES];
