//! A client of our API, like a customer's program: it sends a key, headers and JSON, and gets JSON.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::response::Parts;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinSet;

use super::receiver::try_connect;
use super::wait::bounded;

/// The address and the headers of requests. Cheap to clone and change.
#[derive(Clone, Debug)]
pub struct Caller {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// An answer as it arrived.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer that is still arriving. It is given up when this is dropped.
pub struct Opened {
    pub head: Parts,
    body: Incoming,
    _driving: JoinSet<hyper::Result<()>>,
}

impl Opened {
    /// Reads until the text has arrived.
    ///
    /// # Panics
    /// When the answer ends before that.
    pub async fn until(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let chunk = self.chunk().await.unwrap_or_else(|| panic!("no {text:?} in {seen:?}"));
            seen.push_str(&chunk);
        }
    }

    /// The next part. `None` at the end.
    pub async fn chunk(&mut self) -> Option<String> {
        let frame = bounded("more of an answer", self.body.frame()).await?.ok()?;
        frame.into_data().ok().map(|data| String::from_utf8_lossy(&data).into_owned())
    }
}

impl Caller {
    /// A caller that sends no key.
    pub fn stranger(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same caller for another address, as after a restart.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, headers: self.headers.clone() }
    }

    /// Sends this key instead of any other.
    pub fn key(&self, key: &str) -> Self {
        self.with("authorization", &format!("Bearer {key}"))
    }

    /// Also sends this header. Replaces a header of the same name.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut changed = self.without(name);
        changed.headers.push((name.to_owned(), value.to_owned()));
        changed
    }

    pub fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        changed
    }

    pub fn keyed(&self, idempotency_key: &str) -> Self {
        self.with("idempotency-key", idempotency_key)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.post_text(path, &body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PATCH, path, body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, Bytes::new()).await
    }

    /// Posts exactly these bytes, as `application/json` unless a header says otherwise.
    pub async fn post_text(&self, path: &str, body: &str) -> Reply {
        self.send(Method::POST, path, body.to_owned()).await
    }

    /// Sends one request on a new connection.
    ///
    /// # Panics
    /// When there is no answer. Use [`Self::try_send`] for a server that may be dead.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let body = body.into();
        let what = format!("the answer to {method} {path}");
        bounded(&what, self.try_send(method, path, body)).await.expect("an answer")
    }

    /// As [`Self::send`], for a server that may be dead or die meanwhile.
    ///
    /// # Errors
    /// When the connection is refused or ends before the answer does.
    pub async fn try_send(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, Box<dyn Error>> {
        let opened = self.try_open(method, path, body).await?;
        let body = opened.body.collect().await?.to_bytes();
        Ok(Reply { status: opened.head.status.as_u16(), headers: opened.head.headers, body })
    }

    /// Asks for something whose answer has no end, such as a stream.
    pub async fn open(&self, path: &str) -> Opened {
        let what = format!("the head of the answer to {path}");
        bounded(&what, self.try_open(Method::GET, path, Bytes::new())).await.expect("an answer")
    }

    async fn try_open(&self, method: Method, path: &str, body: Bytes) -> Result<Opened, Box<dyn Error>> {
        let has = |header: &str| self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header));
        let mut request = Request::builder().method(&method).uri(path);
        if !has("host") {
            request = request.header(HOST, self.address.to_string());
        }
        if method != Method::GET && !has("content-type") {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).expect("a valid request");
        let stream = TokioIo::new(try_connect(self.address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Opened { head, body, _driving: driving })
    }

    /// The key that is sent, for tests that search for it where it must not be.
    pub fn secret(&self) -> Option<&str> {
        let header = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION.as_str()))?;
        header.1.strip_prefix("Bearer ")
    }
}

impl Reply {
    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {} {:?}", self.status, self.body))
    }

    /// The `data` of a success. Panics with the whole answer when the status differs.
    #[track_caller]
    pub fn data(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()["data"].take()
    }

    /// The `error` of a failure. Panics with the whole answer when the status or the code differs.
    #[track_caller]
    pub fn error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let error = self.json()["error"].take();
        assert_eq!(error["code"], code, "{error}");
        error
    }
}
