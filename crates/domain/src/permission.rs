//! What a caller may do: one table for the API, the pages and their buttons.
//!
//! Each verb of the service requires one permission. A key or a dashboard session has it by a scope, a portal session
//! by a capability. A page asks the same table before it shows a button, so a button and its request never disagree.

use std::fmt;

use super::access::Scope;

/// One thing that a caller may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    EndpointsRead,
    EndpointsWrite,
    SecretsRotate,
    EndpointsTest,
    /// Deliveries and their attempts.
    DeliveriesRead,
    /// The addresses that attempts connected to: they may be those of the operator's own network.
    RemoteAddressesRead,
    /// The data of events.
    PayloadsRead,
    DeliveriesRetry,
    /// Gives up the delivery at which a strict order has stopped.
    DeliveriesSkip,
    /// Counts, starts and stops replays.
    ReplaysWrite,
    EventsPublish,
    EventsRead,
    /// Takes the content of events out of the store, and sees how far that is.
    EventsErase,
    ApiKeysManage,
    AuditRead,
    PortalCreate,
    /// Signs in to the dashboard.
    DashboardUse,
    WorkspacesManage,
    /// The processes of the server, whose versions an operator compares during an upgrade.
    NodesRead,
}

impl Permission {
    /// The scopes that give it. Any one is enough.
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::EndpointsRead | Self::DeliveriesRead => &[Scope::WebhooksManage, Scope::WebhooksRead],
            Self::EndpointsWrite
            | Self::SecretsRotate
            | Self::EndpointsTest
            | Self::DeliveriesRetry
            | Self::DeliveriesSkip
            | Self::ReplaysWrite => &[Scope::WebhooksManage],
            Self::EventsPublish | Self::EventsErase => &[Scope::EventsWrite],
            Self::EventsRead | Self::PayloadsRead => &[Scope::EventsRead],
            Self::ApiKeysManage => &[Scope::KeysManage],
            Self::AuditRead => &[Scope::AuditRead],
            Self::PortalCreate => &[Scope::PortalCreate],
            Self::DashboardUse => &[Scope::Dashboard],
            Self::NodesRead => &[Scope::Dashboard, Scope::WorkspacesManage],
            Self::WorkspacesManage | Self::RemoteAddressesRead => &[Scope::WorkspacesManage],
        }
    }

    /// The capability of portal sessions that gives it. `None` when no portal session has it.
    pub const fn capability(self) -> Option<Capability> {
        match self {
            Self::EndpointsRead => Some(Capability::EndpointsRead),
            Self::EndpointsWrite => Some(Capability::EndpointsWrite),
            Self::SecretsRotate => Some(Capability::SecretsRotate),
            Self::EndpointsTest => Some(Capability::Test),
            Self::DeliveriesRead => Some(Capability::DeliveriesRead),
            Self::PayloadsRead => Some(Capability::PayloadsRead),
            Self::DeliveriesRetry | Self::ReplaysWrite => Some(Capability::DeliveriesRetry),
            Self::DeliveriesSkip
            | Self::RemoteAddressesRead
            | Self::EventsPublish
            | Self::EventsRead
            | Self::EventsErase
            | Self::ApiKeysManage
            | Self::AuditRead
            | Self::PortalCreate
            | Self::DashboardUse
            | Self::WorkspacesManage
            | Self::NodesRead => None,
        }
    }
}

/// What a portal session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    EndpointsRead,
    EndpointsWrite,
    SecretsRotate,
    DeliveriesRead,
    PayloadsRead,
    DeliveriesRetry,
    Test,
}

impl Capability {
    pub const ALL: [Self; 7] = [
        Self::EndpointsRead,
        Self::EndpointsWrite,
        Self::SecretsRotate,
        Self::DeliveriesRead,
        Self::PayloadsRead,
        Self::DeliveriesRetry,
        Self::Test,
    ];

    /// What a session may do that is to change nothing.
    pub const READ_ONLY: [Self; 3] = [Self::EndpointsRead, Self::DeliveriesRead, Self::PayloadsRead];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndpointsRead => "endpoints:read",
            Self::EndpointsWrite => "endpoints:write",
            Self::SecretsRotate => "secrets:rotate",
            Self::DeliveriesRead => "deliveries:read",
            Self::PayloadsRead => "payloads:read",
            Self::DeliveriesRetry => "deliveries:retry",
            Self::Test => "test",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.as_str() == text)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of capabilities. Empty for every caller but a portal session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u8);

impl Capabilities {
    pub fn of(capabilities: &[Capability]) -> Self {
        Self(capabilities.iter().fold(0, |set, &capability| set | Self::bit(capability)))
    }

    /// With the capabilities that these are no use without: who changes endpoints sees them.
    pub fn with_reading(self) -> Self {
        let needs = |readers: &[Capability], writers: &[Capability]| {
            if writers.iter().any(|writer| self.contains(*writer)) { Self::of(readers).0 } else { 0 }
        };
        let endpoints = [Capability::EndpointsWrite, Capability::SecretsRotate, Capability::Test];
        let deliveries = [Capability::PayloadsRead, Capability::DeliveriesRetry];
        Self(
            self.0
                | needs(&[Capability::EndpointsRead], &endpoints)
                | needs(&[Capability::DeliveriesRead], &deliveries),
        )
    }

    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & Self::bit(capability) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |&capability| self.contains(capability))
    }

    const fn bit(capability: Capability) -> u8 {
        1 << capability as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_parses_back_from_its_name() {
        for capability in Capability::ALL {
            assert_eq!(Capability::parse(capability.as_str()), Some(capability));
        }
        assert_eq!(Capability::parse("keys:manage"), None);
    }

    #[test]
    fn a_set_of_capabilities_holds_what_it_was_given() {
        let set = Capabilities::of(&[Capability::Test, Capability::EndpointsRead]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Capability::EndpointsRead, Capability::Test]);
        assert!(!set.contains(Capability::SecretsRotate));
        let writes = Capabilities::of(&[Capability::SecretsRotate]).with_reading();
        assert_eq!(writes.iter().collect::<Vec<_>>(), [Capability::EndpointsRead, Capability::SecretsRotate]);
        assert_eq!(Capabilities::of(&[]).with_reading(), Capabilities::default());
    }
}
