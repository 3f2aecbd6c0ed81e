//! The workspaces of the server: listed, created, renamed, deleted.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::id::WorkspaceId;
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_service::{Idempotent, ServiceError};

use crate::components::field::{self, Faults, TextField};
use crate::components::{code, icon, list, time};
use crate::failure::Failure;
use crate::form::Fields;
use crate::layout::Section;
use crate::once;
use crate::visit::{Visit, WorkspaceSwitch};

/// Workspaces that the bar offers at most. The page of workspaces has them all.
const OFFERED: &str = "50";

/// What the bar offers to a visitor who manages workspaces. A fault of the store leaves it out: the page says what is
/// wrong.
pub async fn switch_of(visit: &Visit) -> Option<Arc<WorkspaceSwitch>> {
    if !visit.may(Permission::WorkspacesManage) {
        return None;
    }
    let (service, principal) = (visit.service(), &visit.principal);
    let own = service.own_workspace(principal).await.ok()?;
    let listed = service.list_workspaces(principal, PageRequest::parse(Some(OFFERED), None).ok()?).await.ok()?;
    let others = listed.items.into_iter().filter(|it| !it.is_operations && it.id != own.id);
    let others = others.map(|it| (it.id, it.name.as_str().to_owned())).collect();
    Some(Arc::new(WorkspaceSwitch { own: own.name.as_str().to_owned(), others }))
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    index(&visit, StatusCode::OK, "", &Faults::default()).await
}

async fn index(visit: &Visit, status: StatusCode, typed: &str, faults: &Faults) -> Result<Response, Failure> {
    let page = PageRequest::parse(None, visit.query.text("cursor")).map_err(ServiceError::from)?;
    let listed = visit.service().list_workspaces(&visit.principal, page).await?;
    let name = TextField {
        name: "name",
        label: "Name of the new workspace",
        hint: "One product, or one customer that needs keys and limits of its own.",
        value: typed,
        kind: "text",
        required: true,
    };
    let body = html! {
        h1 { "Workspaces" }
        (faults.summary())
        form.form.card action=(visit.link("/workspaces")) method="post" {
            (once::token(visit))
            (name.render(faults))
            button.primary type="submit" { "Create" }
        }
        (table(visit, &listed.items))
        (visit.page_links(listed.next))
        (code::api_call("GET", "/v1/workspaces"))
    };
    Ok(visit.page_with(status, Section::Workspaces, "", body))
}

