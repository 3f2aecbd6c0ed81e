//! Passes a leased delivery on to a server on the developer's machine: the same bytes and headers, over HTTP/1.1.
//!
//! The target is one that the user named. A redirect is not followed. Nothing here follows the rules for strangers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use postrider_domain::limits;

/// Where deliveries are passed on to.
#[derive(Clone, Debug)]
pub struct ForwardTarget {
    url: Url,
    is_insecure: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidTarget {
    #[error("{0:?} is neither a port nor a URL of the form http://host[:port][/path]")]
    Form(String),
    #[error("{0} is not this machine: add --allow-external to send deliveries there")]
    External(String),
}

/// What the local server answered.
#[derive(Debug)]
pub struct LocalAnswer {
    pub status: u16,
    /// Of a redirect.
    pub location: Option<String>,
    /// The start of the body.
    pub body: Bytes,
    pub took: Duration,
}

/// Why the local server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardFault {
    /// Nobody listens there. Nothing was sent.
    #[error("cannot connect to {address}")]
    Unreachable { address: String, source: io::Error },
    #[error("cannot set up TLS with {address}")]
    Tls { address: String, source: io::Error },
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the connection broke before the answer was complete")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot build the request")]
    Request(#[source] http::Error),
}

impl ForwardTarget {
    /// A port of this machine, or a URL.
    ///
    /// # Errors
    /// When the text is neither, or names another machine without `allow_external`.
    pub fn parse(text: &str, allow_external: bool, is_insecure: bool) -> Result<Self, InvalidTarget> {
        let form = || InvalidTarget::Form(text.to_owned());
        let url = match text.parse::<u16>() {
            Ok(0) => return Err(form()),
            Ok(port) => format!("http://127.0.0.1:{port}/"),
            // A URL would take a number for an address.
            Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => return Err(form()),
            Err(_) if text.contains("://") => text.to_owned(),
            Err(_) => format!("http://{text}"),
        };
        let url = Url::parse(&url).map_err(|_| form())?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !is_plain || url.host().is_none() {
            return Err(form());
        }
        if !allow_external && !is_this_machine(&url) {
            return Err(InvalidTarget::External(url.host_str().unwrap_or_default().to_owned()));
        }
        Ok(Self { url, is_insecure })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Path and query, as they are sent.
    pub fn path(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or_default(), self.url.port_or_known_default().unwrap_or_default())
    }

    /// Whether somebody listens there.
    pub async fn is_up(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// Sends one delivery. `headers` are those of the lease, `more` those that the user adds.
    ///
    /// # Errors
    /// When there is no answer within `timeout`.
    pub async fn send(
        &self,
        headers: &HeaderMap,
        more: &[(HeaderName, HeaderValue)],
        body: Bytes,
        timeout: Duration,
    ) -> Result<LocalAnswer, ForwardFault> {
        let began = Instant::now();
        let exchange = self.exchange(headers, more, body, began);
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(ForwardFault::Timeout(timeout)))
    }

    async fn exchange(
        &self,
        headers: &HeaderMap,
        more: &[(HeaderName, HeaderValue)],
        body: Bytes,
        began: Instant,
    ) -> Result<LocalAnswer, ForwardFault> {
        let stream = self.connect().await?;
        let mut request = Request::builder().method(Method::POST).uri(self.path().parse::<Uri>().unwrap_or_default());
        if let Some(all) = request.headers_mut() {
            all.extend(headers.iter().filter(|(name, _)| !is_hop_by_hop(name)).map(pair));
            more.iter().for_each(|(name, value)| drop(all.insert(name.clone(), value.clone())));
            let host = HeaderValue::from_str(&self.url[Position::BeforeHost..Position::AfterPort]);
            all.insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
        }
        let request = request.body(Full::new(body)).map_err(ForwardFault::Request)?;
        let mut sender = self.speak(stream).await?;
        let response = sender.send_request(request).await.map_err(|error| ForwardFault::Broken(error.into()))?;
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // The status counts also when the rest of a long body is not read.
        let body = match Limited::new(response.into_body(), limits::LOCAL_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Bytes::new(),
            Err(error) => return Err(ForwardFault::Broken(error)),
        };
        Ok(LocalAnswer { status, location, body, took: began.elapsed() })
    }

    async fn connect(&self) -> Result<TcpStream, ForwardFault> {
        let unreachable = |source| ForwardFault::Unreachable { address: self.address(), source };
        let port = self.url.port_or_known_default().unwrap_or(80);
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        #[expect(clippy::disallowed_methods, reason = "a server of the user's own, at an address that he named")]
        TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)
    }

    async fn speak(&self, stream: TcpStream) -> Result<SendRequest<Full<Bytes>>, ForwardFault> {
        if self.url.scheme() == "http" {
            return begin(stream).await;
        }
        let fault = |source| ForwardFault::Tls { address: self.address(), source };
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| fault(io::Error::other(error)))?;
        let settings = tls_settings(self.is_insecure).map_err(|error| fault(io::Error::other(error)))?;
        begin(TlsConnector::from(Arc::new(settings)).connect(name, stream).await.map_err(fault)?).await
    }
}

fn pair((name, value): (&HeaderName, &HeaderValue)) -> (HeaderName, HeaderValue) {
    (name.clone(), value.clone())
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, ForwardFault> {
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| ForwardFault::Broken(error.into()))?;
    tokio::spawn(connection); // ends when the sender is dropped; the request reports its errors
    Ok(sender)
}

/// Headers of one connection. The request has its own.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    let of_connection = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"];
    of_connection.contains(&name.as_str()) || name.as_str().starts_with("proxy-") || name == "content-length"
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => match address.to_canonical() {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unspecified(),
        },
        None => false,
    }
}

fn tls_settings(is_insecure: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    if is_insecure {
        let any = Arc::new(AnyCertificate(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth());
    }
    let roots = Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
}

/// Takes any certificate: `--insecure`, for the self-signed one of a development server.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_port_or_a_url_of_this_machine() {
        for (text, url) in [
            ("3000", "http://127.0.0.1:3000/"),
            ("localhost:3000/hooks?a=b", "http://localhost:3000/hooks?a=b"),
            ("https://app.localhost/hooks", "https://app.localhost/hooks"),
            ("http://[::1]:80/", "http://[::1]/"),
        ] {
            assert_eq!(ForwardTarget::parse(text, false, false).unwrap().url().as_str(), url);
        }
        for bad in ["", "0", "70000", "ftp://localhost", "http://u@localhost/", "http://localhost/#a"] {
            assert!(matches!(ForwardTarget::parse(bad, true, false), Err(InvalidTarget::Form(_))), "{bad}");
        }
        for other in ["http://example.com/", "10.0.0.1:80", "http://127.0.0.1.example.com/"] {
            assert!(matches!(ForwardTarget::parse(other, false, false), Err(InvalidTarget::External(_))), "{other}");
            ForwardTarget::parse(other, true, false).unwrap();
        }
    }
}
