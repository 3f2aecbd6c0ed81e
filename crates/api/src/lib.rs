//! JSON over HTTP: translates between the wire and `service`, and decides nothing.
//!
//! Each request passes the same gates in the same order: request id, key, rate limit, API version, scope, body, idempotency. A
//! file per noun holds its routes, the form of its bodies and the form of its answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::RequestId;
use postrider_service::{Service, ServiceError};

mod answer;
mod api_key;
mod audit;
mod body;
mod call;
mod delivery;
mod endpoint;
mod endpoint_options;
mod error;
mod error_code;
mod event;
mod event_type;
mod health;
mod openapi;
mod query;
mod rate_limit;
mod replay;
mod route;
mod workspace;
mod write;

use answer::answer;
use error::Failure;
use route::Route;

/// What the handlers share.
pub struct App {
    service: Arc<Service>,
    /// The page on which each error code has its anchor.
    errors_page: String,
    document: Value,
    version_header: HeaderName,
}

impl App {
    /// `public_url` is where callers reach this server, without a slash at the end.
    pub fn new(service: Arc<Service>, public_url: &str) -> Arc<Self> {
        let version_header = service.catalogue().brand.header("Api-Version").to_ascii_lowercase();
        // A brand holds letters and digits only, so its headers are always valid names.
        let version_header =
            HeaderName::from_bytes(version_header.as_bytes()).unwrap_or(HeaderName::from_static("api-version"));
        let document = document(service.catalogue(), Some(public_url));
        Arc::new(Self { service, errors_page: errors_page(public_url), document, version_header })
    }

    /// The OpenAPI document of this server.
    pub const fn document(&self) -> &Value {
        &self.document
    }
}

/// The OpenAPI document of a catalogue. Without a public URL its server is told relative to where the document is found.
pub fn document(catalogue: &Catalogue, public_url: Option<&str>) -> Value {
    openapi::document(catalogue, &routes(catalogue), public_url)
}

fn errors_page(public_url: &str) -> String {
    format!("{public_url}/docs/errors")
}

/// Every route of the API, in the order in which they are shown.
fn routes(catalogue: &Catalogue) -> Vec<Route> {
    let nouns: [fn(&Catalogue) -> Vec<Route>; 9] = [
        endpoint::routes,
        event::routes,
        event_type::routes,
        delivery::routes,
        replay::routes,
        workspace::routes,
        api_key::routes,
        audit::routes,
        health::routes,
    ];
    nouns.iter().flat_map(|routes| routes(catalogue)).collect()
}

/// The API, and the document that describes it.
pub fn router(app: Arc<App>) -> Router {
    let document = Bytes::from(app.document.to_string());
    let mut router = Router::new().route("/openapi.json", get(async move || answer(200, document.clone())));
    for route in routes(app.service.catalogue()) {
        router = router.route(&route.full_path(), route.handler);
    }
    router
        .fallback(async || Failure::Refused(ServiceError::NotFound))
        .method_not_allowed_fallback(async || Failure::Refused(ServiceError::MethodNotAllowed))
        .layer(from_fn_with_state(Arc::clone(&app), finish))
        .with_state(app)
}

/// The outermost gate: gives the request its id, and every answer the headers that all of them carry.
async fn finish(
    axum::extract::State(app): axum::extract::State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::from_letters(app.service.random().alphanumeric());
    request.extensions_mut().insert(id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let counted = rate_limit::mark(&app.service, &mut request);
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<Arc<ServiceError>>() {
        error::log(&error, id, &method, &path);
        let allow = response.headers_mut().remove(http::header::ALLOW);
        response = error::render(&error, id, &app.errors_page);
        if let Some(allow) = allow {
            response.headers_mut().insert(http::header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    headers.insert(app.version_header.clone(), HeaderValue::from_static(API_VERSION));
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    rate_limit::tell(counted.as_ref(), headers);
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    tracing::debug!(request_id = %id, %method, path, status = response.status().as_u16(), "request answered");
    response
}
