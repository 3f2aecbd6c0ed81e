//! Answers of the pages: HTML with its security headers, redirects after a POST, and 304 for a page that is unchanged.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use maud::Markup;

use postrider_domain::visible::VisibleLines;

use crate::fingerprint::fingerprint;
use crate::site::Site;

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Who may show the page in a frame, and what it may frame itself.
#[derive(Clone, Debug, Default)]
pub struct Framing {
    /// Origins, separated by a space. Empty: nobody.
    pub ancestors: String,
    /// Whether the page shows another page of this server in a frame.
    pub frames_own: bool,
}

/// A page. It is never stored: it shows what only its visitor may see.
pub fn page(site: &Site, status: StatusCode, framing: &Framing, html: Markup) -> Response {
    // Names and texts of others may not turn the direction of the page.
    let html = Bytes::from(VisibleLines(html.into_string()).to_string());
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    secure(site, framing, headers);
    response
}

/// Sets the headers of every answer but assets.
pub fn secure(site: &Site, framing: &Framing, headers: &mut HeaderMap) {
    let ancestors = if framing.ancestors.is_empty() { "'none'" } else { framing.ancestors.as_str() };
    let frames = if framing.frames_own { " frame-src 'self';" } else { "" };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none';{frames} frame-ancestors {ancestors}"
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // `no-referrer` would make `Origin` null on our own forms.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    // A page in a frame has no opener to cut off.
    if framing.ancestors.is_empty() && site.may_be_trustworthy() {
        headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
    }
}

/// Takes from an answer the header that browsers ignore on an address that they do not trust, with a complaint on the
/// console.
pub async fn fit_to_address(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let is_trustworthy = site.is_trustworthy(request.headers());
    let mut response = next.run(request).await;
    if !is_trustworthy {
        response.headers_mut().remove(&CROSS_ORIGIN_OPENER_POLICY);
    }
    response
}

/// Leads to a page after a POST, so that the back button and a reload repeat nothing.
pub fn see_other(site: &Site, location: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    secure(site, &Framing::default(), response.headers_mut());
    // Locations are made of ids and encoded queries.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Bytes of others as a file: never a page, whatever they hold. `name` is the file's name, of letters and digits.
pub fn bytes(site: &Site, name: &str, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    secure(site, &Framing::default(), headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'"),
    );
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    response
}

/// The type of a stream of events, which has no end to wait for.
pub const EVENT_STREAM: &str = "text/event-stream";

/// Gives a page its tag, and answers 304 without a body when the visitor has it already. Refreshing a page that has not
/// changed then costs no transfer.
pub async fn with_etag(asked: &HeaderMap, response: Response) -> Response {
    let is_stream = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == EVENT_STREAM);
    if response.status() != StatusCode::OK || is_stream {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The body is a page that was rendered into memory: reading it cannot fail.
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let tag = format!("\"{}\"", fingerprint(&bytes));
    let is_known = asked.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(ETAG, tag);
    }
    if is_known {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(CONTENT_TYPE);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}
