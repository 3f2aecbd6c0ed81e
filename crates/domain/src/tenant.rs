//! Whose data a question is about.

use super::id::RowKey;
use super::mode::Mode;

/// One workspace in one mode. Every question to the store that concerns a single tenant carries it, so that a narrower
/// view of a workspace has one place to stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    pub workspace: RowKey,
    pub mode: Mode,
}
