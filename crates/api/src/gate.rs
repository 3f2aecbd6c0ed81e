//! The gates that a request passes before its handler runs, in this order: key, rate limit, API version, scope. After
//! them the handler reads the body and begins the write. The listener has given the request its id.
//!
//! Two layers hold them. [`finish`] is the outermost and covers every request, unknown paths included. [`admit`] covers
//! one route and enforces what that [`Route`](super::route::Route) states, so no handler can forget it.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, StatusCode};

use postrider_domain::caller::CallerAddress;
use postrider_domain::event::API_VERSION;
use postrider_domain::id::RequestId;
use postrider_domain::rate_limit::{Rate, RateBucket};
use postrider_domain::visible::is_unprintable;
use postrider_http::Refusal;
use postrider_metrics::DeduplicatedBy;
use postrider_service::{Origin, ServiceError};

use super::access::Access;
use super::app::App;
use super::error::{self, Failure};
use super::error_code::ErrorCode;
use super::query::UNPRINTABLE;
use super::rate_limit::CountedRate;
use super::write::AnsweredBefore;

/// What [`admit`] enforces for one route.
#[derive(Clone)]
pub struct RouteGate {
    pub app: Arc<App>,
    /// Method and path pattern, for the audit log.
    pub route: Arc<str>,
    pub access: Access,
    pub bucket: RateBucket,
}

/// As [`admit`]. Counts the requests to publish that are refused or were answered before.
///
/// # Errors
/// As [`admit`].
pub async fn admit_and_count(state: State<RouteGate>, request: Request, next: Next) -> Result<Response, Failure> {
    let (app, is_publish) = (Arc::clone(&state.app), state.bucket == RateBucket::Publishing);
    let answered = admit(state, request, next).await;
    if is_publish {
        let metrics = app.service.metrics();
        if let Some(code) = refusal_of(&answered) {
            metrics.refused.increment(code as usize);
        }
        if answered.as_ref().is_ok_and(|response| response.extensions().get::<AnsweredBefore>().is_some()) {
            metrics.deduplicated.increment(DeduplicatedBy::IdempotencyKey);
        }
    }
    answered
}

/// The code with which a request is refused now. `None` for a refusal that is repeated.
fn refusal_of(answered: &Result<Response, Failure>) -> Option<ErrorCode> {
    let of_response = |response: &Response| {
        let extensions = response.extensions();
        let refused = extensions.get::<Arc<ServiceError>>().map(|error| error::code_of(error));
        refused.or_else(|| extensions.get::<ErrorCode>().copied())
    };
    match answered {
        Ok(response) => of_response(response),
        Err(Failure::Answered(response)) => of_response(response),
        Err(Failure::Refused(error)) => Some(error::code_of(error)),
    }
}

/// Admits a request to its handler, with its [`Principal`](postrider_domain::access::Principal) in the extensions.
///
/// # Errors
/// Without a valid key, above the rate limit, with another API version, or without the scope.
async fn admit(State(gate): State<RouteGate>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let RouteGate { app, route, access, bucket } = gate;
    if access == Access::Public {
        return Ok(next.run(request).await);
    }
    let (extensions, counted) = (request.extensions(), request.extensions().get::<CountedRate>());
    let address = extensions.get::<CallerAddress>().copied();
    let origin = Origin { request_id: extensions.get().copied(), address, route: &route };
    let authenticated = app.service.authenticate(bearer(request.headers()), origin).await;
    if let (Err(ServiceError::TooManyRefusedKeys { limit, retry_after }), Some(counted)) = (&authenticated, counted) {
        counted.set(Rate { limit: *limit, remaining: 0, reset: *retry_after });
    }
    let principal = authenticated?;
    if let Some(outcome) = app.service.count_request(&principal, bucket).await {
        let (Ok(rate) | Err(rate)) = outcome;
        if let Some(counted) = counted {
            counted.set(rate);
        }
        if outcome.is_err() {
            return Err(ServiceError::RateLimited { bucket, limit: rate.limit, retry_after: rate.reset }.into());
        }
    }
    check_version(&app, request.headers())?;
    if let Err(missing) = access.check(&principal) {
        app.service.note_scope_missing(&principal, &route);
        return Err(missing.into());
    }
    check_path(request.uri().path())?;
    request.extensions_mut().insert(principal.clone());
    let response = next.run(request).await;
    // The handler refuses a key that would grant a scope that it lacks.
    if response.status() == StatusCode::FORBIDDEN {
        app.service.note_scope_missing(&principal, &route);
    }
    Ok(response)
}

/// Gives the answer the headers that every answer of the API carries. Renders the error if there is one. The listener
/// has given the request its id.
pub async fn finish(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    mut request: Request,
    next: Next,
) -> Response {
    let counted = CountedRate::default();
    request.extensions_mut().insert(counted.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<Arc<ServiceError>>() {
        error::log(&error, id, &method, &path);
        let allow = response.headers_mut().remove(ALLOW);
        response = error::render(&error, id, &app.errors_page);
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
    }
    counted.write_headers(response.headers_mut());
    complete(&app, response.headers_mut());
    tracing::debug!(request_id = %id, %method, path, status = response.status().as_u16(), "request answered");
    response
}

/// Renders a request that the listener refuses before it has a route.
pub fn refuse(app: &App, refusal: Refusal, id: RequestId) -> Response {
    let error = match refusal {
        Refusal::HeaderTooLarge => ServiceError::HeaderTooLarge,
        Refusal::UriTooLong => ServiceError::UriTooLong,
        Refusal::HeadTooSlow => ServiceError::RequestTimeout("head"),
        Refusal::MalformedHead => ServiceError::invalid("head", "is not valid HTTP/1.1"),
        Refusal::Http2 => ServiceError::invalid("head", "is HTTP/2, but this server speaks HTTP/1.1"),
    };
    tracing::debug!(request_id = %id, code = error::code_of(&error).as_str(), "request refused by the listener");
    let mut response = error::render(&error, id, &app.errors_page);
    complete(app, response.headers_mut());
    response
}

/// Sets the headers that every answer of the API carries.
fn complete(app: &App, headers: &mut HeaderMap) {
    headers.insert(app.version_header.clone(), HeaderValue::from_static(API_VERSION));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// An id has none of these characters, so the path names nothing; it is refused as a filter with them is.
fn check_path(path: &str) -> Result<(), ServiceError> {
    // Decodes percent signs; the characters `&`, `=` and `+`, which it treats as in a form, are printable anyway.
    let mut texts = url::form_urlencoded::parse(path.as_bytes()).flat_map(|(name, value)| [name, value]);
    let is_refused = texts.any(|text| text.chars().any(is_unprintable));
    if is_refused { Err(ServiceError::invalid("path", UNPRINTABLE)) } else { Ok(()) }
}

fn check_version(app: &App, headers: &HeaderMap) -> Result<(), ServiceError> {
    match headers.get(&app.version_header) {
        None => Ok(()),
        Some(version) if version.as_bytes() == API_VERSION.as_bytes() => Ok(()),
        Some(_) => Err(ServiceError::VersionUnsupported),
    }
}
