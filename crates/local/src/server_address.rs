//! Where a server is: its base URL, and the connection to it.
//!
//! It must not be used for strangers: nothing here checks whether an address is public.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Position, Url};

use super::client::ApiFailure;

/// The text is not a base URL.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a base URL of the form https://host[:port][/path], without /v1, user or query")]
pub struct InvalidBaseUrl(String);

/// Why a CA file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCa {
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    #[error("a certificate in it cannot be read")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("a certificate in it cannot be used")]
    Certificate(#[source] rustls::Error),
}

/// A server by its base URL.
#[derive(Clone)]
pub struct ServerAddress {
    host: String,
    port: u16,
    /// The value of `Host`.
    authority: String,
    /// What comes before `/v1` in a path; empty or `/prefix`.
    prefix: String,
    /// `None`: plain HTTP.
    tls: Option<RootCertStore>,
}

pub type Sender = SendRequest<Full<Bytes>>;

impl ServerAddress {
    /// # Errors
    /// When the text is not `http://host[:port][/path]` or the same with `https`.
    pub fn parse(base_url: &str) -> Result<Self, InvalidBaseUrl> {
        let invalid = || InvalidBaseUrl(base_url.to_owned());
        let url = Url::parse(base_url).map_err(|_| invalid())?;
        let is_bare = url.query().is_none() && url.fragment().is_none();
        let is_user = !url.username().is_empty() || url.password().is_some();
        let prefix = url.path().trim_end_matches('/').to_owned();
        if !matches!(url.scheme(), "http" | "https") || !is_bare || is_user || prefix.ends_with("/v1") {
            return Err(invalid());
        }
        let host = url.host_str().ok_or_else(invalid)?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().ok_or_else(invalid)?;
        let authority = url[Position::BeforeHost..Position::AfterPort].to_owned();
        let public = || RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = (url.scheme() == "https").then(public);
        Ok(Self { host, port, authority, prefix, tls })
    }

    /// Also trusts these certificates.
    ///
    /// # Errors
    /// When the text holds none that can be used.
    pub fn trust(&mut self, pem: &[u8]) -> Result<(), InvalidCa> {
        let mut added = 0;
        let mut own = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            own.add(certificate.map_err(InvalidCa::Pem)?).map_err(InvalidCa::Certificate)?;
            added += 1;
        }
        if added == 0 {
            return Err(InvalidCa::NoCertificate);
        }
        if let Some(roots) = &mut self.tls {
            roots.extend(own.roots);
        }
        Ok(())
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody listens there, or TLS or HTTP cannot be set up.
    pub async fn connect(&self) -> Result<Sender, ApiFailure> {
        let failed = |source| ApiFailure::Connect { address: self.authority.clone(), source };
        #[expect(clippy::disallowed_methods, reason = "our own server, at an address that the user named")]
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(roots) = &self.tls else { return speak(stream).await };
        let untrusted = |source| ApiFailure::Tls { address: self.authority.clone(), source };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| untrusted(io::Error::other(error)))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let settings = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| untrusted(io::Error::other(error)))?
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = TlsConnector::from(Arc::new(settings)).connect(name, stream).await.map_err(untrusted)?;
        speak(stream).await
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender, ApiFailure> {
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| ApiFailure::Broken(error.into()))?;
    tokio::spawn(connection); // ends when the sender is dropped; the request reports its errors
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_scheme_host_port_and_path_alone() {
        for good in [
            "http://127.0.0.1:8080",
            "http://localhost:8080/",
            "http://[::1]:80",
            "https://example.com",
            "https://example.com/postrider",
        ] {
            ServerAddress::parse(good).unwrap();
        }
        let bad = [
            "ftp://a",
            "127.0.0.1:8080",
            "http://a/v1",
            "https://a/b/v1/",
            "http://u@a",
            "http://a?x",
            "http://a#x",
            "",
        ];
        for bad in bad {
            assert!(ServerAddress::parse(bad).is_err(), "{bad}");
        }
        let address = ServerAddress::parse("http://[::1]:8080/").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.authority()), ("::1", 8080, "[::1]:8080"));
        assert_eq!((address.path("/v1/a").as_str(), address.tls.is_none()), ("/v1/a", true));
        let below = ServerAddress::parse("https://a.example/hooks/").unwrap();
        assert_eq!((below.path("/v1/a").as_str(), below.port, below.tls.is_some()), ("/hooks/v1/a", 443, true));
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let mut address = ServerAddress::parse("https://a.example").unwrap();
        assert!(matches!(address.trust(b"hello"), Err(InvalidCa::NoCertificate)));
    }
}
