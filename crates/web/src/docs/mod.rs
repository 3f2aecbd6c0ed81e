//! The public documentation: the API reference, the events and the errors, all rendered from the OpenAPI document.
//!
//! The pages are made once, when the server starts, and never change while it runs. They load nothing from anywhere
//! else and hold no script, so they work without a network beyond this server and under the strictest policy.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{Redirect, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

mod curl;
mod errors;
mod events;
mod layout;
mod prose;
mod reference;
mod schema;

const STYLE: &str = include_str!("docs.css");

/// Everything is forbidden but our own style sheet.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `document` is the server's own OpenAPI document.
pub fn router(document: &Value) -> Router {
    let document = Document(document);
    let page = |html: maud::Markup| {
        let page = Arc::new(html.into_string());
        get(async move || answer("text/html; charset=utf-8", "no-cache", page.as_bytes()))
    };
    Router::new()
        .route("/", get(async || Redirect::temporary("/docs")))
        .route("/docs", page(reference::page(document)))
        .route("/docs/events", page(events::page(document)))
        .route("/docs/errors", page(errors::page(document)))
        // The published page of the API points here.
        .route("/docs/api/v1/idempotency", get(async || Redirect::temporary("/docs#idempotency")))
        .route(&style_path(), get(async || answer("text/css; charset=utf-8", FOR_GOOD, STYLE.as_bytes())))
}

/// What is served under a name made from its content never changes.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

fn answer(content_type: &'static str, cache_control: &'static str, body: &[u8]) -> Response {
    let mut response = Response::new(Body::from(Bytes::copy_from_slice(body)));
    *response.headers_mut() = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static(cache_control)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]);
    response
}

/// The style sheet under a name that changes with it, so that it can be cached for good.
fn style_path() -> String {
    // FNV-1a: it has to tell one release's sheet from another's, not to resist anybody.
    let hash = STYLE
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("/docs/docs-{hash:016x}.css")
}

/// The OpenAPI document, with the few ways in which pages read it.
#[derive(Clone, Copy)]
pub struct Document<'d>(&'d Value);

impl<'d> Document<'d> {
    /// A member of the document, at a JSON pointer.
    fn at(self, pointer: &str) -> &'d Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The value itself, or what its `$ref` refers to.
    fn resolve(self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            Some(pointer) => self.at(pointer),
            None => value,
        }
    }

    /// The operations in order: method, path below the server's URL, operation.
    fn operations(self) -> impl Iterator<Item = (&'d str, &'d str, &'d Value)> {
        members(self.at("/paths"))
            .flat_map(|(path, item)| members(item).map(move |(method, operation)| (method, path, operation)))
    }

    fn server_url(self) -> &'d str {
        text(&self.at("/servers")[0], "url")
    }
}

/// A member that is a string; empty when there is none.
fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
