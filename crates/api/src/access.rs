//! Who may call a route.

use postrider_domain::access::{Principal, Scope, ScopeMissing, needs};

/// What a route demands of its caller. The router enforces it, and the OpenAPI document states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No key. Such a request has no principal, is not counted and needs no version.
    Public,
    /// Any valid key.
    AnyKey,
    /// A key with at least one of these scopes.
    OneOf(&'static [Scope]),
}

impl Access {
    pub const ENDPOINT_WRITE: Self = Self::OneOf(needs::ENDPOINT_WRITE);
    pub const WEBHOOKS_READ: Self = Self::OneOf(needs::WEBHOOKS_READ);
    pub const PUBLISH: Self = Self::OneOf(needs::PUBLISH);
    pub const EVENTS_READ: Self = Self::OneOf(needs::EVENTS_READ);
    pub const API_KEYS: Self = Self::OneOf(needs::API_KEYS);
    pub const AUDIT_READ: Self = Self::OneOf(needs::AUDIT_READ);
    pub const WORKSPACES: Self = Self::OneOf(needs::WORKSPACES);

    /// The scopes of which a key needs one. Empty when no scope is needed.
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Public | Self::AnyKey => &[],
            Self::OneOf(scopes) => scopes,
        }
    }

    /// # Errors
    /// When the key has none of the scopes.
    pub fn check(self, principal: &Principal) -> Result<(), ScopeMissing> {
        match self {
            Self::Public | Self::AnyKey => Ok(()),
            Self::OneOf(scopes) => principal.require(scopes),
        }
    }
}
