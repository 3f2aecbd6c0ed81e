//! A route as data: what the router needs and what the OpenAPI document says of it, in one value.
//!
//! Every route of the API is made here and listed by its noun, and both the router and the document are made from those
//! lists, so neither can have a route that the other lacks.

use std::sync::Arc;

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use super::App;
use super::openapi::Operation;

/// The part of the path that all routes share, and that the document's server URL ends in.
pub const BASE: &str = "/v1";

pub struct Route {
    pub method: Method,
    /// Below [`BASE`], with its parameters in braces.
    pub path: &'static str,
    pub handler: MethodRouter<Arc<App>>,
    pub operation: Operation,
}

macro_rules! by_method {
    ($($name:ident: $method:ident),+) => {
        $(pub fn $name<H, T>(path: &'static str, handler: H, operation: Operation) -> Self
        where
            H: Handler<T, Arc<App>>,
            T: 'static,
        {
            Self { method: Method::$method, path, handler: on(MethodFilter::$method, handler), operation }
        })+
    };
}

impl Route {
    by_method!(get: GET, post: POST, patch: PATCH, delete: DELETE);

    /// The path as the router knows it.
    pub fn full_path(&self) -> String {
        format!("{BASE}{}", self.path)
    }
}
