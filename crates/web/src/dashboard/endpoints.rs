//! The list of endpoints, and the routes of everything about one endpoint.
//!
//! The portal has the same pages, narrowed by the visitor's permissions. So no path here names its base: links are made
//! by [`Visit::link`].

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::endpoint::{Endpoint, EndpointFilter, EndpointState};
use postrider_domain::id::RowKey;
use postrider_domain::list_filter::ListFilter as _;
use postrider_domain::page::encode_cursor;
use postrider_domain::permission::Permission;
use postrider_domain::stats::EndpointActivity;
use postrider_service::ServiceError;

use super::{endpoint, endpoint_form, replay, secret};
use crate::components::field::Faults;
use crate::components::{activity, filter, icon, list, state, time};
use crate::failure::Failure;
use crate::form::Fields;
use crate::language::{Phrase, say};
use crate::layout::Section;
use crate::list_query::ListQuery;
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

const PATH: &str = "/endpoints";

/// Filters that people often want. The first page of the dashboard links to the second.
const PRESETS: [(Phrase, &str); 2] =
    [(Phrase::of("All"), ""), (Phrase::of("Need attention"), "state=failing%2Cpaused%2Cdisabled")];

/// Where a page of the list begins and ends.
struct Listed {
    endpoints: Vec<Endpoint>,
    activity: Vec<EndpointActivity>,
    is_by_failures: bool,
    newest: Option<String>,
    older: Option<String>,
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let query: ListQuery<EndpointFilter> = ListQuery::read(&visit);
    if !query.faults.0.is_empty() {
        let body = html! { (heading(&visit)) (query.faults.summary()) (form(&visit, true)) };
        return Ok(visit.page_with(StatusCode::BAD_REQUEST, Section::Endpoints, "", body));
    }
    let is_narrowed = query.is_narrowed;
    let api_path = api_path(&query.filter);
    let listed = Listed::read(&visit, query).await?;
    let is_continued = listed.newest.is_some();
    let presets = PRESETS.map(|(phrase, query)| (phrase.text(), query));
    let body = html! {
        (heading(&visit))
        @if !listed.endpoints.is_empty() || is_narrowed || is_continued {
            (filter::presets(&|query| visit.link(&format!("{PATH}{query}")), &visit.query, &presets))
            (form(&visit, is_narrowed))
        }
        @if listed.endpoints.is_empty() { (nothing(&visit, is_narrowed, is_continued)) } @else { (rows(&visit, &listed)) }
        (list::pages(listed.newest.as_deref(), listed.older.as_deref()))
        (visit.api_call("GET", &api_path))
    };
    Ok(visit.page(Section::Endpoints, "", body))
}

impl Listed {
    async fn read(visit: &Visit, query: ListQuery<EndpointFilter>) -> Result<Self, ServiceError> {
        let (service, principal) = (visit.service(), &visit.principal);
        let is_by_failures = visit.query.text("sort") == Some("failing");
        let from =
            visit.query.text("from").and_then(|text| EndpointState::ALL.into_iter().find(|it| it.as_str() == text));
        let (endpoints, next) = if is_by_failures {
            let page = service.list_endpoints_failing_first(principal, query.filter, from, query.page).await?;
            (page.items, page.next.map(|(group, key)| (Some(group), key)))
        } else {
            let page = service.list_endpoints(principal, query.filter, query.page).await?;
            (page.items, page.next.map(|key| (None, Some(key))))
        };
        let ids = endpoints.iter().map(|endpoint| endpoint.id).collect();
        let activity = match visit.may(Permission::DeliveriesRead) {
            true => service.endpoint_activity(principal, ids).await?,
            false => Vec::new(),
        };
        let at = |(group, key): (Option<EndpointState>, Option<RowKey>)| {
            let fields = visit.query.clone().without("from");
            let fields = group.into_iter().fold(fields, |fields, group| fields.with("from", group.as_str()));
            visit.link(&format!("{PATH}?{}", fields.query_with("cursor", key.map(encode_cursor).as_deref())))
        };
        let is_continued = query.is_continued || (is_by_failures && from.is_some());
        let (newest, older) = (is_continued.then(|| at((None, None))), next.map(at));
        Ok(Self { endpoints, activity, is_by_failures, newest, older })
    }
}

