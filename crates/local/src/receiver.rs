//! A receiver as an integrator would build it: it verifies each webhook, answers, and reports arrivals.
//!
//! It stores nothing. Its inbox accepts only webhooks signed with the given secret. Every other path is open, for
//! endpoints whose secret only their owner knows. Anyone who can reach the port can send to it, so an [`Arrival`]
//! contains only parsed values.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use postrider_crypto::MacKey;
use postrider_domain::event_type::{Catalogue, EventTypeName};
use postrider_domain::id::{DeliveryId, EventId};
use postrider_domain::limits;
use postrider_domain::secret::WebhookSecret;
use postrider_domain::time::{Clock, Timestamp};

use super::verify::{VerifyFault, WEBHOOK_ID, verify};

/// The path on which the receiver verifies signatures.
pub const INBOX_PATH: &str = "/inbox";

/// One received webhook, genuine or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// From `webhook-id`.
    pub event_id: Option<EventId>,
    /// From `<Brand>-Delivery-Id`.
    pub delivery_id: Option<DeliveryId>,
    /// From the body's `type`, if the catalogue knows it.
    pub event_type: Option<EventTypeName>,
    /// From `<Brand>-Delivery-Attempt`.
    pub attempt: Option<u32>,
    pub signature: Signature,
    /// The time at which the body had been read.
    pub at: Timestamp,
    pub body_bytes: usize,
}

/// The result of the signature check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Answered 204.
    Verified,
    /// Answered 401 with the fault.
    Refused(VerifyFault),
    /// Answered 204: it came to another path than the inbox, and the receiver does not know its secret.
    Unchecked,
}

/// A running receiver. Stops when dropped; [`Receiver::stop`] stops it gracefully.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<ReceiverState>,
    arrivals: mpsc::Receiver<Arrival>,
    serving: JoinHandle<io::Result<()>>,
    stop: DropGuard,
}

/// The state that request handlers share.
struct ReceiverState {
    key: watch::Sender<Option<MacKey>>,
    catalogue: Catalogue,
    attempt_header: String,
    delivery_header: String,
    clock: Arc<dyn Clock>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Receiver {
    /// Listens on `address`. Port 0 selects a free port.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(address: SocketAddr, catalogue: &Catalogue, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, arrivals) = mpsc::channel(limits::RECEIVER_ARRIVALS);
        let state = Arc::new(ReceiverState {
            key: watch::Sender::new(None),
            attempt_header: catalogue.brand.header("Delivery-Attempt"),
            delivery_header: catalogue.brand.header("Delivery-Id"),
            catalogue: catalogue.clone(),
            clock,
            arrivals: sender,
        });
        let router = Router::new()
            .fallback(post(receive))
            .layer(DefaultBodyLimit::max(limits::RECEIVER_BODY_BYTES))
            .with_state(Arc::clone(&state));
        let stop = CancellationToken::new();
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serving = tokio::spawn(server.into_future());
        Ok(Self { address, state, arrivals, serving, stop: stop.drop_guard() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL at which webhooks are verified.
    pub fn inbox_url(&self) -> String {
        self.url(INBOX_PATH)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets the only secret that the inbox accepts from now on.
    pub fn set_secret(&self, secret: &WebhookSecret) {
        self.state.key.send_replace(Some(secret.mac_key()));
    }

    /// Waits for the next arrival. Cancel-safe: no arrival is lost when the future is dropped.
    pub async fn next(&mut self) -> Arrival {
        self.arrivals.recv().await.expect("this receiver holds the state, which holds a sender")
    }

    /// The next arrival, if there is one now.
    pub fn try_next(&mut self) -> Option<Arrival> {
        self.arrivals.try_recv().ok()
    }

    /// Closes the port, waits up to a second for running requests, and drops arrivals that were not taken.
    pub async fn stop(self) {
        let Self { arrivals, mut serving, stop, .. } = self;
        drop(arrivals);
        stop.disarm().cancel();
        if tokio::time::timeout(limits::RECEIVER_STOP_WAIT, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

impl ReceiverState {
    fn judge(&self, path: &str, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Signature {
        if path != INBOX_PATH {
            return Signature::Unchecked;
        }
        let key = self.key.borrow().clone();
        match key.ok_or(VerifyFault::NoSecret).and_then(|key| verify(&key, headers, body, now)) {
            Ok(()) => Signature::Verified,
            Err(fault) => Signature::Refused(fault),
        }
    }

    fn event_type(&self, body: &[u8]) -> Option<EventTypeName> {
        #[derive(Deserialize)]
        struct Envelope<'b> {
            #[serde(borrow, rename = "type")]
            event_type: Cow<'b, str>,
        }
        let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
        self.catalogue.find(&envelope.event_type).map(|event| event.name.clone())
    }
}

impl std::fmt::Debug for ReceiverState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiverState").finish_non_exhaustive()
    }
}

async fn receive(State(state): State<Arc<ReceiverState>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let at = state.clock.now();
    let signature = state.judge(uri.path(), &headers, &body, at);
    let arrival = Arrival {
        event_id: parsed(&headers, WEBHOOK_ID),
        delivery_id: parsed(&headers, &state.delivery_header),
        event_type: state.event_type(&body),
        attempt: parsed(&headers, &state.attempt_header),
        signature,
        at,
        body_bytes: body.len(),
    };
    if state.arrivals.send(arrival).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the receiver is stopping").into_response();
    }
    match signature {
        Signature::Verified | Signature::Unchecked => StatusCode::NO_CONTENT.into_response(),
        Signature::Refused(fault) => (StatusCode::UNAUTHORIZED, fault.to_string()).into_response(),
    }
}

fn parsed<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