fn table(visit: &Visit, workspaces: &[Workspace]) -> Markup {
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label="Workspaces" {
            table.stack {
                caption { "Newest first" }
                thead { tr { th scope="col" { "Name" } th scope="col" { "Id" } th scope="col" { "Created" } th scope="col" { span.visually-hidden { "Actions" } } } }
                tbody {
                    @for workspace in workspaces {
                        tr id=(workspace.id) {
                            th scope="row" data-label="Name" {
                                (workspace.name.as_str())
                                @if workspace.id == visit.principal.workspace_id { span.sub { "you are in it" } }
                                @if workspace.is_operations { span.sub { "of the server: its operational events" } }
                            }
                            td data-label="Id" { (code::copyable(&workspace.id.to_string())) }
                            td data-label="Created" { (time::relative(workspace.created_at, now)) }
                            td.nowrap data-label="Actions" {
                                @if !workspace.is_operations && workspace.id != visit.principal.workspace_id {
                                    (field::action(&visit.link("/switch"), "Switch to it", "", &[("workspace", &workspace.id.to_string())]))
                                }
                                @if !workspace.is_operations { a href=(visit.link(&format!("/workspaces/{}", workspace.id))) { "Rename or delete" span.visually-hidden { " " (workspace.name.as_str()) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub async fn create(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::WorkspacesManage)?;
    let form = Fields::read(body).await?;
    let typed = form.text("name").unwrap_or_default();
    let mut faults = Faults::default();
    let Some(name) = faults.read("name", WorkspaceName::parse(typed)) else {
        return index(&visit, StatusCode::BAD_REQUEST, typed, &faults).await;
    };
    let created = once::write(&visit, &form, page_of, async |idempotent| {
        visit.service().create_workspace(&visit.principal, name, idempotent).await
    })
    .await;
    match created {
        Ok(path) => Ok(visit.done(&path, "created")),
        Err(ServiceError::Conflict(fault)) => {
            index(&visit, StatusCode::CONFLICT, typed, &Faults(vec![("name".to_owned(), fault)])).await
        }
        Err(error) => Err(error.into()),
    }
}

fn page_of(_: &Workspace) -> (u16, Bytes) {
    once::page("/workspaces".to_owned())
}

pub async fn show_one(visit: Visit) -> Result<Response, Failure> {
    let workspace = visit.service().get_workspace(&visit.principal, visit.id::<WorkspaceId>(1)?).await?;
    Ok(one(&visit, StatusCode::OK, &workspace, workspace.name.as_str(), "", &Faults::default()))
}

fn one(
    visit: &Visit,
    status: StatusCode,
    workspace: &Workspace,
    name: &str,
    confirm: &str,
    faults: &Faults,
) -> Response {
    let here = visit.link(&format!("/workspaces/{}", workspace.id));
    let is_own = workspace.id == visit.principal.workspace_id;
    let text =
        |name, label, value| TextField { name, label, hint: "", value, kind: "text", required: true }.render(faults);
    let body = html! {
        h1 { (workspace.name.as_str()) }
        (faults.summary())
        (list::facts(&[("Id", code::copyable(&workspace.id.to_string())), ("Created", time::instant(workspace.created_at))]))
        h2 { "Rename" }
        form.form action={ (here) "/rename" } method="post" {
            (text("name", "Name", name))
            button.primary type="submit" { "Rename" }
        }
        h2 { "Delete" }
        @if is_own {
            p { "You are in this workspace. Switch to another one to delete it." }
        } @else {
            p.warning role="note" { (icon::WARNING) "Its keys are revoked, its endpoints and secrets are deleted, and what is queued is cancelled. This cannot be undone. Its log stays until its retention ends." }
            p { "To confirm, type the name: " strong { (workspace.name.as_str()) } }
            form.form action={ (here) "/delete" } method="post" {
                (text("confirm", "Name of the workspace", confirm))
                button.danger type="submit" { "Delete the workspace" }
            }
        }
        (code::api_call("GET", &format!("/v1/workspaces/{}", workspace.id)))
    };
    visit.page_with(status, Section::Workspaces, workspace.name.as_str(), body)
}

pub async fn rename(visit: Visit, body: Body) -> Result<Response, Failure> {
    let workspace = visit.service().get_workspace(&visit.principal, visit.id::<WorkspaceId>(1)?).await?;
    let form = Fields::read(body).await?;
    let typed = form.text("name").unwrap_or_default();
    let mut faults = Faults::default();
    let Some(name) = faults.read("name", WorkspaceName::parse(typed)) else {
        return Ok(one(&visit, StatusCode::BAD_REQUEST, &workspace, typed, "", &faults));
    };
    let service = visit.service();
    let renamed = service.rename_workspace(&visit.principal, workspace.id, Some(name), &Idempotent::default()).await;
    match once::effect(renamed) {
        Ok(_) => Ok(visit.done("/workspaces", "saved")),
        Err(ServiceError::Conflict(fault)) => {
            let faults = Faults(vec![("name".to_owned(), fault)]);
            Ok(one(&visit, StatusCode::CONFLICT, &workspace, typed, "", &faults))
        }
        Err(error) => Err(error.into()),
    }
}

pub async fn delete(visit: Visit, body: Body) -> Result<Response, Failure> {
    let workspace = visit.service().get_workspace(&visit.principal, visit.id::<WorkspaceId>(1)?).await?;
    let form = Fields::read(body).await?;
    let typed = form.text("confirm").unwrap_or_default();
    if typed != workspace.name.as_str().trim() {
        let faults = Faults(vec![("confirm".to_owned(), "is not the name of this workspace".to_owned())]);
        return Ok(one(&visit, StatusCode::BAD_REQUEST, &workspace, workspace.name.as_str(), typed, &faults));
    }
    once::effect(visit.service().delete_workspace(&visit.principal, workspace.id, &Idempotent::default()).await)?;
    Ok(visit.done("/workspaces", "deleted"))
}
