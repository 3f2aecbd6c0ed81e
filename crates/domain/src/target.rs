//! The guard against forbidden targets (SSRF): its trait and its verdicts.
//!
//! The table of addresses and the sockets are in `egress`. `service` knows only this trait, so that the rules about
//! addresses are in one place.

use std::fmt;

use async_trait::async_trait;
use url::Url;

use super::endpoint_options::CertificateFacts;
use super::id::{EndpointId, WorkspaceId};
use super::private_options::ClientCertificate;

/// The endpoint for which a target is called. Some rules of the operator hold for one workspace or one endpoint alone,
/// and each endpoint has its own vetted addresses. Without a workspace only the rules for everybody hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requester {
    pub workspace: Option<WorkspaceId>,
    pub endpoint: Option<EndpointId>,
}

impl Requester {
    pub const fn endpoint(workspace: WorkspaceId, endpoint: EndpointId) -> Self {
        Self { workspace: Some(workspace), endpoint: Some(endpoint) }
    }
}

/// Why a target was refused. Names the class of the address, never what answered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    Loopback,
    Private,
    LinkLocal,
    Cgnat,
    Multicast,
    Unspecified,
    /// Any other entry of the IANA special-purpose registries.
    Reserved,
    /// The name has no address, or no name server answered in time.
    Unresolvable,
    /// A port on which no webhook receiver listens.
    Port,
    /// Plain `http` to a target that the operator has not allowed.
    PlainHttp,
    /// The operator forbids the host or its address.
    Denied,
}

impl RefusalReason {
    pub const ALL: [Self; 11] = [
        Self::Loopback,
        Self::Private,
        Self::LinkLocal,
        Self::Cgnat,
        Self::Multicast,
        Self::Unspecified,
        Self::Reserved,
        Self::Unresolvable,
        Self::Port,
        Self::PlainHttp,
        Self::Denied,
    ];

    /// Whether the reason lies in the host's addresses, as opposed to the scheme or port of one URL.
    pub const fn is_about_address(self) -> bool {
        !matches!(self, Self::Unresolvable | Self::Port | Self::PlainHttp)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link_local",
            Self::Cgnat => "cgnat",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
            Self::Unresolvable => "unresolvable",
            Self::Port => "port",
            Self::PlainHttp => "plain_http",
            Self::Denied => "denied",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal by the guard. Names the host and the class, never an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host {host} is refused: {reason}")]
pub struct TargetRefusal {
    pub host: String,
    pub reason: RefusalReason,
    /// The fault may be gone in a moment: no name server could answer just now.
    pub is_passing: bool,
}

/// A target did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VettingError {
    #[error(transparent)]
    Refused(#[from] TargetRefusal),
    /// Our own fault: it says nothing about the target.
    #[error("no name server can be reached, or too many look-ups are waiting")]
    NoNameServer,
}

/// Decides whether a URL may be called.
#[async_trait]
pub trait TargetGuard: Send + Sync + 'static {
    /// Whether the operator allowed plain `http` for the host of this URL.
    fn allows_plain_http(&self, url: &Url, requester: Requester) -> bool;

    /// Allows scheme, host and port of the operator webhook for its endpoint alone.
    fn allow_operator_webhook(&self, url: &Url, endpoint: EndpointId);

    /// Resolves the URL's host again and checks each of its addresses. Sets the vetted addresses of this endpoint, and
    /// changes nothing for any other.
    ///
    /// # Errors
    /// When the host has no address, or one of its addresses may not be called, or nobody can say.
    async fn vet(&self, url: &Url, requester: Requester) -> Result<(), VettingError>;

    /// Checks whether a client certificate is usable for mutual TLS, and returns the facts that may be shown.
    ///
    /// # Errors
    /// The problem, as the end of a sentence.
    fn vet_client_certificate(&self, certificate: &ClientCertificate) -> Result<CertificateFacts, String>;
}
