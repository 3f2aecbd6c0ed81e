//! Who calls and what they may do.

use std::fmt;
use std::str::FromStr;

use super::id::{ApiKeyId, RowKey, WorkspaceId};
use super::time::Timestamp;

/// Live keys send; test keys reach the same routes and cause no side effects outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    Live,
    Test,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// One thing that a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    WebhooksManage,
    WebhooksRead,
    EventsWrite,
    EventsRead,
    KeysManage,
    AuditRead,
    PortalCreate,
    Dashboard,
    WorkspacesManage,
}

impl Scope {
    pub const ALL: [Self; 9] = [
        Self::WebhooksManage,
        Self::WebhooksRead,
        Self::EventsWrite,
        Self::EventsRead,
        Self::KeysManage,
        Self::AuditRead,
        Self::PortalCreate,
        Self::Dashboard,
        Self::WorkspacesManage,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebhooksManage => "webhooks:manage",
            Self::WebhooksRead => "webhooks:read",
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::KeysManage => "keys:manage",
            Self::AuditRead => "audit:read",
            Self::PortalCreate => "portal:create",
            Self::Dashboard => "dashboard",
            Self::WorkspacesManage => "workspaces:manage",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Which scopes do for what; any one of a set is enough.
pub mod needs {
    use super::Scope;

    pub const ENDPOINT_WRITE: &[Scope] = &[Scope::WebhooksManage];
    pub const WEBHOOKS_READ: &[Scope] = &[Scope::WebhooksManage, Scope::WebhooksRead];
    pub const PUBLISH: &[Scope] = &[Scope::EventsWrite];
    pub const EVENTS_READ: &[Scope] = &[Scope::EventsRead];
}

/// The text names no scope.
#[derive(Debug, thiserror::Error)]
#[error("there is no scope {0:?}; the scopes are {list}", list = Scopes::of(&Scope::ALL))]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scopes {
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |set, &scope| set | Self::bit(scope)))
    }

    pub fn contains(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    pub fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |&scope| self.contains(scope))
    }

    const fn bit(scope: Scope) -> u16 {
        1 << scope as u16
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            write!(f, "{}{scope}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Whoever holds the key of a request: authenticated, not yet authorised for anything.
#[derive(Clone, Debug)]
pub struct Principal {
    pub key_id: ApiKeyId,
    pub workspace_id: WorkspaceId,
    pub workspace_key: RowKey,
    pub mode: Mode,
    pub scopes: Scopes,
}

/// The caller's key lacks every scope that would do.
#[derive(Debug, thiserror::Error)]
#[error("Token lacks the required scope. Need one of: {list}.", list = Scopes::of(needed))]
pub struct ScopeMissing {
    pub needed: &'static [Scope],
}

impl Principal {
    /// # Errors
    /// When the key has none of the scopes, any of which would do.
    pub fn require(&self, any_of: &'static [Scope]) -> Result<(), ScopeMissing> {
        if any_of.iter().any(|&scope| self.scopes.contains(scope)) {
            Ok(())
        } else {
            Err(ScopeMissing { needed: any_of })
        }
    }
}

/// The keyed hash under which the store knows an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApiKeyHash(pub [u8; 32]);

/// An API key as it is kept: everything but the key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub workspace_id: WorkspaceId,
    pub workspace_key: RowKey,
    pub mode: Mode,
    pub scopes: Scopes,
    pub last4: String,
    pub created_at: Timestamp,
    /// The key stops working at this instant: 00:00 UTC of its day of expiry.
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_reads_back_from_its_name() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>().unwrap(), scope);
        }
        assert!("webhooks:everything".parse::<Scope>().is_err());
    }

    #[test]
    fn a_missing_scope_is_told_in_the_published_words() {
        let principal = Principal {
            key_id: ApiKeyId::from_letters([b'a'; 16]),
            workspace_id: WorkspaceId::from_letters([b'a'; 16]),
            workspace_key: RowKey::from_i64(1),
            mode: Mode::Live,
            scopes: Scopes::of(&[Scope::EventsWrite]),
        };
        assert!(principal.require(&[Scope::EventsWrite]).is_ok());
        assert_eq!(
            principal.require(&[Scope::WebhooksManage]).unwrap_err().to_string(),
            "Token lacks the required scope. Need one of: webhooks:manage."
        );
        assert!(principal.require(&[Scope::WebhooksManage, Scope::EventsWrite]).is_ok());
    }

    #[test]
    fn a_set_contains_only_what_it_was_given() {
        let set = Scopes::of(&[Scope::EventsRead, Scope::KeysManage]);
        assert!(set.contains_all(Scopes::of(&[Scope::EventsRead])));
        assert!(!set.contains_all(Scopes::of(&[Scope::EventsRead, Scope::AuditRead])));
        assert_eq!(set.to_string(), "events:read, keys:manage");
    }
}
