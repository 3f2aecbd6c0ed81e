//! `/v1/health`: public, for load balancers and for people.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::domain::event_type::Catalogue;

use super::App;
use super::idempotency::answer;
use super::openapi::health as openapi;
use super::paging::json;
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![Route::get("/health", show, openapi::show(catalogue))]
}

#[derive(Serialize)]
struct HealthView {
    status: &'static str,
    version: &'static str,
}

async fn show(State(app): State<Arc<App>>) -> Response {
    let (code, status) = match app.service.check_health().await {
        Ok(()) => (200, "ok"),
        Err(error) => {
            tracing::warn!(%error, "unhealthy");
            (503, "degraded")
        }
    };
    answer(code, json(&HealthView { status, version: env!("CARGO_PKG_VERSION") }))
}
