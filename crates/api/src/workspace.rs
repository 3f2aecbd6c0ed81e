//! `/v1/workspaces`: the caller's own for every key, all of them for an operator's.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use postrider_domain::access::{Principal, Scope, needs};
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::{ApiKeyId, WorkspaceId};
use postrider_domain::time::Timestamp;
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_service::Service;

use super::body::{BodyRule, JsonBody, string};
use super::call::{Call, internal};
use super::error::Failure;
use super::idempotency::{Write, answer};
use super::openapi::workspace as openapi;
use super::paging::{Query, json, list, single};
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ALL: &str = "/workspaces";
    const ONE: &str = "/workspaces/{workspaceId}";
    vec![
        Route::get("/workspaces/me", own, openapi::own(catalogue)),
        Route::post(ALL, create, openapi::create(catalogue)),
        Route::get(ALL, index, openapi::index(catalogue)),
        Route::get(ONE, show, openapi::show(catalogue)),
        Route::patch(ONE, rename, openapi::rename(catalogue)),
        Route::delete(ONE, delete, openapi::delete(catalogue)),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkspaceView<'w> {
    id: WorkspaceId,
    name: &'w str,
    created_at: Timestamp,
}

impl<'w> WorkspaceView<'w> {
    fn new(workspace: &'w Workspace) -> Self {
        Self { id: workspace.id, name: workspace.name.as_str(), created_at: workspace.created_at }
    }
}

/// Not wrapped in `data`: the published page shows it so.
#[derive(Serialize)]
struct OwnView<'w> {
    workspace: WorkspaceView<'w>,
    principal: PrincipalView,
}

#[derive(Serialize)]
struct PrincipalView {
    #[serde(rename = "type")]
    kind: &'static str,
    id: ApiKeyId,
    scopes: Vec<Scope>,
}

async fn own(call: Call) -> Result<Response, Failure> {
    let workspace = call.service().own_workspace(&call.principal).await?;
    let principal =
        PrincipalView { kind: "api_key", id: call.principal.key_id, scopes: call.principal.scopes.iter().collect() };
    Ok(answer(200, json(&OwnView { workspace: WorkspaceView::new(&workspace), principal })))
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let page = call.service().list_workspaces(&call.principal, page).await?;
    Ok(answer(200, list(&page, WorkspaceView::new)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    call.require(needs::WORKSPACES)?;
    let workspace = call.service().get_workspace(&call.principal, call.id(3)?).await?;
    Ok(answer(200, single(WorkspaceView::new(&workspace))))
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    call.require(needs::WORKSPACES)?;
    Write {
        body: BodyRule::Required,
        parse: |_: &Call, body: &JsonBody| {
            let mut fields = body.fields()?;
            let name = fields.required("name", string(WorkspaceName::parse));
            fields.finish()?;
            name.ok_or_else(|| internal("a required parameter is neither there nor at fault"))
        },
        effect: async |service: Arc<Service>, principal: Principal, name, remember| {
            service.create_workspace(&principal, name, remember).await
        },
        render: render_workspace,
    }
    .run(call, body)
    .await
}

async fn rename(call: Call, body: Body) -> Result<Response, Failure> {
    call.require(needs::WORKSPACES)?;
    let id = call.id(3)?;
    Write {
        body: BodyRule::Required,
        parse: |_: &Call, body: &JsonBody| {
            let mut fields = body.fields()?;
            let name = fields.optional("name", string(WorkspaceName::parse));
            fields.finish()?;
            Ok(name)
        },
        effect: async move |service: Arc<Service>, principal: Principal, name, remember| {
            service.rename_workspace(&principal, id, name, remember).await
        },
        render: render_workspace,
    }
    .run(call, body)
    .await
}

fn render_workspace(workspace: &Workspace) -> (u16, Bytes) {
    (200, single(WorkspaceView::new(workspace)))
}

async fn delete(call: Call, body: Body) -> Result<Response, Failure> {
    call.require(needs::WORKSPACES)?;
    let id = call.id(3)?;
    Write {
        body: BodyRule::Optional,
        parse: |_: &Call, body: &JsonBody| body.fields()?.finish(),
        effect: async move |service: Arc<Service>, principal: Principal, (), remember| {
            service.delete_workspace(&principal, id, remember).await
        },
        render: |()| (204, Bytes::new()),
    }
    .run(call, body)
    .await
}
