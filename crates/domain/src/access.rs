//! Callers: modes, scopes, API keys, and what a principal may do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::audit::{Actor, Author};
use super::caller::CallerAddress;
use super::event_type::EventTypeName;
use super::id::{ApiKeyId, RequestId, RowKey, WorkspaceId};
use super::invalid_field::InvalidField;
use super::limits;
pub use super::mode::Mode;
use super::name;
use super::permission::{Capabilities, Permission};
use super::tenant::Tenant;
use super::time::Timestamp;

/// A permission of a key.
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

/// The scopes that a key of the server's own workspace may have: those that only read.
pub const OPERATIONS_KEY: &[Scope] = &[Scope::WebhooksRead, Scope::EventsRead, Scope::AuditRead];

/// The text is not the name of a scope. Contains its first characters.
#[derive(Debug, thiserror::Error)]
#[error("there is no scope {0:?}; the scopes are {list}", list = Scopes::of(&Scope::ALL))]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.chars().take(limits::ECHO_CHARS).collect()))
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

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a key of this mode may have these scopes. Managing workspaces concerns both of their modes, so only a
    /// live key may do it.
    pub fn exist_in(self, mode: Mode) -> bool {
        mode == Mode::Live || !self.contains(Scope::WorkspacesManage)
    }

    /// The scopes of this set that the other lacks.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
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

/// The authenticated caller of a request. What it may do is checked by [`Principal::require`].
#[derive(Clone, Debug)]
pub struct Principal {
    pub actor: Actor,
    pub tenant: Tenant,
    pub workspace_id: WorkspaceId,
    pub scopes: Scopes,
    /// What a portal session may do. Other callers have none.
    pub capabilities: Capabilities,
    /// The event types that a portal session may see. `None`: all.
    pub event_types: Option<Arc<[EventTypeName]>>,
    /// When the caller's key stops working.
    pub expires_at: Option<Timestamp>,
    /// The request that the caller made.
    pub request_id: Option<RequestId>,
    /// Where the request came from.
    pub address: Option<CallerAddress>,
}

/// The caller has none of the scopes, any one of which is enough.
#[derive(Debug, thiserror::Error)]
#[error("Token lacks the required scope. Need one of: {list}.", list = Scopes::of(needed))]
pub struct ScopeMissing {
    pub needed: &'static [Scope],
}

impl Principal {
    /// Whether an event type exists for this caller.
    pub fn sees(&self, name: &EventTypeName) -> bool {
        self.event_types.as_ref().is_none_or(|types| types.contains(name))
    }

    /// Whether the caller is a customer on the portal of one project.
    pub const fn is_customer(&self) -> bool {
        self.tenant.project.is_some()
    }

    pub fn may(&self, permission: Permission) -> bool {
        permission.scopes().iter().any(|&scope| self.scopes.contains(scope))
            || permission.capability().is_some_and(|capability| self.capabilities.contains(capability))
    }

    /// # Errors
    /// When the caller may not do it.
    pub fn require(&self, permission: Permission) -> Result<(), ScopeMissing> {
        if self.may(permission) { Ok(()) } else { Err(ScopeMissing { needed: permission.scopes() }) }
    }

    /// Checks whether this caller may create a key of these scopes and this mode. Nobody grants what they lack, and
    /// only the command line grants the operator's scope.
    ///
    /// # Errors
    /// Names the reason.
    pub fn check_grant(&self, scopes: Scopes, mode: Mode) -> Result<(), GrantRefusal> {
        let lacking = scopes.without(self.scopes);
        if !lacking.is_empty() {
            return Err(GrantRefusal::Lacking(lacking));
        }
        if scopes.contains(Scope::WorkspacesManage) {
            return Err(GrantRefusal::Operator);
        }
        match (self.tenant.mode, mode) {
            (Mode::Test, Mode::Live) => Err(GrantRefusal::Live),
            (Mode::Live, _) | (Mode::Test, Mode::Test) => Ok(()),
        }
    }

    /// When a key that this caller creates stops working: at the instant asked for, or with the caller's own key.
    ///
    /// # Errors
    /// When it would work longer than the caller's own.
    pub fn check_expiry(&self, asked: Option<Timestamp>) -> Result<Option<Timestamp>, Outlives> {
        match (self.expires_at, asked) {
            (Some(own), Some(asked)) if asked > own => Err(Outlives { own }),
            (own, None) => Ok(own),
            (_, asked) => Ok(asked),
        }
    }

    pub const fn author(&self) -> Author {
        Author { actor: self.actor, mode: self.tenant.mode, request_id: self.request_id, address: self.address }
    }
}

/// A key would work longer than the key that creates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlives {
    /// When the creating key stops working.
    pub own: Timestamp,
}

/// Why this caller may not create a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantRefusal {
    /// The caller lacks these scopes.
    Lacking(Scopes),
    /// A test key may not create a live key.
    Live,
    /// Only the command line grants the operator's scope.
    Operator,
}

/// A note about the purpose of a key: 1 to 128 characters of a [`name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyName(String);

