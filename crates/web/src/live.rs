//! `/live`: a stream that says when a page has changed.
//!
//! The script opens it where the page came over HTTP/2, as from a proxy: over HTTP/1.1 a browser has six connections to
//! a host for all of its tabs, and a stream would keep one. It carries no content. The server asks for the page as the
//! browser would, with the same cookie, so the stream tells nothing that the session may not see, and it ends with the
//! session.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Request};
use axum::response::Response;
use axum::{Router, extract::OriginalUri};
use http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use postrider_domain::audit::Actor;
use postrider_domain::limits;
use postrider_service::ServiceError;

use crate::answer::{self, Framing};
use crate::failure::Failure;
use crate::fingerprint::fingerprint;
use crate::visit::Visit;

/// How often a stream looks at its page.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A stream ends that long after its session at the latest.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
const _: () = assert!(LOOK_EVERY.as_secs() + limits::KEY_CACHE_TTL.as_secs() < ENDED_WITHIN.as_secs());
/// Looks after which a stream that has nothing to tell sends an empty line. Proxies close connections that are silent
/// for a minute.
const HEARTBEAT_LOOKS: u32 = 7;
/// The longest life of a stream. A page that is still on screen opens another.
const LIFETIME: Duration = Duration::from_secs(600);

/// Keeps a proxy from holding the lines back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const HELLO: &str = "retry: 5000\n:\n\n";
const CHANGED: &str = "event: changed\ndata: 1\n\n";
const ENDED: &str = "event: ended\ndata: 1\n\n";
const HEARTBEAT: &str = ":\n\n";

/// The pages that a stream can follow.
#[derive(Clone)]
pub struct Pages(pub Router);

/// The streams that are open, and the end of all.
pub struct Streams {
    open: Mutex<HashMap<Actor, usize>>,
    stop: CancellationToken,
}

/// One of the streams. Gives its place back when it is dropped.
struct Permit {
    streams: Arc<Streams>,
    session: Actor,
}

impl Streams {
    /// Streams that end when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), stop })
    }

    fn enter(self: &Arc<Self>, session: Actor) -> Result<Permit, ServiceError> {
        let mut open = self.lock();
        let (all, own) = (open.values().sum::<usize>(), open.get(&session).copied().unwrap_or_default());
        let limit = if own >= limits::LIVE_STREAMS_PER_SESSION {
            limits::LIVE_STREAMS_PER_SESSION
        } else {
            limits::LIVE_STREAMS
        };
        if own >= limits::LIVE_STREAMS_PER_SESSION || all >= limits::LIVE_STREAMS {
            return Err(ServiceError::TooManyStreams { limit });
        }
        open.insert(session, own + 1);
        Ok(Permit { streams: Arc::clone(self), session })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Actor, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        match open.get_mut(&self.session) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.session)),
        }
    }
}

/// Follows the page of the query's `page`, a path as the browser has it.
pub async fn follow(
    visit: Visit,
    Extension(Pages(pages)): Extension<Pages>,
    request: Request,
) -> Result<Response, Failure> {
    let page = visit.query.text("page").and_then(|page| own_page(&visit, page));
    let uri = page.ok_or_else(|| ServiceError::invalid("page", "must be the path of a page of this session"))?;
    let permit = visit.site.streams.enter(visit.principal.actor)?;
    let mut follower = Follower {
        pages,
        uri,
        headers: visit.headers.clone(),
        extensions: request.extensions().clone(),
        stop: visit.site.streams.stop.clone(),
        _permit: permit,
        until: Instant::now() + LIFETIME,
        seen: None,
        quiet: 0,
        has_ended: false,
    };
    follower.headers.remove(IF_NONE_MATCH);
    follower.extensions.remove::<OriginalUri>();
    follower.extensions.remove::<Visit>();
    follower.look().await;
    let hello = async { Ok::<_, Infallible>(Bytes::from_static(HELLO.as_bytes())) };
    let lines = futures_util::stream::unfold(follower, async |follower| follower.next_line().await);
    let lines = futures_util::StreamExt::chain(futures_util::stream::once(hello), lines);
    let mut response = Response::new(Body::from_stream(lines));
    answer::secure(&visit.site, &Framing::default(), response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer::EVENT_STREAM));
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The URI of a page of this session, without the prefix of the public URL.
fn own_page(visit: &Visit, page: &str) -> Option<Uri> {
    let prefix = visit.site.prefix.as_str();
    let below = page.strip_prefix(prefix).filter(|path| path.starts_with('/')).unwrap_or(page);
    let base = visit.base.strip_prefix(prefix).unwrap_or(&visit.base);
    let rest = below.strip_prefix(base)?;
    let is_own = rest.is_empty() || rest.starts_with(['/', '?']);
    let uri: Uri = below.parse().ok()?;
    (is_own && uri.authority().is_none()).then_some(uri)
}

