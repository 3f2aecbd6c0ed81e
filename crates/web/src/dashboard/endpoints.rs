//! The list of endpoints, and the routes of everything about one endpoint.
//!
//! The portal has the same pages, narrowed by the visitor's permissions. So no path here names its base: links are made
//! by [`Visit::link`].

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use maud::{Markup, html};

use postrider_domain::endpoint::{Endpoint, EndpointFilter, ProjectId};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::stats::EndpointActivity;
use postrider_service::{ServiceError, known_event};

use super::{endpoint, endpoint_form, replay, secret};
use crate::components::field::{self, Faults, TextField};
use crate::components::{activity, code, icon, list, state, time};
use crate::failure::Failure;
use crate::layout::Section;
use crate::visit::Visit;

/// The pages about endpoints, below `base`.
pub fn routes(base: &str) -> Router {
    let at = |path: &str| format!("{base}{path}");
    Router::new()
        .route(&at("/endpoints"), get(show))
        .route(&at("/endpoints/new"), get(endpoint_form::show_new).post(endpoint_form::create))
        .route(&at("/endpoints/{id}"), get(endpoint::show))
        .route(&at("/endpoints/{id}/edit"), get(endpoint_form::show_edit).post(endpoint_form::save))
        .route(&at("/endpoints/{id}/test"), axum::routing::post(endpoint::test))
        .route(&at("/endpoints/{id}/on"), axum::routing::post(endpoint::switch_on))
        .route(&at("/endpoints/{id}/off"), axum::routing::post(endpoint::switch_off))
        .route(&at("/endpoints/{id}/delete"), get(endpoint::ask_delete).post(endpoint::delete))
        .route(&at("/endpoints/{id}/rotate"), get(secret::show_rotate))
        .route(&at("/endpoints/{id}/secret"), get(secret::show_gone).post(secret::rotate))
        .route(&at("/endpoints/{id}/replay"), get(replay::show_form).post(replay::submit))
        .route(&at("/endpoints/{id}/replays/{replay}"), get(replay::show))
        .route(&at("/endpoints/{id}/replays/{replay}/stop"), axum::routing::post(replay::stop))
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let (filter, faults) = filter_of(&visit);
    let page = PageRequest::parse(None, visit.query.text("cursor")).map_err(ServiceError::from)?;
    let listed = visit.service().list_endpoints(&visit.principal, filter, page).await?;
    let ids = listed.items.iter().map(|endpoint| endpoint.id).collect();
    let activity = match visit.may(Permission::DeliveriesRead) {
        true => visit.service().endpoint_activity(&visit.principal, ids).await?,
        false => Vec::new(),
    };
    let body = html! {
        div.heading {
            h1 { "Endpoints" }
            @if visit.may(Permission::EndpointsWrite) {
                a.button.primary href=(visit.link("/endpoints/new")) { "New endpoint" }
            }
        }
        (filters(&visit, &faults))
        (rows(&visit, &listed, &activity))
        (code::api_call("GET", "/v1/webhook-endpoints"))
    };
    Ok(visit.page(Section::Endpoints, "", body))
}