fn heading(visit: &Visit) -> Markup {
    html! {
        div.heading {
            h1 { (say!("Endpoints")) }
            @if visit.may(Permission::EndpointsWrite) {
                a.button.primary href=(visit.link("/endpoints/new")) { (say!("New endpoint")) }
            }
        }
    }
}

fn api_path(filter: &EndpointFilter) -> String {
    let pairs = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(filter.pairs()).finish();
    format!("/v1/webhook-endpoints{}{pairs}", if pairs.is_empty() { "" } else { "?" })
}

fn form(visit: &Visit, is_narrowed: bool) -> Markup {
    let query = &visit.query;
    let types: Vec<(&str, &str)> = visit.event_types().map(|it| (it.name.as_str(), it.name.as_str())).collect();
    let states = EndpointState::ALL.map(|of| (of.as_str(), state::endpoint_word(of)));
    let switch = [("true", say!("On")), ("false", say!("Off or disabled"))];
    filter::form(
        &visit.link(PATH),
        is_narrowed,
        html! {
            (visit.kept_fields())
            (filter::text(query, "q", say!("Name or host"), ""))
            (filter::choice(query, "state", say!("State"), say!("Any state"), &states))
            (filter::choice(query, "event", say!("Event type"), say!("Any type"), &types))
            (filter::choice(query, "sort", say!("Sorted by"), say!("Newest first"), &[("failing", say!("Failing first"))]))
            (filter::more(query, &["projectId", "isActive"], html! {
                @if visit.is_operator() { (filter::text(query, "projectId", "Project", "")) }
                (filter::choice(query, "isActive", say!("On or off"), say!("Anything"), &switch))
            }))
        },
    )
}

fn rows(visit: &Visit, listed: &Listed) -> Markup {
    let activity = &listed.activity;
    let all_types = visit.event_types().filter(|event| !event.retired).count();
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label=(say!("Endpoints")) {
            table.stack {
                caption { @if listed.is_by_failures { (say!("Endpoints, failing first")) } @else { (say!("Endpoints, newest first")) } }
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
                    @for endpoint in &listed.endpoints {
                        tr id=(endpoint.id) {
                            td data-label=(say!("State")) { (state::endpoint(endpoint)) }
                            th scope="row" data-label=(say!("Endpoint")) {
                                a href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (endpoint.name) }
                                span.sub { @if endpoint.listener.is_some() { (say!("Listener: its consumers lease what it gets")) } @else { (endpoint.url) } }
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
    }
}

/// Why the list is empty: nothing was made yet, the filter leaves nothing, or the pages have come to their end.
fn nothing(visit: &Visit, is_narrowed: bool, is_continued: bool) -> Markup {
    let all = html! { p { a href=(visit.link(PATH)) { (say!("Show all endpoints")) } } };
    if is_continued {
        let body = html! { p { (say!("There are no further endpoints.")) } (all) };
        return list::empty(icon::CHECK, say!("That was all"), &body);
    }
    if is_narrowed {
        let body = html! { p { (say!("Every endpoint was searched.")) } (all) };
        return list::empty(icon::CROSS, say!("No endpoint matches this filter"), &body);
    }
    let body = html! {
        p { (say!("An endpoint is the URL that gets the events of the types that you choose.")) }
        @if !visit.is_operator() { (what_a_webhook_is(visit)) }
    };
    html! {
        (list::empty(icon::ARROW, say!("No endpoint yet"), &body))
        @if visit.may(Permission::EndpointsWrite) {
            h2 { (say!("Make the first endpoint")) }
            (endpoint_form::new_form(visit, &Fields::default(), &Faults::default()))
        }
    }
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
