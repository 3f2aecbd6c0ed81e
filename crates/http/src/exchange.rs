//! One request and its answer: the request gets its id and its caller, the answer its headers. What the handler left of
//! the body is read and dropped, or the connection ends with the answer.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;

use postrider_domain::limits;

use crate::body::{Pace, RequestBody, Reservation};
use crate::door::Door;
use crate::forwarded::find_caller;
use crate::refusal::Refusal;
use crate::watch::{BodyState, Watch};

/// Answers the requests of one connection, one after the other.
#[derive(Clone)]
pub(crate) struct Exchanges {
    pub(crate) door: Arc<Door>,
    pub(crate) router: TowerToHyperService<Router>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) reservation: Arc<Reservation>,
    pub(crate) peer: IpAddr,
}

impl Exchanges {
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Result<Response<AnswerBody>, axum::Error> {
        let Self { door, router, watch, reservation, peer } = self;
        let has_body = !HttpBody::is_end_stream(request.body());
        watch.begin_exchange(has_body);
        let id = door.new_request_id();
        let waits_to_send = expects_continue(request.headers());
        let declared = declared_length(request.headers());
        let mut response = if target_bytes(request.uri()) > limits::TARGET_BYTES {
            watch.keep_rest(request.into_body());
            (door.render_refusal)(Refusal::UriTooLong, id)
        } else {
            let (mut parts, incoming) = request.into_parts();
            parts.extensions.insert(find_caller(peer, &parts.headers, &door.trusted_proxies));
            parts.extensions.insert(id);
            let body = if has_body {
                let pace = Pace::new(&door.limits, declared.unwrap_or_default(), Instant::now());
                Body::new(RequestBody::new(incoming, pace, Arc::clone(&watch), Arc::clone(&reservation)))
            } else {
                Body::empty()
            };
            let answered = router.call(Request::from_parts(parts, body)).await;
            answered.unwrap_or_else(|never| match never {})
        };
        reservation.release();
        let is_usable = drain_rest(&door, &watch, waits_to_send, declared).await;
        if !is_usable {
            watch.set_must_linger();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        door.complete(&mut response, id);
        Ok(response.map(|body| AnswerBody { body, watch }))
    }
}

/// Reads the rest of the body, if it is short and arrives soon. Returns whether the connection can be used again.
async fn drain_rest(door: &Door, watch: &Watch, waits_to_send: bool, declared: Option<u64>) -> bool {
    // hyper stops reading once this is dropped.
    let rest = watch.take_rest();
    match watch.body() {
        BodyState::Ended => return true,
        BodyState::Failed => return false,
        BodyState::Untouched if waits_to_send => return false,
        BodyState::Untouched if declared.is_some_and(|bytes| bytes > limits::DRAIN_BYTES) => return false,
        BodyState::Untouched | BodyState::Begun => {}
    }
    let Some(mut rest) = rest else { return false };
    let drain = async {
        let mut left = limits::DRAIN_BYTES;
        while let Some(frame) = rest.frame().await {
            let bytes = frame.map_or(u64::MAX, |frame| frame.data_ref().map_or(0, |data| data.len() as u64));
            match left.checked_sub(bytes) {
                Some(fewer) => left = fewer,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(door.limits.drain_time, drain).await.unwrap_or(false)
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn target_bytes(uri: &Uri) -> usize {
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    authority + uri.path_and_query().map_or(0, |target| target.as_str().len())
}

/// An answer's body. Tells the watch when hyper has taken all of it.
pub(crate) struct AnswerBody {
    body: Body,
    watch: Arc<Watch>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.watch.end_answer();
    }
}
