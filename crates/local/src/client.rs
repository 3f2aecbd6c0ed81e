//! A small client of the API for our own tools: one keep-alive connection, JSON in both directions.
//!
//! It speaks plain HTTP/1.1, because its server is on this machine or in the user's network. It must not follow
//! redirects, and must not repeat a request that the server may have read.

use std::error::Error;
use std::fmt;
use std::io;

use bytes::Bytes;
pub use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use url::{Position, Url};
use zeroize::Zeroizing;

use postrider_domain::limits;
use postrider_domain::secret::ApiKeySecret;

/// A plaintext API key that fits into a header.
#[derive(Clone)]
pub struct BearerKey(Zeroizing<String>);

/// The text does not fit into an `Authorization` header.
#[derive(Debug, thiserror::Error)]
#[error("an API key consists of visible ASCII without spaces")]
pub struct InvalidKey;

/// The text is not a base URL.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a base URL of the form http://host:port")]
pub struct InvalidBaseUrl(String);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ApiFailure {
    /// The API answered with an error.
    #[error("the API answered {status} {code}: {message}")]
    Refused { status: StatusCode, code: String, message: String },
    /// The answer is not JSON, or an error without the error envelope of the API.
    #[error("cannot read the answer {status} as JSON of the API: is this a Postrider server?")]
    Unreadable { status: StatusCode, source: serde_json::Error },
    #[error("cannot connect to {address}")]
    Connect { address: String, source: io::Error },
    /// It is unknown whether the server executed the request.
    #[error("the connection broke before the answer was complete")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// It is unknown whether the server executed the request.
    #[error("no answer within {} seconds", limits::CLIENT_DEADLINE.as_secs())]
    Timeout,
    #[error("cannot encode the request as JSON or HTTP")]
    Request(#[source] Box<dyn Error + Send + Sync>),
}

/// Calls one server with one key, one request at a time over one keep-alive connection.
pub struct Client {
    host: String,
    port: u16,
    /// The value of `Host`.
    authority: String,
    /// `None` for routes that need no key.
    authorization: Option<HeaderValue>,
    connection: Option<Sender>,
}

type Sender = SendRequest<Full<Bytes>>;

impl BearerKey {
    /// # Errors
    /// When the text is empty or contains anything but visible ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(InvalidKey) }
    }

    /// The plaintext, for the header, and for the owner's screen and file.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn header(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", self.reveal()));
        let mut value = HeaderValue::from_str(&text).expect("visible ASCII fits a header");
        value.set_sensitive(true);
        value
    }
}

impl From<&ApiKeySecret> for BearerKey {
    fn from(secret: &ApiKeySecret) -> Self {
        Self(Zeroizing::new(secret.reveal().to_owned()))
    }
}

impl fmt::Debug for BearerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerKey(…)")
    }
}

impl Client {
    /// Does not connect before the first call.
    ///
    /// # Errors
    /// When `base_url` is not `http://host[:port]`.
    pub fn new(base_url: &str, key: &BearerKey) -> Result<Self, InvalidBaseUrl> {
        Ok(Self { authorization: Some(key.header()), ..Self::without_key(base_url)? })
    }

    /// A client for routes that need no key, as [`Client::new`].
    ///
    /// # Errors
    /// When `base_url` is not `http://host[:port]`.
    pub fn without_key(base_url: &str) -> Result<Self, InvalidBaseUrl> {
        let invalid = || InvalidBaseUrl(base_url.to_owned());
        let url = Url::parse(base_url).map_err(|_| invalid())?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !is_bare || !url.username().is_empty() || url.password().is_some() {
            return Err(invalid());
        }
        let host = url.host_str().ok_or_else(invalid)?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().ok_or_else(invalid)?;
        let authority = url[Position::BeforeHost..Position::AfterPort].to_owned();
        Ok(Self { host, port, authority, authorization: None, connection: None })
    }

    /// Returns the body of a 2xx answer; `null` if it is empty.
    ///
    /// # Errors
    /// When the answer is not 2xx, or there is none.
    pub async fn get(&mut self, path: &str) -> Result<Value, ApiFailure> {
        self.call(Method::GET, path, None).await
    }

    /// As [`Client::get`], with a body.
    ///
    /// # Errors
    /// When the answer is not 2xx, or there is none.
    pub async fn post(&mut self, path: &str, body: &impl Serialize) -> Result<Value, ApiFailure> {
        let body = serde_json::to_vec(body).map_err(|error| ApiFailure::Request(error.into()))?;
        self.call(Method::POST, path, Some(body.into())).await
    }

