//! `/v1/workspaces`: each key reads its own workspace. A key with the scope for workspaces manages all.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use postrider_domain::access::Scope;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::WorkspaceId;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_service::fields::string;
use postrider_service::{JsonBody, ServiceError};

use super::access::Access;
use super::actor::ActorView;
use super::answer::{answer, json, list, single};
use super::body::{BodyRule, parse_nothing};
use super::call::Call;
use super::error::Failure;
use super::openapi::workspace as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ALL: &str = "/workspaces";
    const ONE: &str = "/workspaces/{workspaceId}";
    vec![
        Route::get("/workspaces/me", Access::AnyKey, own, openapi::own(catalogue)),
        Route::post(ALL, Access::Needs(Permission::WorkspacesManage), create, openapi::create(catalogue)),
        Route::get(ALL, Access::Needs(Permission::WorkspacesManage), index, openapi::index(catalogue)),
        Route::get(ONE, Access::Needs(Permission::WorkspacesManage), show, openapi::show(catalogue)),
        Route::patch(ONE, Access::Needs(Permission::WorkspacesManage), rename, openapi::rename(catalogue)),
        Route::delete(ONE, Access::Needs(Permission::WorkspacesManage), delete, openapi::delete(catalogue)),
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

/// Not wrapped in `data`, as on the published page.
#[derive(Serialize)]
struct OwnView<'w> {
    workspace: WorkspaceView<'w>,
    principal: PrincipalView,
}

#[derive(Serialize)]
struct PrincipalView {
    #[serde(flatten)]
    actor: ActorView,
    scopes: Vec<Scope>,
}

async fn own(call: Call) -> Result<Response, Failure> {
    let workspace = call.service().own_workspace(&call.principal).await?;
    let principal =
        PrincipalView { actor: call.principal.actor.into(), scopes: call.principal.scopes.iter().collect() };
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
    let workspace = call.service().get_workspace(&call.principal, call.id(3)?).await?;
    Ok(answer(200, single(WorkspaceView::new(&workspace))))
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let write = Write::begin(call, body, BodyRule::Required, render_workspace).await?;
    let name = write.check(parse_create(&write.body)).await?;
    write.answer(write.service().create_workspace(write.principal(), name, &write.idempotent).await).await
}

async fn rename(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Required, render_workspace).await?;
    let name = write.check(parse_rename(&write.body)).await?;
    write.answer(write.service().rename_workspace(write.principal(), id, name, &write.idempotent).await).await
}

fn parse_create(body: &JsonBody) -> Result<WorkspaceName, ServiceError> {
    let mut fields = body.fields()?;
    let name = fields.required("name", string(WorkspaceName::parse));
    fields.finish_with(name)
}

fn parse_rename(body: &JsonBody) -> Result<Option<WorkspaceName>, ServiceError> {
    let mut fields = body.fields()?;
    let name = fields.optional("name", string(WorkspaceName::parse));
    fields.finish()?;
    Ok(name)
}

fn render_workspace(workspace: &Workspace) -> (u16, Bytes) {
    (200, single(WorkspaceView::new(workspace)))
}

async fn delete(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, |()| (204, Bytes::new())).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().delete_workspace(write.principal(), id, &write.idempotent).await).await
}