/// The filter of the URL. A value that means nothing is a fault at its field, and the list is not narrowed by it.
fn filter_of(visit: &Visit) -> (EndpointFilter, Faults) {
    let mut faults = Faults::default();
    let project_id = visit.query.text("projectId").filter(|_| visit.is_operator()).and_then(|text| {
        ProjectId::parse(text).map_err(|fault| faults.0.push(("projectId".to_owned(), fault.to_string()))).ok()
    });
    let event_type = visit.query.text("event").and_then(|name| {
        let known = known_event(visit.service().catalogue(), name);
        known.map_err(|fault| faults.0.push(("event".to_owned(), fault))).ok()
    });
    let is_active = match visit.query.text("isActive") {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    let filter = EndpointFilter {
        project_ids: project_id.into_iter().collect(),
        is_active,
        event_types: event_type.into_iter().collect(),
        ..EndpointFilter::default()
    };
    (filter, faults)
}

fn is_filtered(visit: &Visit) -> bool {
    ["projectId", "event", "isActive"].iter().any(|name| visit.query.text(name).is_some())
}

fn filters(visit: &Visit, faults: &Faults) -> Markup {
    let text = |name: &str| visit.query.text(name).unwrap_or_default();
    let types = visit.service().catalogue().types();
    let types = types.iter().map(|event| (event.name.as_str(), event.name.as_str()));
    let types: Vec<(&str, &str)> = std::iter::once(("", "All")).chain(types).collect();
    let states = [("", "All"), ("true", "On"), ("false", "Off or disabled")];
    let project = TextField {
        name: "projectId",
        label: "Project",
        hint: "",
        value: text("projectId"),
        kind: "text",
        required: false,
    };
    html! {
        form.filters action=(visit.link("/endpoints")) method="get" role="search" aria-label="Filter of the endpoints" {
            (visit.kept_fields())
            (field::select("isActive", "State", &states, text("isActive")))
            (field::select("event", "Event type", &types, text("event")))
            @if visit.is_operator() { (project.render(faults)) }
            button type="submit" { "Filter" }
            @if is_filtered(visit) { a href=(visit.link("/endpoints")) { "Show all" } }
        }
    }
}

fn rows(visit: &Visit, listed: &Page<Endpoint>, activity: &[EndpointActivity]) -> Markup {
    if listed.items.is_empty() {
        return nothing(visit);
    }
    let all_types = visit.service().catalogue().names().count();
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label="Endpoints" {
            table.stack {
                caption { "Endpoints, newest first" }
                thead {
                    tr {
                        th scope="col" { "State" }
                        th scope="col" { "Endpoint" }
                        @if visit.is_operator() { th scope="col" { "Project" } }
                        th.number scope="col" { "Types" }
                        @if !activity.is_empty() {
                            th scope="col" { "24 h" }
                            th.number scope="col" { "Waiting" }
                            th scope="col" { "Last success" }
                        }
                    }
                }
                tbody #endpoints data-live="rows" {
                    @for endpoint in &listed.items {
                        tr id=(endpoint.id) {
                            td data-label="State" { (state::endpoint(endpoint)) }
                            th scope="row" data-label="Endpoint" {
                                a href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (endpoint.name) }
                                span.sub { (endpoint.url) }
                            }
                            @if visit.is_operator() {
                                td data-label="Project" { (endpoint.project_id.as_deref().unwrap_or("every project")) }
                            }
                            td.number data-label="Types" { (endpoint.events.len()) " of " (all_types) }
                            @if let Some(activity) = activity.iter().find(|activity| activity.endpoint_id == endpoint.id) {
                                td data-label="24 h" { (activity::day(activity)) }
                                td.number data-label="Waiting" { (activity::waiting(activity.queue)) }
                                td data-label="Last success" { @match activity.last_success_at { Some(at) => (time::relative(at, now)), None => "never" } }
                            }
                        }
                    }
                }
            }
        }
        (visit.page_links(listed.next))
    }
}

/// Why the list is empty: nothing was made yet, or the filter leaves nothing.
fn nothing(visit: &Visit) -> Markup {
    if is_filtered(visit) || visit.query.text("cursor").is_some() {
        let all = html! { p { a href=(visit.link("/endpoints")) { "Show all endpoints" } } };
        return list::empty(icon::OFF, "No endpoint matches this filter", &all);
    }
    let body = html! {
        p { "An endpoint is the URL that gets the events of the types that you choose." }
        @if visit.may(Permission::EndpointsWrite) {
            p { a.button.primary href=(visit.link("/endpoints/new")) { "Make the first endpoint" } }
        }
    };
    list::empty(icon::ARROW, "No endpoint yet", &body)
}