    /// As [`Client::post`].
    ///
    /// # Errors
    /// When the answer is not 2xx, or there is none.
    pub async fn patch(&mut self, path: &str, body: &impl Serialize) -> Result<Value, ApiFailure> {
        let body = serde_json::to_vec(body).map_err(|error| ApiFailure::Request(error.into()))?;
        self.call(Method::PATCH, path, Some(body.into())).await
    }

    /// As [`Client::get`].
    ///
    /// # Errors
    /// When the answer is not 2xx, or there is none.
    pub async fn delete(&mut self, path: &str) -> Result<Value, ApiFailure> {
        self.call(Method::DELETE, path, None).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<Bytes>) -> Result<Value, ApiFailure> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default()));
        let request = request.map_err(|error| ApiFailure::Request(error.into()))?;
        let exchange = async {
            let (sender, response) = self.send(request).await?;
            self.read(sender, response).await
        };
        tokio::time::timeout(limits::CLIENT_DEADLINE, exchange).await.unwrap_or(Err(ApiFailure::Timeout))
    }

    /// Sends over the kept connection. Opens a new one if the server closed the old one before it read the request.
    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<(Sender, Response<Incoming>), ApiFailure> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            match kept.try_send_request(request).await {
                Ok(response) => return Ok((kept, response)),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(ApiFailure::Broken(failure.into_error().into())),
                },
            }
        }
        let mut fresh = self.connect().await?;
        let response = fresh.send_request(request).await.map_err(|error| ApiFailure::Broken(error.into()))?;
        Ok((fresh, response))
    }

    async fn connect(&self) -> Result<Sender, ApiFailure> {
        let failed = |source| ApiFailure::Connect { address: self.authority.clone(), source };
        #[expect(clippy::disallowed_methods, reason = "our own server, at an address that the user named")]
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| ApiFailure::Broken(error.into()))?;
        tokio::spawn(connection); // ends when the sender is dropped; the request reports its errors
        Ok(sender)
    }

    /// Keeps the connection only if the answer was read to its end.
    async fn read(&mut self, sender: Sender, response: Response<Incoming>) -> Result<Value, ApiFailure> {
        let status = response.status();
        let body = Limited::new(response.into_body(), limits::CLIENT_ANSWER_BYTES).collect().await;
        let body = body.map_err(ApiFailure::Broken)?.to_bytes();
        self.connection = Some(sender);
        interpret(status, &body)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.authority)
    }
}

fn interpret(status: StatusCode, body: &[u8]) -> Result<Value, ApiFailure> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Refusal,
    }
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
        message: String,
    }
    let unreadable = |source| ApiFailure::Unreadable { status, source };
    if !status.is_success() {
        let Refusal { code, message } = serde_json::from_slice::<Envelope>(body).map_err(unreadable)?.error;
        return Err(ApiFailure::Refused { status, code, message });
    }
    if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(body).map_err(unreadable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_base_url_is_accepted() {
        let key = BearerKey::parse("k").unwrap();
        for good in ["http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:80", "http://example.com"] {
            Client::new(good, &key).unwrap();
        }
        for bad in ["https://a", "127.0.0.1:8080", "http://a/v1", "http://u@a", "http://a?x", "http://a#x", ""] {
            Client::new(bad, &key).unwrap_err();
        }
        let client = Client::new("http://[::1]:8080/", &key).unwrap();
        assert_eq!((client.host.as_str(), client.port, client.authority.as_str()), ("::1", 8080, "[::1]:8080"));
    }

    #[test]
    fn a_key_fits_a_header_and_is_never_printed() {
        let key = BearerKey::parse("scripe_sk_live_abc").unwrap();
        let client = Client::new("http://127.0.0.1", &key).unwrap();
        let printed = format!("{key:?} {:?} {client:?}", key.header());
        assert!(!printed.contains("sk_live"), "{printed}");
        for bad in ["", "a b", "a\nb", "é"] {
            BearerKey::parse(bad).unwrap_err();
        }
    }

    #[test]
    fn an_answer_is_json_or_the_error_of_the_api() {
        assert_eq!(interpret(StatusCode::OK, br#"{"data":1}"#).unwrap()["data"], 1);
        assert_eq!(interpret(StatusCode::NO_CONTENT, b"").unwrap(), Value::Null);
        let refused = br#"{"error":{"code":"ssrf_blocked","message":"Not public.","request_id":"req_x"}}"#;
        let failure = interpret(StatusCode::UNPROCESSABLE_ENTITY, refused).unwrap_err();
        assert_eq!(failure.to_string(), "the API answered 422 Unprocessable Entity ssrf_blocked: Not public.");
        for (status, body) in [(StatusCode::OK, "<html>"), (StatusCode::BAD_GATEWAY, "{}")] {
            let failure = interpret(status, body.as_bytes()).unwrap_err();
            assert!(matches!(failure, ApiFailure::Unreadable { .. }), "{failure:?}");
        }
    }
}
