//! The client certificate for a receiver that demands one (mutual TLS): a chain and its private key, checked once.
//!
//! A [`ClientIdentity`] proves that the key belongs to the certificate. Its id keeps connections and TLS sessions
//! apart: a connection opened with one customer's certificate never carries another's request. It must not check the
//! validity period: the receiver does, with its own clock.

use std::fmt;
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use postrider_crypto::sha256;
use postrider_domain::limits;
use postrider_domain::secret::hex;

/// A certificate chain and the private key of its first certificate.
#[derive(Clone)]
pub struct ClientIdentity {
    id: IdentityId,
    certified: Arc<CertifiedKey>,
}

/// The SHA-256 of the whole chain. A corrected chain is another identity, so that no connection of the old one is
/// reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdentityId([u8; 32]);

/// The certificate or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIdentity {
    #[error("cannot read the certificate chain: it is not PEM")]
    ChainPem(#[source] pem::Error),
    #[error("the certificate chain contains no certificate")]
    NoCertificate,
    #[error("the chain has more than {max} certificates", max = limits::CLIENT_CERTIFICATES)]
    TooManyCertificates,
    #[error("cannot read the first certificate of the chain")]
    Certificate(#[source] rustls::Error),
    #[error("cannot read the private key: it is not PEM")]
    KeyPem(#[source] pem::Error),
    #[error("there is no unencrypted private key (PKCS#8, PKCS#1 or SEC1)")]
    NoKey,
    #[error("the private key's type is not supported: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more")]
    UnsupportedKey(#[source] rustls::Error),
    #[error("the private key does not belong to the first certificate of the chain")]
    KeyMismatch,
}

impl ClientIdentity {
    /// Reads a PEM certificate chain, the client's own certificate first, and a PEM private key.
    ///
    /// # Errors
    /// When either cannot be read or used, or the key does not belong to the first certificate.
    pub fn from_pem(cert_chain: &[u8], key: &[u8]) -> Result<Self, InvalidIdentity> {
        let mut chain = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(cert_chain) {
            if chain.len() == limits::CLIENT_CERTIFICATES {
                return Err(InvalidIdentity::TooManyCertificates);
            }
            chain.push(certificate.map_err(InvalidIdentity::ChainPem)?);
        }
        if chain.is_empty() {
            return Err(InvalidIdentity::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|fault| match fault {
            pem::Error::NoItemsFound => InvalidIdentity::NoKey,
            fault => InvalidIdentity::KeyPem(fault),
        })?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(key).map_err(InvalidIdentity::UnsupportedKey)?;
        let id = IdentityId::of(&chain);
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(Self { id, certified: Arc::new(certified) }),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(InvalidIdentity::KeyMismatch),
            Err(fault) => Err(InvalidIdentity::Certificate(fault)),
        }
    }

    pub fn id(&self) -> IdentityId {
        self.id
    }

    /// The usual fingerprint of the first certificate: SHA-256 of its DER, in lowercase hex.
    pub fn leaf_sha256(&self) -> String {
        hex(&sha256(self.certified.cert.first().map_or(&[], |leaf| leaf)))
    }

    /// Shows this certificate to every server that asks for one, whichever authorities it names.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }
}

impl IdentityId {
    fn of(chain: &[CertificateDer<'_>]) -> Self {
        // DER encodes its own length, so two different chains never concatenate to the same bytes.
        let chain: Vec<u8> = chain.iter().flat_map(|certificate| certificate.iter().copied()).collect();
        Self(sha256(&chain))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(Vec::<String>::new()).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn read(chain: &str, key: &str) -> Result<ClientIdentity, InvalidIdentity> {
        ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes())
    }

    #[test]
    fn an_identity_is_a_chain_and_a_key_that_is_never_printed() {
        let (certificate, key) = pair();
        let identity = read(&certificate, &key).unwrap();
        assert_eq!(identity.id(), read(&certificate, &key).unwrap().id());
        let longer = read(&(certificate.clone() + &pair().0), &key).unwrap();
        assert_ne!(identity.id(), longer.id(), "another chain is another identity");
        let shown = format!("{identity:?}");
        assert!(shown.starts_with("ClientIdentity { id: ") && shown.len() < 100, "{shown}");
    }

    #[test]
    fn an_unusable_identity_is_refused_with_its_reason() {
        use InvalidIdentity::{Certificate, ChainPem, KeyMismatch, KeyPem, NoCertificate, NoKey, TooManyCertificates};
        let ((certificate, key), (other, _)) = (pair(), pair());
        let cut = &certificate[..certificate.len() / 2];
        assert!(matches!(read("", &key), Err(NoCertificate)));
        assert!(matches!(read(&key, &key), Err(NoCertificate)));
        assert!(matches!(read(cut, &key), Err(ChainPem(_))));
        assert!(matches!(read(&certificate, ""), Err(NoKey)));
        assert!(matches!(read(&certificate, &certificate), Err(NoKey)));
        assert!(matches!(read(&certificate, &key[..key.len() / 2]), Err(KeyPem(_))));
        assert!(matches!(read(&other, &key), Err(KeyMismatch)));
        assert!(matches!(read(&certificate.repeat(limits::CLIENT_CERTIFICATES + 1), &key), Err(TooManyCertificates)));
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(read(garbled, &key), Err(Certificate(_))));
        let garbled = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(read(&certificate, garbled), Err(InvalidIdentity::UnsupportedKey(_))));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(matches!(read(&certificate, encrypted), Err(NoKey)));
    }
}
