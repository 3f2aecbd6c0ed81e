//! What goes in and what comes out of one attempt: the request, the answer, and the closed list of ways in which
//! there was none.
//!
//! It stands apart from the client so that a simulated transport can speak the same words without a socket. The
//! errors carry no text from strangers: neither from an answer, nor from a certificate.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::identity::ClientIdentity;
use super::pin::PinError;
use super::resolver::ResolveError;
use super::target::TargetUrl;
use postrider_domain::target::TargetRefusal;

/// One `POST`. `Host` and `Content-Length` are added; everything else stands in `headers`.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    pub url: Arc<TargetUrl>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Shown to a receiver that asks for a client certificate.
    pub identity: Option<Arc<ClientIdentity>>,
    /// One deadline over look-up, connect, TLS, headers and body.
    pub deadline: Duration,
}

/// What one attempt brought.
#[derive(Debug)]
pub struct Exchange {
    pub result: Result<Answer, SendError>,
    pub phases: Phases,
    /// Whom the request, or the last TLS handshake, went to.
    pub peer: Option<SocketAddr>,
    /// The answer, or the failure, came over a connection that had been used before.
    pub reused: bool,
}

/// What the receiver said. Any status, since only the engine judges; a redirect is an answer like another.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The first 4 KiB, decompressed where the encoding is known.
    pub body: Bytes,
    /// There was, or may have been, more than `body`.
    pub body_truncated: bool,
}

/// How long each part took; `None` for a part that did not happen or did not end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    pub dns: Option<Duration>,
    pub connect: Option<Duration>,
    pub tls: Option<Duration>,
    /// From the start of the request until the head of the answer.
    pub first_byte: Option<Duration>,
    pub total: Duration,
}

/// What an attempt was doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Dns,
    Connect,
    Tls,
    /// Sending the request and waiting for the head of the answer.
    Headers,
    Body,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Refused(#[from] TargetRefusal),
    #[error("the host could not be resolved")]
    Dns(#[source] ResolveError),
    #[error("the connection was refused")]
    ConnectRefused,
    #[error("no connection within the time for one address")]
    ConnectTimeout,
    #[error("the connection failed")]
    ConnectFailed(#[source] io::Error),
    /// This machine has run out of something (file descriptors, ports, memory): nobody else's fault.
    #[error("this machine could not open a connection")]
    Local(#[source] io::Error),
    /// The operator's proxy is at fault, not the host.
    #[error("the egress proxy failed: {0}")]
    Proxy(ProxyFault),
    /// The proxy did as it should, and could not reach the host: it said so with a status, or not in time.
    #[error("the egress proxy could not connect to the host")]
    BeyondProxy { status: Option<u16> },
    #[error("the TLS handshake failed: {0}")]
    Tls(TlsFault),
    /// `status` is known when the head of an answer had come.
    #[error("no complete answer in time; the time was up during {phase}")]
    Timeout { phase: Phase, status: Option<u16> },
    #[error("the connection was closed before the answer was complete")]
    ConnectionClosed {
        status: Option<u16>,
        #[source]
        source: Option<Cause>,
    },
    /// Not HTTP, or more or larger headers than we read.
    #[error("the answer is not one that can be read")]
    InvalidResponse {
        status: Option<u16>,
        #[source]
        source: Option<Cause>,
    },
}

/// What lies below an error, for the log.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What was wrong with the operator's proxy, without its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProxyFault {
    #[error("its name has no address")]
    Unresolvable,
    #[error("it cannot be connected to")]
    Unreachable,
    #[error("it does not answer as a proxy does")]
    Broken,
    #[error("it refuses our credentials")]
    CredentialsRefused,
    /// A rule of its own: what our guard allowed, it does not.
    #[error("it may not connect to the host's address")]
    Forbidden,
    #[error("it answered with status {0}")]
    Status(u16),
}

/// What was wrong with a TLS handshake, without the peer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFault {
    CertificateExpired,
    CertificateNotYetValid,
    CertificateForAnotherName,
    CertificateFromUnknownIssuer,
    /// Revoked, badly encoded, badly signed, for another purpose.
    CertificateInvalid,
    /// The peer demands a client certificate and was shown none.
    ClientCertificateRequired,
    /// The peer does not accept the client certificate that it was shown.
    ClientCertificateRefused,
    /// The two sides could not agree, or the peer broke the protocol or refused us.
    Protocol,
    /// The connection ended during the handshake.
    Interrupted,
    /// The peer took longer than one address may take.
    Timeout,
}

impl TlsFault {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertificateExpired => "the certificate has expired",
            Self::CertificateNotYetValid => "the certificate is not valid yet",
            Self::CertificateForAnotherName => "the certificate is for another name",
            Self::CertificateFromUnknownIssuer => "the certificate's issuer is not known",
            Self::CertificateInvalid => "the certificate is not valid",
            Self::ClientCertificateRequired => "the receiver demands a client certificate",
            Self::ClientCertificateRefused => "the receiver refused the client certificate",
            Self::Protocol => "the two sides could not agree",
            Self::Interrupted => "the connection ended",
            Self::Timeout => "it took too long",
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Headers => "headers",
            Self::Body => "body",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<PinError> for SendError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Refused(refusal) => Self::Refused(refusal),
            PinError::Resolve(error) => Self::Dns(error),
        }
    }
}

/// What is known of an attempt so far. It outlives the attempt's future, so that a deadline loses nothing.
#[derive(Debug, Default)]
pub(super) struct AttemptProgress {
    pub phase: Phase,
    pub phases: Phases,
    pub peer: Option<SocketAddr>,
    pub reused: bool,
    pub status: Option<u16>,
}