/// What a look at the page has shown.
enum Look {
    Same,
    Changed,
    /// The session has ended.
    Ended,
}

/// One stream.
struct Follower {
    pages: Router,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    stop: CancellationToken,
    _permit: Permit,
    until: Instant,
    /// The fingerprint of the page when it was last looked at.
    seen: Option<String>,
    /// Looks since the last line.
    quiet: u32,
    has_ended: bool,
}

impl Follower {
    /// The next line, and the follower for the lines after it. `None` at the end of the stream.
    async fn next_line(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let line = loop {
            if self.has_ended || Instant::now() >= self.until {
                return None;
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = sleep(LOOK_EVERY) => {}
            }
            self.quiet += 1;
            match self.look().await {
                Look::Changed => break CHANGED,
                Look::Ended => {
                    self.has_ended = true;
                    break ENDED;
                }
                Look::Same if self.quiet >= HEARTBEAT_LOOKS => break HEARTBEAT,
                Look::Same => {}
            }
        };
        self.quiet = 0;
        Some((Ok(Bytes::from_static(line.as_bytes())), self))
    }

    /// Asks for the page. An answer that is no page, such as that of a fault, changes nothing.
    async fn look(&mut self) -> Look {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        let response = self.pages.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::SEE_OTHER => return Look::Ended,
            _ => return Look::Same,
        }
        let Ok(page) = to_bytes(response.into_body(), usize::MAX).await else { return Look::Same };
        let print = fingerprint(&without_times(&String::from_utf8_lossy(&page)).into_bytes());
        let before = self.seen.replace(print);
        if before.is_none() || before == self.seen { Look::Same } else { Look::Changed }
    }
}

/// A page without its instants: how long ago something was changes all the time, and is no news. Texts of others hold
/// no markup, so each tag is ours.
fn without_times(page: &str) -> String {
    let mut parts = page.split("<time");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |kept, part| kept + part.split_once("</time>").map_or(part, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::id::SessionId;

    #[test]
    fn the_passing_of_time_is_no_change() {
        let page = |ago: &str| {
            format!("<p>Seen <time datetime=x title=y>{ago}</time>, made <time>{ago}</time>.</p><p>Text</p>")
        };
        assert_eq!(without_times(&page("3 s ago")), without_times(&page("1 h ago")));
        assert_eq!(without_times(&page("now")), "<p>Seen , made .</p><p>Text</p>");
        assert_eq!(without_times("<p>No instant</p>"), "<p>No instant</p>");
    }

    #[test]
    fn streams_are_bounded_by_session_and_in_all() {
        let streams = Streams::new(CancellationToken::new());
        let session =
            |number: usize| Actor::Session(SessionId::from_letters([b'a' + u8::try_from(number).unwrap(); 16]));
        let refused = |taken: Result<Permit, ServiceError>| match taken {
            Err(ServiceError::TooManyStreams { limit }) => Some(limit),
            _ => None,
        };
        let mut held = Vec::new();
        for number in 0..limits::LIVE_STREAMS / limits::LIVE_STREAMS_PER_SESSION {
            for _ in 0..limits::LIVE_STREAMS_PER_SESSION {
                held.push(streams.enter(session(number)).unwrap());
            }
            assert_eq!(refused(streams.enter(session(number))), Some(limits::LIVE_STREAMS_PER_SESSION));
        }
        assert_eq!(refused(streams.enter(session(20))), Some(limits::LIVE_STREAMS));
        held.pop();
        assert_eq!(refused(streams.enter(session(20))), None);
        drop(held);
        assert!(streams.lock().is_empty(), "a session without streams takes no memory");
    }
}
