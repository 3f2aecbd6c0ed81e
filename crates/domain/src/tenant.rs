//! Whose data a question is about.
//!
//! Modes are separate: a tenant sees and changes only what has its own mode. Each SQL statement of the stores that
//! serves one tenant narrows by both fields.

use super::id::RowKey;
use super::mode::Mode;

/// One workspace in one mode. Every question to the store that concerns a single tenant carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    pub workspace: RowKey,
    pub mode: Mode,
}

impl Tenant {
    /// The modes whose keys this tenant manages and whose audit entries it reads. A live key has both modes, a test key
    /// has its own.
    pub const fn managed_modes(self) -> &'static [Mode] {
        match self.mode {
            Mode::Live => &[Mode::Live, Mode::Test],
            Mode::Test => &[Mode::Test],
        }
    }
}
