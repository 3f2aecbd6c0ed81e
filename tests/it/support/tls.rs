//! A certificate authority for the tests, and the certificates that a receiver can present: valid, expired, for another
//! name, and self-signed.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Signs leaf certificates. A client trusts it only if it gets its PEM.
#[derive(Debug)]
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The certificate chain of a server and its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The certificate chain of a client and its key, as PEM texts.
#[derive(Clone, Debug)]
pub struct ClientPem {
    pub chain: String,
    pub key: String,
    /// The certificate as the handshake carries it.
    pub der: Vec<u8>,
}

/// Which clients a server accepts.
#[derive(Clone, Copy)]
pub enum Clients<'a> {
    Any,
    /// Only with a certificate of this authority.
    Of(&'a TestCa),
    /// With a certificate of this authority, or without one.
    OfOrNone(&'a TestCa),
}

impl TestCa {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(&[]);
        // Leaves keep the library's default name. With the same name here, a self-signed leaf would look like the root.
        params.distinguished_name.push(DnType::CommonName, "The tests' own authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The root certificate as PEM, as in a CA file.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A valid certificate for these names, which can be IP addresses. For a certificate with a wrong name, pass
    /// another name.
    pub fn leaf(&self, names: &[&str]) -> Identity {
        self.sign(&leaf_params(names))
    }

    /// As [`Self::leaf`], but it expired in 2001.
    pub fn expired_leaf(&self, names: &[&str]) -> Identity {
        let mut params = leaf_params(names);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        self.sign(&params)
    }

    /// The certificate of [`Self::leaf`] and its key, as PEM texts.
    pub fn leaf_pem(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(names).signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A client certificate for mutual TLS.
    pub fn client(&self, name: &str) -> ClientPem {
        let key = KeyPair::generate().expect("a key");
        let mut params = leaf_params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        ClientPem { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// Accepts clients with a certificate of this authority, and clients without one if `may_come_without`.
    fn client_verifier(&self, may_come_without: bool) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("our own PEM")).expect("our own root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if may_come_without { builder.allow_unauthenticated() } else { builder };
        builder.build().expect("a verifier")
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { chain: vec![certificate.der().clone()], key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }
}

impl Identity {
    /// Valid in time and name, but self-signed.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(names).self_signed(&key).expect("a certificate");
        Self { chain: vec![certificate.der().clone()], key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }

    /// A server that offers these protocols, in order of preference.
    pub fn server_config(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        self.server_config_for(Clients::Any, protocols)
    }

    /// As [`Self::server_config`], but only for these clients.
    pub fn server_config_for(&self, clients: Clients<'_>, protocols: &[&str]) -> Arc<ServerConfig> {
        let verifier = match clients {
            Clients::Any => WebPkiClientVerifier::no_client_auth(),
            Clients::Of(ca) => ca.client_verifier(false),
            Clients::OfOrNone(ca) => ca.client_verifier(true),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the default versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("a key that fits its certificate");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).expect("names fit for a certificate")
}

fn leaf_params(names: &[&str]) -> CertificateParams {
    let mut params = params(names);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

#[cfg(test)]
mod tests {
    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::super::receiver::{Receiver, connect};
    use super::super::wait::bounded;
    use super::*;

    fn client_that_trusts(ca: &TestCa) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// Sends one request and reads the whole answer.
    async fn call(client: &TlsConnector, receiver: &Receiver, host: &'static str) -> std::io::Result<String> {
        let name = ServerName::try_from(host).unwrap();
        let mut stream = client.connect(name, connect(receiver.address()).await).await?;
        stream.write_all(b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await?;
        let mut answer = String::new();
        bounded("an answer", stream.read_to_string(&mut answer)).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_good_certificate_is_accepted_and_the_handshake_is_recorded() {
        let ca = TestCa::new();
        let receiver = Receiver::start_tls(&ca.leaf(&["hooks.test", "127.0.0.1"])).await;
        let client = client_that_trusts(&ca);
        for _ in 0..2 {
            assert!(call(&client, &receiver, "hooks.test").await.unwrap().starts_with("HTTP/1.1 200 "));
        }
        call(&client, &receiver, "127.0.0.1").await.unwrap();
        let handshakes: Vec<_> = receiver.wait_for(3).await.into_iter().map(|request| request.tls.unwrap()).collect();
        assert_eq!(handshakes[0].server_name.as_deref(), Some("hooks.test"));
        assert_eq!(handshakes[0].alpn.as_deref(), Some("http/1.1"));
        assert!(!handshakes[0].resumed && handshakes[1].resumed);
        assert_eq!(handshakes[2].server_name, None);
        assert!(receiver.url("/").starts_with("https://127.0.0.1:"));
    }

    #[tokio::test]
    async fn a_bad_certificate_is_refused_by_a_client_that_checks() {
        let ca = TestCa::new();
        for (identity, complaint) in [
            (ca.expired_leaf(&["hooks.test"]), "expired"),
            (ca.leaf(&["another.test"]), "not valid for name"),
            (Identity::self_signed(&["hooks.test"]), "UnknownIssuer"),
            (TestCa::new().leaf(&["hooks.test"]), "BadSignature"),
        ] {
            let receiver = Receiver::start_tls(&identity).await;
            let refusal = call(&client_that_trusts(&ca), &receiver, "hooks.test").await.unwrap_err().to_string();
            assert!(refusal.contains(complaint), "{refusal}");
            receiver.wait_until("a failed handshake", |counts| counts.failed_handshakes == 1).await;
            assert!(receiver.received().is_empty());
        }
    }

    #[tokio::test]
    async fn half_a_handshake_stops_in_the_middle_of_a_record() {
        let receiver = Receiver::start_half_handshake().await;
        let mut stream = connect(receiver.address()).await;
        stream.write_all(&[0x16]).await.unwrap();
        let mut half = [0; 11];
        bounded("the first half", stream.read_exact(&mut half)).await.unwrap();
        assert_eq!(half[0], 0x16);
        assert_eq!(receiver.counts().open_connections, 1);
        drop(stream);
        receiver.wait_until("the hang-up", |counts| counts.open_connections == 0).await;
    }
}
