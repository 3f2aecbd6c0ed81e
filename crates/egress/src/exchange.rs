//! The types of one exchange: the request, the answer, and the closed list of errors.
//!
//! They stand apart from the client, so that a simulated transport can use them without a socket. The errors carry no
//! text from strangers, neither from an answer nor from a certificate.

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
use super::stream::Protocol;
use super::target::TargetUrl;
use postrider_domain::target::{Requester, TargetRefusal};

/// One `POST`. `Host` and `Content-Length` are added; all other headers are in `headers`.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    pub url: Arc<TargetUrl>,
    /// The endpoint that the request is for.
    pub requester: Requester,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Shown to a receiver that asks for a client certificate.
    pub identity: Option<Arc<ClientIdentity>>,
    /// One deadline for look-up, connect, TLS, headers and body together.
    pub deadline: Duration,
}

/// The result of one attempt.
#[derive(Debug)]
pub struct Exchange {
    pub result: Result<Answer, SendError>,
    pub phases: Phases,
    /// The peer of the request, or of the last TLS handshake if no request was sent.
    pub peer: Option<SocketAddr>,
    /// How the request was sent last; `None` if it was not sent.
    pub protocol: Option<Protocol>,
    /// The connection had carried another request before.
    pub reused: bool,
}

/// The receiver's answer, with any status. The engine judges it; a redirect is an answer like any other.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The first 4 KiB, decompressed if the encoding is known.
    pub body: Bytes,
    /// The body is, or may be, longer than `body`.
    pub body_truncated: bool,
}

/// How long each phase took; `None` for a phase that did not happen or did not end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    pub dns: Option<Duration>,
    pub connect: Option<Duration>,
    pub tls: Option<Duration>,
    /// From the start of the request to the head of the answer.
    pub first_byte: Option<Duration>,
    /// From the head of the answer to its end, or to the limit of what is read.
    pub body: Option<Duration>,
    pub total: Duration,
}

/// The phase that an attempt is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Dns,
    Connect,
    Tls,
    /// Sends the request and waits for the head of the answer.
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
    #[error("the host did not accept a connection in time")]
    ConnectTimeout,
    #[error("the connection failed")]
    ConnectFailed(#[source] io::Error),
    /// This machine is out of file descriptors, ports or memory. Nobody else's fault.
    #[error("this machine could not open a connection")]
    Local(#[source] io::Error),
    /// The operator's proxy failed, not the host.
    #[error("the egress proxy failed: {0}")]
    Proxy(ProxyFault),
    /// The proxy works but could not connect to the host: it answered with a status, or not in time.
    #[error("the egress proxy could not connect to the host")]
    BeyondProxy { status: Option<u16> },
    #[error("the TLS handshake failed: {0}")]
    Tls(TlsFault),
    /// `status` is known if the head of an answer came.
    #[error("no complete answer in time; the time was up during {phase}")]
    Timeout { phase: Phase, status: Option<u16> },
    #[error("the connection was closed before the answer was complete")]
    ConnectionClosed {
        status: Option<u16>,
        #[source]
        source: Option<Cause>,
    },
    /// Not HTTP, or beyond a limit on headers or bytes.
    #[error("the answer is not valid HTTP, or it is too large")]
    InvalidResponse {
        status: Option<u16>,
        #[source]
        source: Option<Cause>,
    },
}

/// The cause of an error, for the log.
pub type Cause = Box<dyn Error + Send + Sync>;

/// How the operator's proxy failed, without any text from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProxyFault {
    #[error("its name has no address")]
    Unresolvable,
    #[error("it does not accept connections")]
    Unreachable,
    #[error("it does not answer like an HTTP proxy")]
    Broken,
    #[error("it refuses our credentials")]
    CredentialsRefused,
    /// A rule of the proxy refuses a target that our policy allows.
    #[error("it may not connect to the host's address")]
    Forbidden,
    #[error("it answered with status {0}")]
    Status(u16),
}

/// How a TLS handshake failed, without any text from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFault {
    CertificateExpired,
    CertificateNotYetValid,
    CertificateForAnotherName,
    CertificateFromUnknownIssuer,
    /// Revoked, badly encoded, badly signed or for another purpose.
    CertificateInvalid,
    /// The peer demands a client certificate and got none.
    ClientCertificateRequired,
    /// The peer refuses our client certificate.
    ClientCertificateRefused,
    /// No common parameters, or the peer broke the protocol or refused the connection.
    Protocol,
    /// The connection ended during the handshake.
    Interrupted,
    /// The handshake took longer than one address may take.
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

/// The state of an attempt so far. It outlives the attempt's future, so that nothing is lost when the deadline passes.
#[derive(Debug, Default)]
pub(super) struct AttemptProgress {
    pub phase: Phase,
    pub phases: Phases,
    pub peer: Option<SocketAddr>,
    pub protocol: Option<Protocol>,
    pub reused: bool,
    pub status: Option<u16>,
}
