//! What may be called: the verdicts on a host's addresses and the promise a guard must keep.
//!
//! The table of addresses and the sockets live in `egress`; `service` knows only this trait, so that a rule
//! about strangers' addresses stands in one place.

use std::fmt;

use async_trait::async_trait;
use url::Url;

use super::endpoint_options::CertificateFacts;
use super::private_options::ClientCertificate;

/// Why a target was refused: the class alone, never what answered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    Loopback,
    Private,
    LinkLocal,
    Cgnat,
    Multicast,
    Unspecified,
    /// Everything else in the IANA special-purpose registries.
    Reserved,
    /// The name has no address, or nothing answered for it in time.
    Unresolvable,
    /// The port is one that no webhook receiver listens on.
    Port,
    /// Plain `http` to a target that the operator has not allowed by name.
    PlainHttp,
}

impl RefusalReason {
    pub const ALL: [Self; 10] = [
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
    ];

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
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The guard's no. Names the host and the class, never an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host {host} is refused: {reason}")]
pub struct TargetRefusal {
    pub host: String,
    pub reason: RefusalReason,
}

/// Decides whether a URL may be called at all.
#[async_trait]
pub trait TargetGuard: Send + Sync + 'static {
    /// Whether the operator allowed plain `http` for this very URL's host.
    fn allows_plain_http(&self, url: &Url) -> bool;

    /// Resolves the URL's host anew and vets every address it has.
    ///
    /// # Errors
    /// When the host has no address or any of its addresses may not be called.
    async fn vet(&self, url: &Url) -> Result<(), TargetRefusal>;

    /// Whether a receiver could be shown this client certificate, and what is shown of it.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    fn vet_client_certificate(&self, certificate: &ClientCertificate) -> Result<CertificateFacts, String>;
}
