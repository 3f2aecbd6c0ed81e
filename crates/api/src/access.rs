//! Who may call a route.

use postrider_domain::access::{Principal, Scope, ScopeMissing};
use postrider_domain::permission::Permission;

/// What a route demands of its caller. The router enforces it, and the OpenAPI document states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No key. Such a request has no principal, is not counted and needs no version.
    Public,
    /// Any valid key.
    AnyKey,
    /// A key with at least one of the permission's scopes.
    Needs(Permission),
}

impl Access {
    /// The scopes of which a key needs one. Empty when no scope is needed.
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Public | Self::AnyKey => &[],
            Self::Needs(permission) => permission.scopes(),
        }
    }

    /// # Errors
    /// When the caller lacks the permission.
    pub fn check(self, principal: &Principal) -> Result<(), ScopeMissing> {
        match self {
            Self::Public | Self::AnyKey => Ok(()),
            Self::Needs(permission) => principal.require(permission),
        }
    }
}