impl ApiKeyName {
    /// # Errors
    /// As [`name::check`].
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        name::check(text, limits::API_KEY_NAME_CHARS).map(|()| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The keyed hash by which the store finds an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApiKeyHash(pub [u8; 32]);

/// A stored API key, without its plaintext.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub key: RowKey,
    pub id: ApiKeyId,
    pub name: Option<String>,
    pub workspace_id: WorkspaceId,
    pub workspace_key: RowKey,
    pub mode: Mode,
    pub scopes: Scopes,
    pub last4: String,
    pub created_at: Timestamp,
    /// The key stops working at this instant: 00:00 UTC of its expiry day.
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Who made the key. `None` for a key of an earlier version whose audit entry does not tell.
    pub created_by: Option<Actor>,
    /// When the key was last accepted, at most a minute late.
    pub last_used_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::super::permission::Capability;
    use super::*;

    fn principal(mode: Mode, scopes: &[Scope]) -> Principal {
        Principal {
            actor: Actor::ApiKey(ApiKeyId::from_letters([b'a'; 16])),
            tenant: Tenant::whole(RowKey::from_i64(1), mode),
            workspace_id: WorkspaceId::from_letters([b'a'; 16]),
            scopes: Scopes::of(scopes),
            capabilities: Capabilities::default(),
            event_types: None,
            expires_at: None,
            request_id: None,
            address: None,
        }
    }

    #[test]
    fn nobody_grants_a_scope_or_mode_that_they_lack() {
        let has = [Scope::KeysManage, Scope::EventsWrite];
        let live = principal(Mode::Live, &has);
        assert_eq!(live.check_grant(Scopes::of(&has), Mode::Live), Ok(()));
        assert_eq!(live.check_grant(Scopes::default(), Mode::Test), Ok(()));
        let wanted = Scopes::of(&[Scope::EventsWrite, Scope::AuditRead, Scope::Dashboard]);
        let lacking = Scopes::of(&[Scope::AuditRead, Scope::Dashboard]);
        assert_eq!(live.check_grant(wanted, Mode::Live), Err(GrantRefusal::Lacking(lacking)));
        let test = principal(Mode::Test, &has);
        assert_eq!(test.check_grant(Scopes::of(&has), Mode::Live), Err(GrantRefusal::Live));
        assert_eq!(test.check_grant(Scopes::of(&has), Mode::Test), Ok(()));
    }

    #[test]
    fn no_key_outlives_its_maker() {
        let at = |day: i64| Timestamp::from_millis(day * 86_400_000);
        let endless = principal(Mode::Live, &[]);
        assert_eq!(endless.check_expiry(None), Ok(None));
        assert_eq!(endless.check_expiry(Some(at(9))), Ok(Some(at(9))));
        let ending = Principal { expires_at: Some(at(5)), ..endless };
        assert_eq!(ending.check_expiry(None), Ok(Some(at(5))));
        assert_eq!(ending.check_expiry(Some(at(4))), Ok(Some(at(4))));
        assert_eq!(ending.check_expiry(Some(at(5))), Ok(Some(at(5))));
        assert_eq!(ending.check_expiry(Some(at(6))), Err(Outlives { own: at(5) }));
    }

    #[test]
    fn an_operator_cannot_create_another_operator() {
        let operator = principal(Mode::Live, &Scope::ALL);
        let wanted = Scopes::of(&[Scope::WorkspacesManage]);
        assert_eq!(operator.check_grant(wanted, Mode::Live), Err(GrantRefusal::Operator));
        assert_eq!(operator.check_grant(Scopes::of(&Scope::ALL).without(wanted), Mode::Live), Ok(()));
    }

    #[test]
    fn only_a_live_key_may_manage_workspaces() {
        let all = Scopes::of(&Scope::ALL);
        assert!(all.exist_in(Mode::Live));
        assert!(!all.exist_in(Mode::Test));
        assert!(all.without(Scopes::of(&[Scope::WorkspacesManage])).exist_in(Mode::Test));
    }

    #[test]
    fn the_name_of_a_key_counts_characters() {
        assert!(ApiKeyName::parse("é").is_ok());
        assert!(ApiKeyName::parse(&"é".repeat(128)).is_ok());
        assert!(ApiKeyName::parse(&"é".repeat(129)).is_err());
        assert!(ApiKeyName::parse("").is_err());
        assert!(ApiKeyName::parse("a\nb").is_err());
    }

    #[test]
    fn every_scope_parses_back_from_its_name() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>().unwrap(), scope);
        }
        assert!("webhooks:everything".parse::<Scope>().is_err());
    }

    #[test]
    fn a_missing_scope_has_the_published_message() {
        let publisher = principal(Mode::Live, &[Scope::EventsWrite]);
        assert!(publisher.require(Permission::EventsPublish).is_ok());
        assert_eq!(
            publisher.require(Permission::EndpointsWrite).unwrap_err().to_string(),
            "Token lacks the required scope. Need one of: webhooks:manage."
        );
        assert!(principal(Mode::Live, &[Scope::WebhooksRead]).may(Permission::DeliveriesRead));
        assert!(principal(Mode::Live, &[Scope::WebhooksManage]).may(Permission::DeliveriesRead));
    }

    #[test]
    fn a_portal_session_may_do_what_its_capabilities_say() {
        let capabilities = Capabilities::of(&[Capability::EndpointsRead]);
        let portal = Principal { capabilities, ..principal(Mode::Live, &[]) };
        assert!(portal.may(Permission::EndpointsRead));
        assert!(!portal.may(Permission::EndpointsWrite));
        assert!(!portal.may(Permission::ApiKeysManage));
    }

    #[test]
    fn a_set_contains_only_what_it_was_given() {
        let set = Scopes::of(&[Scope::EventsRead, Scope::KeysManage]);
        assert!(set.contains_all(Scopes::of(&[Scope::EventsRead])));
        assert!(!set.contains_all(Scopes::of(&[Scope::EventsRead, Scope::AuditRead])));
        assert_eq!(set.to_string(), "events:read, keys:manage");
    }
}
