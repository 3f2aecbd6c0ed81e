//! JSON over HTTP: translates between the wire and `service`, and decides nothing.
//!
//! A file per noun holds its routes, the form of its bodies and the form of its answers. The gates that every request
//! passes first are in `gate.rs`, the steps of a write in `write.rs`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use serde_json::Value;

use postrider_domain::event_type::Catalogue;
use postrider_http::RenderRefusal;
use postrider_service::{Service, ServiceError};

mod access;
mod actor;
mod answer;
mod api_key;
mod app;
mod audit;
mod body;
mod call;
mod delivery;
mod endpoint;
mod endpoint_options;
mod erasure;
mod error;
mod error_code;
mod event;
mod event_type;
mod gate;
mod listener;
mod node;
mod openapi;
mod parked_message;
mod portal_session;
mod query;
mod rate_limit;
mod readiness;
mod replay;
mod route;
mod source;
mod stats;
mod whole_seconds;
mod workspace;
mod write;

use answer::answer;
use app::App;
use error::Failure;
use error_code::ErrorCode;
use gate::RouteGate;
use route::Route;

/// The API, and at `/openapi.json` the document that describes it, made by [`document`]. Also how the listener refuses
/// a request that does not reach the router. The router needs the id that the listener gives each request.
///
/// `public_url` is where callers reach this server, without a slash at the end.
pub fn router(service: Arc<Service>, public_url: &str, document: &Value) -> (Router, RenderRefusal) {
    let document = Bytes::from(document.to_string());
    let mut router = Router::new().route("/openapi.json", get(async move || answer(200, document.clone())));
    let app = App::new(service, public_url);
    let refusing = Arc::clone(&app);
    for route in routes(app.service.catalogue()) {
        let path = route.full_path();
        let named = format!("{} {path}", route.method).into();
        let gate = RouteGate { app: Arc::clone(&app), route: named, access: route.access, bucket: route.bucket };
        router = router.route(&path, route.handler.route_layer(from_fn_with_state(gate, gate::admit_and_count)));
    }
    let router = router
        .fallback(async || Failure::Refused(ServiceError::NotFound))
        .method_not_allowed_fallback(async || Failure::Refused(ServiceError::MethodNotAllowed))
        .layer(from_fn_with_state(Arc::clone(&app), gate::finish))
        .with_state(app);
    (router, Arc::new(move |refusal, id| gate::refuse(&refusing, refusal, id)))
}

/// The OpenAPI document of a catalogue. Without a public URL, its server URL is relative to the document.
pub fn document(catalogue: &Catalogue, public_url: Option<&str>) -> Value {
    openapi::document(catalogue, &routes(catalogue), public_url)
}

/// The codes with which a request can be refused, in the order in which the metrics count them.
pub fn refusal_codes() -> Vec<&'static str> {
    ErrorCode::ALL.iter().map(|code| code.as_str()).collect()
}

/// Every route, in the order of the document.
fn routes(catalogue: &Catalogue) -> Vec<Route> {
    let nouns: [fn(&Catalogue) -> Vec<Route>; 16] = [
        endpoint::routes,
        listener::routes,
        event::routes,
        event_type::routes,
        delivery::routes,
        replay::routes,
        erasure::routes,
        source::routes,
        parked_message::routes,
        stats::routes,
        workspace::routes,
        node::routes,
        api_key::routes,
        portal_session::routes,
        audit::routes,
        readiness::routes,
    ];
    nouns.iter().flat_map(|routes| routes(catalogue)).collect()
}

#[cfg(test)]
mod tests {
    use http::Method;
    use postrider_domain::rate_limit::RateBucket;

    use super::*;

    #[test]
    fn a_refusal_is_counted_under_its_own_code() {
        let codes = refusal_codes();
        assert!(ErrorCode::ALL.into_iter().all(|code| codes[code as usize] == code.as_str()));
    }

    #[test]
    fn only_publishes_count_as_publishing() {
        let routes = routes(&Catalogue::built_in().unwrap());
        let publishing = routes.iter().filter(|route| route.bucket == RateBucket::Publishing);
        let publishing: Vec<_> = publishing.map(|route| (&route.method, route.path)).collect();
        assert_eq!(publishing, [(&Method::POST, "/events"), (&Method::POST, "/events/batch")]);
    }
}
