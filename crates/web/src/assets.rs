//! The style sheet and the scripts of the pages.
//!
//! Their paths hold a hash of their content, so browsers keep them for ever. A page that an upgrade left open asks for
//! an old path and gets 404; the script then offers to load the page again.

use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::fingerprint::fingerprint;

/// A file that pages load.
pub struct Asset {
    name: String,
    content_type: &'static str,
    content: &'static str,
}

pub static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("pages", "css", "text/css; charset=utf-8", include_str!("assets/pages.css")));
pub static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("pages", "js", "text/javascript; charset=utf-8", include_str!("assets/pages.js")));
/// The portal's part of the conversation with the page around its frame.
pub static PORTAL_SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("portal", "js", "text/javascript; charset=utf-8", include_str!("assets/portal.js")));

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, content: &'static str) -> Self {
        Self { name: format!("{stem}-{}.{extension}", fingerprint(content.as_bytes())), content_type, content }
    }

    /// The path below the prefix of the public URL.
    pub fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

/// Answers with the asset of this name, or with 404.
pub async fn serve(axum::extract::Path(name): axum::extract::Path<String>) -> Response {
    let found = [&*STYLE, &*SCRIPT, &*PORTAL_SCRIPT].into_iter().find(|asset| asset.name == name);
    let mut response =
        Response::new(Body::from(found.map_or(Bytes::new(), |it| Bytes::from_static(it.content.as_bytes()))));
    let nosniff = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    match found {
        Some(asset) => {
            *response.headers_mut() = HeaderMap::from_iter([
                (CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
                (CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
                nosniff,
            ]);
        }
        None => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.headers_mut() =
                HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-store")), nosniff]);
        }
    }
    response
}
