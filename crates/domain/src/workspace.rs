//! A workspace: it isolates the endpoints, events and keys of one product from those of another.

use super::id::{RowKey, WorkspaceId};
use super::invalid_field::InvalidField;
use super::limits;
use super::name;
use super::operational_event::OPERATIONS_WORKSPACE;
use super::time::Timestamp;

#[derive(Clone, Debug)]
pub struct Workspace {
    pub key: RowKey,
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    /// The server's own workspace, to which operational events belong. Its settings and keys come from the machine.
    pub is_operations: bool,
    pub created_at: Timestamp,
}

/// 1 to 128 characters of a [`name`]. A new name is not `operations`, which is the server's own
/// workspace, and not of the form of an id, so that a name never stands for another workspace's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceName(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWorkspaceName {
    #[error(transparent)]
    Text(InvalidField),
    #[error("must not have the form of an id")]
    Id,
    #[error("must not be \"{OPERATIONS_WORKSPACE}\", which belongs to the server")]
    Operations,
}

impl WorkspaceName {
    /// # Errors
    /// As [`name::check`], or when the text has the form of an id, or is the server's own.
    pub fn parse(text: &str) -> Result<Self, InvalidWorkspaceName> {
        name::check(text, limits::WORKSPACE_NAME_CHARS).map_err(InvalidWorkspaceName::Text)?;
        if text.parse::<WorkspaceId>().is_ok() {
            Err(InvalidWorkspaceName::Id)
        } else if text == OPERATIONS_WORKSPACE {
            Err(InvalidWorkspaceName::Operations)
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The name of the server's own workspace.
    pub fn operations() -> Self {
        Self(OPERATIONS_WORKSPACE.to_owned())
    }

    /// A name that the store holds. An older version accepted more than [`Self::parse`] does.
    pub fn from_stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_neither_an_id_nor_the_servers() {
        for taken in ["Acme", "Operations", "operations team", "org_", "org_000000000000000", "key_0000000000000000"] {
            assert_eq!(WorkspaceName::parse(taken).unwrap().as_str(), taken);
        }
        assert_eq!(WorkspaceName::parse("org_0000000000000000"), Err(InvalidWorkspaceName::Id));
        assert_eq!(WorkspaceName::parse("operations"), Err(InvalidWorkspaceName::Operations));
        assert!(matches!(WorkspaceName::parse(""), Err(InvalidWorkspaceName::Text(_))));
        assert_eq!(WorkspaceName::operations().as_str(), "operations");
    }
}
