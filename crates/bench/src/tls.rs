//! A certificate authority for one run. A sink speaks TLS with it, and the server under test verifies its certificates.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// Shared by all leaves: the benchmark measures handshakes, not key generation.
    leaf_key: KeyPair,
}

impl Authority {
    pub fn new() -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new([]).map_err(io::Error::other)?;
        // Leaves have the default name of the library. The same name here would make them look self-signed.
        params.distinguished_name.push(DnType::CommonName, "The authority of one benchmark");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).map_err(io::Error::other)?.pem();
        let leaf_key = KeyPair::generate().map_err(io::Error::other)?;
        Ok(Self { issuer: Issuer::new(params, key), pem, leaf_key })
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// An acceptor with a certificate for this address.
    pub fn acceptor(&self, address: IpAddr) -> io::Result<TlsAcceptor> {
        let mut params = CertificateParams::new([address.to_string()]).map_err(io::Error::other)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(self.leaf_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key));
        Ok(TlsAcceptor::from(Arc::new(config.map_err(io::Error::other)?)))
    }
}
