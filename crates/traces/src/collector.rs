//! The HTTP client of the exporter: one keep-alive connection to the collector.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use opentelemetry_http::{HttpClient, HttpError};

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_local::client::ServerAddress;

type Sender = SendRequest<Full<Bytes>>;

pub struct Collector {
    address: ServerAddress,
    kept: Mutex<Option<Sender>>,
    /// Why the last request had no answer. The exporter does not pass it on.
    fault: Mutex<Option<String>>,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} seconds", limits::SPAN_EXPORT_TIME.as_secs())]
struct Timeout;

impl Collector {
    pub const fn new(address: ServerAddress) -> Self {
        Self { address, kept: Mutex::new(None), fault: Mutex::new(None) }
    }

    pub fn take_fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = request.map(Full::new);
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        request.headers_mut().insert(HOST, HeaderValue::from_str(self.address.authority())?);
        let (sender, response) = self.send(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, limits::COLLECTOR_ANSWER_BYTES).collect().await?.to_bytes();
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(Response::from_parts(head, body))
    }

    /// Sends over the kept connection, or over a new one if the collector has closed that before it read the request.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Sender, Response<hyper::body::Incoming>), HttpError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut kept) = kept
            && kept.ready().await.is_ok()
        {
            match kept.try_send_request(request).await {
                Ok(response) => return Ok((kept, response)),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failure.into_error().into()),
                },
            }
        }
        let mut fresh = self.address.connect().await?;
        let response = fresh.send_request(request).await?;
        Ok((fresh, response))
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = tokio::time::timeout(limits::SPAN_EXPORT_TIME, self.exchange(request));
        let result = exchange.await.unwrap_or_else(|_| Err(Timeout.into()));
        let fault = result.as_ref().err().map(|error| Chain(error.as_ref()).to_string());
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        result
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collector({})", self.address.authority())
    }
}
