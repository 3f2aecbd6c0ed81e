//! Whose data a question is about.
//!
//! Modes are separate: a tenant sees and changes only what has its own mode. A tenant that is narrowed to a project
//! sees and changes only that project. Each SQL statement of the stores that serves one tenant narrows by these fields.

use super::endpoint::ProjectId;
use super::id::RowKey;
use super::mode::Mode;

/// One workspace in one mode, as a whole or one of its projects. Every question to the store that concerns a single
/// tenant carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    pub workspace: RowKey,
    pub mode: Mode,
    /// Only the endpoints of this project, the events that carry it, and the deliveries of both. What has no project
    /// does not belong to any. `None`: everything.
    pub project: Option<ProjectId>,
}

impl Tenant {
    /// A workspace with all of its projects.
    pub const fn whole(workspace: RowKey, mode: Mode) -> Self {
        Self { workspace, mode, project: None }
    }

    /// The text of its project, if it is narrowed to one.
    pub fn project_text(&self) -> Option<&str> {
        self.project.as_ref().map(ProjectId::as_str)
    }

    /// The modes whose keys this tenant manages and whose audit entries it reads. A live key has both modes, a test key
    /// has its own. No key and no audit entry belongs to a project.
    pub const fn managed_modes(self) -> &'static [Mode] {
        match (self.project, self.mode) {
            (Some(_), _) => &[],
            (None, Mode::Live) => &[Mode::Live, Mode::Test],
            (None, Mode::Test) => &[Mode::Test],
        }
    }
}
