//! The guard against forbidden targets (SSRF): its trait and its verdicts.
//!
//! The table of addresses and the sockets are in `egress`. `service` knows only this trait, so that the rules about
//! addresses are in one place.

use std::fmt;

use async_trait::async_trait;
use url::Url;

use super::endpoint_options::CertificateFacts;
use super::private_options::ClientCertificate;

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

/// A refusal by the guard. Names the host and the class, never an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host {host} is refused: {reason}")]
pub struct TargetRefusal {
    pub host: String,
    pub reason: RefusalReason,
}

/// Decides whether a URL may be called.
#[async_trait]
pub trait TargetGuard: Send + Sync + 'static {
    /// Whether the operator allowed plain `http` for the host of this URL.
    fn allows_plain_http(&self, url: &Url) -> bool;

    /// Resolves the URL's host again and checks each of its addresses.
    ///
    /// # Errors
    /// When the host has no address, or one of its addresses may not be called.
    async fn vet(&self, url: &Url) -> Result<(), TargetRefusal>;

    /// Checks whether a client certificate is usable for mutual TLS, and returns the facts that may be shown.
    ///
    /// # Errors
    /// The problem, as the end of a sentence.
    fn vet_client_certificate(&self, certificate: &ClientCertificate) -> Result<CertificateFacts, String>;
}
