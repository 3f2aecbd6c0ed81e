//! A receiver as an integrator would build it: it verifies each webhook, answers, and tells what arrived.
//!
//! It listens where it is told and keeps nothing. Its inbox believes only what is signed with the secret that
//! it was given; every other path is open, for endpoints whose secret only their owner knows. What it reads comes from
//! anyone who can reach the port, so an [`Arrival`] holds nothing that has not been parsed.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
use postrider_domain::secret::WebhookSecret;
use postrider_domain::time::{Clock, Timestamp};

use super::verify::{VerifyFault, WEBHOOK_ID, verify};

/// Where the receiver verifies.
pub const INBOX_PATH: &str = "/inbox";

/// The largest body that is read: four times the largest event, so that nothing of ours is ever refused for its size.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Arrivals that nobody has looked at yet; beyond it an answer waits for room, and so the sender slows down.
const ARRIVALS_WAITING: usize = 1024;
/// How long a stop waits for requests that have begun.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// One webhook that came in, believed or not.
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
    /// When the body had been read.
    pub at: Timestamp,
    pub body_bytes: usize,
}

/// What the receiver made of a webhook's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Answered 204.
    Verified,
    /// Answered 401 with the fault.
    Refused(VerifyFault),
    /// Answered 204: it came to another path than the inbox, and its secret is not known here.
    Unchecked,
}

/// A running receiver. Stops when dropped, or in good order by [`Receiver::stop`].
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<ReceiverState>,
    arrivals: mpsc::Receiver<Arrival>,
    serving: JoinHandle<io::Result<()>>,
    stop: DropGuard,
}

/// What every request needs.
struct ReceiverState {
    key: watch::Sender<Option<MacKey>>,
    catalogue: Catalogue,
    attempt_header: String,
    delivery_header: String,
    clock: Arc<dyn Clock>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Receiver {
    /// Begins to listen on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(address: SocketAddr, catalogue: &Catalogue, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS_WAITING);
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
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(Arc::clone(&state));
        let stop = CancellationToken::new();
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serving = tokio::spawn(server.into_future());
        Ok(Self { address, state, arrivals, serving, stop: stop.drop_guard() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where webhooks are verified.
    pub fn inbox_url(&self) -> String {
        self.url(INBOX_PATH)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on the inbox believes what is signed with this secret, and nothing else.
    pub fn set_secret(&self, secret: &WebhookSecret) {
        self.state.key.send_replace(Some(secret.mac_key()));
    }

    /// Waits for the next arrival. Loses none when it is dropped while waiting.
    pub async fn next(&mut self) -> Arrival {
        self.arrivals.recv().await.expect("the state, which this receiver holds, has a sender")
    }

    /// The next arrival, if there is one already.
    pub fn try_next(&mut self) -> Option<Arrival> {
        self.arrivals.try_recv().ok()
    }

    /// Closes the port, lets requests that have begun end, at most for a second, and forgets arrivals not yet taken.
    pub async fn stop(self) {
        let Self { arrivals, mut serving, stop, .. } = self;
        drop(arrivals);
        stop.disarm().cancel();
        if tokio::time::timeout(STOP_WAIT, &mut serving).await.is_err() {
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
