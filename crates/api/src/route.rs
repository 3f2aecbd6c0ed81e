//! A route as data: what the router needs and what the OpenAPI document says about it, in one value.
//!
//! Each noun lists its routes. The router and the document are both made from those lists, so neither can have a route,
//! a scope or a rate bucket that the other lacks.

use std::sync::Arc;

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use postrider_domain::rate_limit::RateBucket;

use super::access::Access;
use super::app::App;
use super::openapi::operation::Operation;

/// The start of every path, and the end of the document's server URL.
pub const BASE: &str = "/v1";

pub struct Route {
    pub method: Method,
    /// Below [`BASE`], with its parameters in braces.
    pub path: &'static str,
    pub access: Access,
    /// The rate bucket of its requests.
    pub bucket: RateBucket,
    pub handler: MethodRouter<Arc<App>>,
    pub operation: Operation,
}

macro_rules! by_method {
    ($($name:ident: $method:ident),+) => {
        $(pub fn $name<H, T>(path: &'static str, access: Access, handler: H, operation: Operation) -> Self
        where
            H: Handler<T, Arc<App>>,
            T: 'static,
        {
            let (bucket, handler) = (RateBucket::Management, on(MethodFilter::$method, handler));
            Self { method: Method::$method, path, access, bucket, handler, operation }
        })+
    };
}

impl Route {
    by_method!(get: GET, post: POST, patch: PATCH, delete: DELETE);

    /// Counts its requests as publishes.
    pub fn publishing(self) -> Self {
        Self { bucket: RateBucket::Publishing, ..self }
    }

    /// The path as the router knows it.
    pub fn full_path(&self) -> String {
        format!("{BASE}{}", self.path)
    }
}
