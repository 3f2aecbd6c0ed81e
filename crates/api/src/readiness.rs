//! `/v1/health`: whether the server is ready, for load balancers. `/v1/health/auth`: whether a key works.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use postrider_domain::access::Scope;
use postrider_domain::disk::DiskState;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::{ApiKeyId, WorkspaceId};

use super::access::Access;
use super::answer::{answer, json};
use super::app::App;
use super::call::Call;
use super::openapi::readiness as openapi;
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![
        Route::get("/health", Access::Public, show, openapi::show(catalogue)),
        Route::get("/health/auth", Access::AnyKey, show_caller, openapi::show_caller(catalogue)),
    ]
}

/// The caller. Not wrapped in `data`, as on the published page.
#[derive(Serialize)]
struct CallerView {
    status: &'static str,
    version: &'static str,
    workspace: WorkspaceView,
    principal: PrincipalView,
}

#[derive(Serialize)]
struct WorkspaceView {
    id: WorkspaceId,
}

#[derive(Serialize)]
struct PrincipalView {
    /// `null` for a caller without a key.
    id: Option<ApiKeyId>,
    scopes: Vec<Scope>,
}

async fn show_caller(call: Call) -> Response {
    let Call { principal, .. } = call;
    answer(
        200,
        json(&CallerView {
            status: "ok",
            version: env!("CARGO_PKG_VERSION"),
            workspace: WorkspaceView { id: principal.workspace_id },
            principal: PrincipalView { id: principal.actor.api_key(), scopes: principal.scopes.iter().collect() },
        }),
    )
}

#[derive(Serialize)]
struct HealthView {
    status: &'static str,
    version: &'static str,
    /// Only on a restored copy, which sends nothing.
    #[serde(rename = "restoredCopy", skip_serializing_if = "std::ops::Not::not")]
    restored_copy: bool,
    /// Only if the disk gets full.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<&'static str>,
}

async fn show(State(app): State<Arc<App>>) -> Response {
    let (code, status) = if app.service.is_ready().await { (200, "ok") } else { (503, "degraded") };
    let restored_copy = app.service.is_restored_copy();
    let disk = Some(app.service.disk_state()).filter(|state| *state != DiskState::Ok).map(DiskState::as_str);
    answer(code, json(&HealthView { status, version: env!("CARGO_PKG_VERSION"), restored_copy, disk }))
}
