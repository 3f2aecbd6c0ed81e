//! TLS to strangers: versions, roots, session resumption, and the names of handshake failures.
//!
//! It opens no socket. There is no setting that leaves a certificate unchecked.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::exchange::TlsFault;
use super::identity::{ClientIdentity, IdentityId};
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::limits;

/// The TLS settings cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    #[error("cannot read the extra CA certificates: they are not PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("the extra CA certificates contain no certificate")]
    NoCertificate,
    #[error("cannot use an extra CA certificate")]
    Certificate(#[source] rustls::Error),
    #[error("the TLS library offers no usable protocol version")]
    Versions(#[source] rustls::Error),
}

/// One TLS connector per client identity: a session ticket issued to one identity is never shown by another.
pub(super) struct TlsConnectors {
    settings: ClientConfig,
    anonymous: TlsConnector,
    by_identity: Mutex<BoundedCache<IdentityId, TlsConnector>>,
}

impl TlsConnectors {
    pub fn new(settings: ClientConfig) -> Self {
        let anonymous = TlsConnector::from(Arc::new(settings.clone()));
        Self { settings, anonymous, by_identity: Mutex::new(BoundedCache::new(limits::IDENTITIES_REMEMBERED)) }
    }

    /// The connector for an identity, or for connections without a client certificate.
    pub fn of(&self, identity: Option<&ClientIdentity>) -> TlsConnector {
        let Some(identity) = identity else { return self.anonymous.clone() };
        let mut by_identity = self.by_identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = by_identity.get(&identity.id()) {
            return connector.clone();
        }
        let mut settings = self.settings.clone();
        settings.client_auth_cert_resolver = identity.resolver();
        settings.resumption = Resumption::in_memory_sessions(limits::TLS_SESSIONS_PER_IDENTITY);
        let connector = TlsConnector::from(Arc::new(settings));
        by_identity.insert(identity.id(), connector.clone());
        connector
    }
}

/// TLS 1.2 and 1.3 with the public roots, the operator's own roots, and session resumption.
///
/// # Errors
/// When `extra_ca_pem` holds no usable certificate.
pub fn tls_settings(extra_ca_pem: Option<&[u8]>, http2: bool) -> Result<ClientConfig, TlsSetupError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = extra_ca_pem {
        let public_roots = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(TlsSetupError::Pem)?).map_err(TlsSetupError::Certificate)?;
        }
        if roots.len() == public_roots {
            return Err(TlsSetupError::NoCertificate);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut settings = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    settings.resumption = Resumption::in_memory_sessions(limits::TLS_SESSIONS);
    if http2 {
        settings.alpn_protocols.push(b"h2".to_vec());
    }
    settings.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(settings)
}

/// The reason for a failed handshake, without any text from the peer.
pub(super) fn tls_fault(error: &io::Error) -> TlsFault {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return TlsFault::Interrupted;
    };
    match cause {
        rustls::Error::InvalidCertificate(fault) => match fault {
            Expired | ExpiredContext { .. } => TlsFault::CertificateExpired,
            NotValidYet | NotValidYetContext { .. } => TlsFault::CertificateNotYetValid,
            NotValidForName | NotValidForNameContext { .. } => TlsFault::CertificateForAnotherName,
            UnknownIssuer => TlsFault::CertificateFromUnknownIssuer,
            _ => TlsFault::CertificateInvalid,
        },
        rustls::Error::AlertReceived(alert) => fault_of_alert(*alert),
        _ => TlsFault::Protocol,
    }
}

/// The alert with which the peer ended an established connection, if the error is one.
pub(super) fn alert_of(error: &io::Error) -> Option<TlsFault> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(fault_of_alert(*alert)),
        _ => None,
    }
}

/// An alert about a certificate is about ours: it is the one that the peer checks.
fn fault_of_alert(alert: AlertDescription) -> TlsFault {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => TlsFault::ClientCertificateRequired,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        // A signature does not verify: the certificate's, or the one made with its key.
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => TlsFault::ClientCertificateRefused,
        _ => TlsFault::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_authorities_must_be_certificates() {
        assert!(matches!(tls_settings(Some(b"nothing"), true), Err(TlsSetupError::NoCertificate)));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(tls_settings(Some(broken), true), Err(TlsSetupError::Certificate(_))));
    }
}
