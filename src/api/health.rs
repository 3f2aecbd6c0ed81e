//! `/v1/health`: public, for load balancers and for people.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::App;
use super::idempotency::answer;
use super::paging::json;

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/health", get(show))
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
