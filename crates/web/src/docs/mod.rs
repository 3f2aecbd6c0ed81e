//! The public documentation: the API reference, the events and the errors, all rendered from the OpenAPI document.
//!
//! The pages are rendered once, when the server starts. They hold no script and load nothing from other hosts, so they
//! work offline and under the strictest content security policy.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{Redirect, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

mod badge;
mod curl;
mod document;
mod errors;
mod events;
mod layout;
mod prose;
mod reference;
mod schema;
mod style;

use postrider_domain::visible::VisibleLines;

use document::Document;
use style::{STYLE, style_path};

/// Forbids everything except our own style sheet.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages of this OpenAPI document.
pub fn router(document: &Value) -> Router {
    let document = Document(document);
    let page = |html: maud::Markup| {
        // An event's description is a text of the operator's file: it may not turn the direction of the page. A request
        // shares the bytes: a copy for each would let readers that are slow fill the memory.
        let page = Bytes::from(VisibleLines(html.into_string()).to_string());
        get(async move || answer("text/html; charset=utf-8", "no-cache", page.clone()))
    };
    Router::new()
        .route("/", get(async || Redirect::temporary("/docs")))
        .route("/docs", page(reference::page(document)))
        .route("/docs/events", page(events::page(document)))
        .route("/docs/errors", page(errors::page(document)))
        // The published API page links here.
        .route("/docs/api/v1/idempotency", get(async || Redirect::temporary("/docs#idempotency")))
        .route(
            &style_path(),
            get(async || answer("text/css; charset=utf-8", IMMUTABLE, Bytes::from_static(STYLE.as_bytes()))),
        )
}

/// For a path that is made from its content, which therefore never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

fn answer(content_type: &'static str, cache_control: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.headers_mut() = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static(cache_control)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]);
    response
}
