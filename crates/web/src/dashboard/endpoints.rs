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
use postrider_service::ServiceError;

use super::{endpoint, endpoint_form, replay, secret};
use crate::components::field::{self, Faults, TextField};
use crate::components::{activity, icon, list, state, time};
use crate::failure::Failure;
use crate::language::say;
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
            h1 { (say!("Endpoints")) }
            @if visit.may(Permission::EndpointsWrite) {
                a.button.primary href=(visit.link("/endpoints/new")) { (say!("New endpoint")) }
            }
        }
        (filters(&visit, &faults))
        (rows(&visit, &listed, &activity))
        (visit.api_call("GET", "/v1/webhook-endpoints"))
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
        let known = visit.known_event(name);
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
    let types = visit.event_types().map(|event| (event.name.as_str(), event.name.as_str()));
    let types: Vec<(&str, &str)> = std::iter::once(("", say!("All"))).chain(types).collect();
    let states = [("", say!("All")), ("true", say!("On")), ("false", say!("Off or disabled"))];
    let project = TextField {
        name: "projectId",
        label: "Project",
        hint: "",
        value: text("projectId"),
        kind: "text",
        required: false,
    };
    html! {
        form.filters action=(visit.link("/endpoints")) method="get" role="search" aria-label=(say!("Filter of the endpoints")) {
            (visit.kept_fields())
            (field::select("isActive", say!("State"), &states, text("isActive")))
            (field::select("event", say!("Event type"), &types, text("event")))
            @if visit.is_operator() { (project.render(faults)) }
            button type="submit" { (say!("Filter")) }
            @if is_filtered(visit) { a href=(visit.link("/endpoints")) { (say!("Show all")) } }
        }
    }
}

fn rows(visit: &Visit, listed: &Page<Endpoint>, activity: &[EndpointActivity]) -> Markup {
    if listed.items.is_empty() {
        return nothing(visit);
    }
    let all_types = visit.event_types().filter(|event| !event.retired).count();
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label=(say!("Endpoints")) {
            table.stack {
                caption { (say!("Endpoints, newest first")) }
                thead {
                    tr {
                        th scope="col" { (say!("State")) }
                        th scope="col" { (say!("Endpoint")) }
                        @if visit.is_operator() { th scope="col" { (say!("Project")) } }
                        th.number scope="col" { (say!("Types")) }
                        @if !activity.is_empty() {
                            th scope="col" { (say!("24 h")) }
                            th.number scope="col" { (say!("Waiting")) }
                            th scope="col" { (say!("Last success")) }
                        }
                    }
                }
                tbody #endpoints data-live="rows" {
                    @for endpoint in &listed.items {
                        tr id=(endpoint.id) {
                            td data-label=(say!("State")) { (state::endpoint(endpoint)) }
                            th scope="row" data-label=(say!("Endpoint")) {
                                a href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (endpoint.name) }
                                span.sub { (endpoint.url) }
                            }
                            @if visit.is_operator() {
                                td data-label=(say!("Project")) { (endpoint.project_id.as_deref().unwrap_or("every project")) }
                            }
                            td.number data-label=(say!("Types")) { (say!("{} of {}", endpoint.events.len(), all_types)) }
                            @if let Some(activity) = activity.iter().find(|activity| activity.endpoint_id == endpoint.id) {
                                td data-label=(say!("24 h")) { (activity::day(activity)) }
                                td.number data-label=(say!("Waiting")) { (activity::waiting(activity.queue)) }
                                td data-label=(say!("Last success")) { @match activity.last_success_at { Some(at) => (time::relative(at, now)), None => (say!("never")) } }
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
        let all = html! { p { a href=(visit.link("/endpoints")) { (say!("Show all endpoints")) } } };
        return list::empty(icon::OFF, say!("No endpoint matches this filter"), &all);
    }
    let body = html! {
        p { (say!("An endpoint is the URL that gets the events of the types that you choose.")) }
        @if !visit.is_operator() { (what_a_webhook_is(visit)) }
        @if visit.may(Permission::EndpointsWrite) {
            p { a.button.primary href=(visit.link("/endpoints/new")) { (say!("Make the first endpoint")) } }
        }
    };
    list::empty(icon::ARROW, say!("No endpoint yet"), &body)
}

/// For a reader who has not used one: the operator of the server knows.
fn what_a_webhook_is(visit: &Visit) -> Markup {
    html! {
        p { (say!("When something happens, a webhook tells your program at once: the event is sent to your URL by POST, as JSON. Your program answers with a status of 200 to 299. Any other answer, or none, is an attempt that failed; it is repeated later.")) }
        p { (say!("Each request is signed with a secret that only you and the sender have. So your program can tell a genuine request from a forged one.")) }
        p { (say!("To try it, any public URL that answers 200 is enough: the page of an endpoint sends it a test.")) }
        p { a href=(visit.link(visit.event_types_path())) { (say!("Which events there are")) } }
    }
}
