//! A small client of the API for our own tools: one keep-alive connection, JSON in both directions.
//!
//! It speaks HTTP/1.1, with TLS if the URL says so. It must not follow redirects, and must not repeat a request that
//! the server may have read; a caller may, if the request carries an idempotency key.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Request, Response};
pub use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use postrider_domain::limits;
use postrider_domain::secret::ApiKeySecret;

use super::server_address::Sender;
pub use super::server_address::{InvalidBaseUrl, InvalidCa, ServerAddress};

/// A plaintext API key that fits into a header.
#[derive(Clone)]
pub struct BearerKey(Zeroizing<String>);

/// The text does not fit into an `Authorization` header.
#[derive(Debug, thiserror::Error)]
#[error("an API key consists of visible ASCII without spaces")]
pub struct InvalidKey;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ApiFailure {
    /// The API answered with an error.
    #[error("the API answered {status} {code}: {message}")]
    Refused {
        status: StatusCode,
        code: String,
        message: String,
        /// `null` when the error has none.
        details: Box<Value>,
        /// What the server logs of this request.
        request_id: Option<String>,
        /// When to ask again, if the server said so.
        retry_after: Option<Duration>,
    },
    /// The answer is not JSON, or an error without the error envelope of the API.
    #[error("cannot read the answer {status} as JSON of the API: is this a Postrider server?")]
    Unreadable { status: StatusCode, source: serde_json::Error },
    #[error("cannot connect to {address}")]
    Connect { address: String, source: io::Error },
    #[error("cannot set up TLS with {address}")]
    Tls { address: String, source: io::Error },
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
    address: ServerAddress,
    /// `None` for routes that need no key.
    authorization: Option<HeaderValue>,
    connection: Option<Sender>,
}

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
    /// When `base_url` is not a base URL.
    pub fn new(base_url: &str, key: &BearerKey) -> Result<Self, InvalidBaseUrl> {
        Ok(Self { authorization: Some(key.header()), ..Self::without_key(base_url)? })
    }

    /// A client for routes that need no key, as [`Client::new`].
    ///
    /// # Errors
    /// When `base_url` is not a base URL.
    pub fn without_key(base_url: &str) -> Result<Self, InvalidBaseUrl> {
        Ok(Self { address: ServerAddress::parse(base_url)?, authorization: None, connection: None })
    }

    /// Calls the server of a base URL that is parsed already.
    pub fn at(address: ServerAddress, key: &BearerKey) -> Self {
        Self { address, authorization: Some(key.header()), connection: None }
    }

    /// Another connection to the same server, with the same key.
    pub fn another(&self) -> Self {
        Self { address: self.address.clone(), authorization: self.authorization.clone(), connection: None }
    }

    /// Host and port of the server.
    pub fn authority(&self) -> &str {
        self.address.authority()
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
        let (status, body) = self.exchange(method, path, body, None).await?;
        parse(status, &body)
    }

    /// As [`Client::get`], with every token of the answer as the server wrote it.
    ///
    /// # Errors
    /// When the answer is not 2xx, or there is none.
    pub async fn get_raw(&mut self, path: &str) -> Result<Box<RawValue>, ApiFailure> {
        let (status, body) = self.exchange(Method::GET, path, None, None).await?;
        parse(status, &body)
    }

    /// A write with an idempotency key: sent twice, it is done once. Returns the answer as [`Client::get_raw`].
    ///
    /// # Errors
    /// When the answer is not 2xx, or there is none.
    pub async fn write(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        idempotency_key: &str,
    ) -> Result<Box<RawValue>, ApiFailure> {
        let body = body.map(|body| body.to_string().into());
        let (status, body) = self.exchange(method, path, body, Some(idempotency_key)).await?;
        parse(status, &body)
    }

    /// As [`Client::write`], with a body that is written already.
    ///
    /// # Errors
    /// When the answer is not 2xx, or there is none.
    pub async fn post_raw(
        &mut self,
        path: &str,
        body: &RawValue,
        idempotency_key: &str,
    ) -> Result<Box<RawValue>, ApiFailure> {
        let body = Bytes::copy_from_slice(body.get().as_bytes());
        let (status, body) = self.exchange(Method::POST, path, Some(body), Some(idempotency_key)).await?;
        parse(status, &body)
    }

    /// Returns the body of a 2xx answer.
    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Result<(StatusCode, Bytes), ApiFailure> {
        let path = self.address.path(path);
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.address.authority());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
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
        let mut fresh = self.address.connect().await?;
        let response = fresh.send_request(request).await.map_err(|error| ApiFailure::Broken(error.into()))?;
        Ok((fresh, response))
    }

    /// Keeps the connection only if the answer was read to its end.
    async fn read(&mut self, sender: Sender, response: Response<Incoming>) -> Result<(StatusCode, Bytes), ApiFailure> {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), limits::CLIENT_ANSWER_BYTES).collect().await;
        let body = body.map_err(ApiFailure::Broken)?.to_bytes();
        self.connection = Some(sender);
        if status.is_success() { Ok((status, body)) } else { Err(refusal(status, retry_after, &body)) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.authority())
    }
}

/// The value of a 2xx answer; `null` if it is empty.
fn parse<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ApiFailure> {
    let body = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body).map_err(|source| ApiFailure::Unreadable { status, source })
}

/// The failure of an answer that is not 2xx.
fn refusal(status: StatusCode, retry_after_seconds: Option<u64>, body: &[u8]) -> ApiFailure {
    #[derive(Deserialize)]
    struct Envelope {
        error: Refusal,
    }
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
        message: String,
        request_id: Option<String>,
        #[serde(default)]
        details: Box<Value>,
    }
    match serde_json::from_slice::<Envelope>(body) {
        Err(source) => ApiFailure::Unreadable { status, source },
        Ok(Envelope { error: Refusal { code, message, request_id, details } }) => {
            let retry_after = retry_after_seconds.map(Duration::from_secs);
            ApiFailure::Refused { status, code, message, details, request_id, retry_after }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(parse::<Value>(StatusCode::OK, br#"{"data":1}"#).unwrap()["data"], 1);
        assert_eq!(parse::<Value>(StatusCode::NO_CONTENT, b"").unwrap(), Value::Null);
        let refused = br#"{"error":{"code":"ssrf_blocked","message":"Not public.","request_id":"req_x"}}"#;
        let failure = refusal(StatusCode::UNPROCESSABLE_ENTITY, Some(2), refused);
        assert_eq!(failure.to_string(), "the API answered 422 Unprocessable Entity ssrf_blocked: Not public.");
        let ApiFailure::Refused { request_id, retry_after, details, .. } = failure else { panic!("{failure:?}") };
        assert_eq!((request_id.as_deref(), retry_after), (Some("req_x"), Some(Duration::from_secs(2))));
        assert!(details.is_null());
        assert!(matches!(parse::<Value>(StatusCode::OK, b"<html>"), Err(ApiFailure::Unreadable { .. })));
        assert!(matches!(refusal(StatusCode::BAD_GATEWAY, None, b"{}"), ApiFailure::Unreadable { .. }));
    }
}
