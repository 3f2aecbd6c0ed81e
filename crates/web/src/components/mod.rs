//! The parts of pages. Each takes what it shows and returns markup; none asks the service.
//!
//! States are a word and an icon, never a colour alone. Ids are shown whole, because people copy them.

pub mod activity;
pub mod answer;
pub mod body;
pub mod chart;
pub mod code;
pub mod curl;
pub mod delivery_rows;
pub mod field;
pub mod filter;
pub mod headers;
pub mod icon;
pub mod list;
pub mod outcome;
pub mod phases;
pub mod state;
pub mod time;
pub mod timeline;
