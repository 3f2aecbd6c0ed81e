//! A workspace: it isolates the endpoints, events and keys of one product from those of another.

use super::id::{RowKey, WorkspaceId};
use super::limits;
use super::time::Timestamp;

#[derive(Clone, Debug)]
pub struct Workspace {
    pub key: RowKey,
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    pub created_at: Timestamp,
}

/// 1 to 128 characters without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceName(String);

#[derive(Debug, thiserror::Error)]
#[error("must be 1 to {} characters without control characters", limits::WORKSPACE_NAME_CHARS)]
pub struct InvalidWorkspaceName;

impl WorkspaceName {
    /// # Errors
    /// When the text is empty, too long, or contains a control character.
    pub fn parse(text: &str) -> Result<Self, InvalidWorkspaceName> {
        let fits = (1..=limits::WORKSPACE_NAME_CHARS).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) { Ok(Self(text.to_owned())) } else { Err(InvalidWorkspaceName) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
