//! The list of events, with its filter.

use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::event::{Event, EventFilter};
use postrider_domain::list_filter::ListFilter as _;
use postrider_domain::page::{Page, encode_cursor};
use postrider_domain::time::Timestamp;

use crate::components::icon;
use crate::components::list::{self, Nothing, Things};
use crate::components::state::{self, Tone};
use crate::components::{code, filter, time};
use crate::failure::Failure;
use crate::layout::Section;
use crate::list_query::ListQuery;
use crate::visit::Visit;

const PATH: &str = "/events";
const PRESETS: [(&str, &str); 3] =
    [("All", ""), ("Matched nothing", "deliveries=none"), ("Last 24 hours", "period=24h")];

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let query: ListQuery<EventFilter> = ListQuery::read(&visit);
    if !query.faults.0.is_empty() {
        let body = html! { h1 { "Events" } (query.faults.summary()) (form(&visit, true)) };
        return Ok(visit.page_with(StatusCode::BAD_REQUEST, Section::Events, "Events", body));
    }
    let page = visit.service().list_events(&visit.principal, query.filter.clone(), query.page).await?;
    let pairs = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query.filter.pairs()).finish();
    let separator = if pairs.is_empty() { "" } else { "?" };
    let body = html! {
        h1 { "Events" }
        (filter::presets(&|query| visit.link(&format!("{PATH}{query}")), &visit.query, &PRESETS))
        (form(&visit, query.is_narrowed))
        (listed(&visit, &query, &page))
        (code::api_call("GET", &format!("/v1/events{separator}{pairs}")))
    };
    Ok(visit.page(Section::Events, "", body))
}

fn form(visit: &Visit, is_narrowed: bool) -> Markup {
    let query = &visit.query;
    let types: Vec<(&str, &str)> =
        visit.service().catalogue().types().iter().map(|it| (it.name.as_str(), it.name.as_str())).collect();
    filter::form(
        &visit.link(PATH),
        is_narrowed,
        html! {
            (filter::choice(query, "type", "Event type", "Any type", &types))
            (filter::text(query, "externalId", "externalId", ""))
            (filter::period(query))
            (filter::more(query, &["projectId", "deliveries", "since", "until"], html! {
                (filter::text(query, "projectId", "Project", ""))
                (filter::choice(query, "deliveries", "Deliveries", "Any", &[("none", "Matched nothing")]))
                (filter::between(query))
            }))
        },
    )
}

fn listed(visit: &Visit, query: &ListQuery<EventFilter>, page: &Page<Event>) -> Markup {
    let at = |cursor: Option<&str>| visit.link(&format!("{PATH}?{}", visit.query.query_with("cursor", cursor)));
    let next = page.next.map(|key| at(Some(&encode_cursor(key))));
    let newest = query.is_continued.then(|| at(None));
    html! {
        @if page.items.is_empty() {
            (nothing(visit, query, page).render())
        } @else {
            a.button.live-new href=(visit.here()) data-new-of="events" hidden { span data-count { "0" } " new" }
            (table(visit, &page.items))
        }
        @match (page.searched_to, next) {
            (Some(searched_to), Some(next)) => (list::cut(searched_to, &next)),
            (_, next) => (list::pages(newest.as_deref(), next.as_deref())),
        }
    }
}

fn nothing(visit: &Visit, query: &ListQuery<EventFilter>, page: &Page<Event>) -> Nothing {
    let kept_since = visit.service().kept_since();
    Nothing {
        things: Things::Events,
        is_narrowed: query.is_narrowed,
        is_continued: query.is_continued,
        searched_to: page.searched_to,
        kept_since: query.filter.until.filter(|until| *until <= kept_since).map(|_| kept_since),
        first_use: html! { p { "Publish one with " code { "POST /v1/events" } "." } },
    }
}

fn table(visit: &Visit, events: &[Event]) -> Markup {
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label="Events" {
            table.stack {
                caption { "Newest first" }
                thead { tr { th scope="col" { "Type" } th scope="col" { "Event" } th scope="col" { "externalId" } th scope="col" { "Project" } th scope="col" { "Deliveries" } th scope="col" { "Created" } } }
                tbody #events data-live="rows" { @for event in events { (row(visit, event, now)) } }
            }
        }
    }
}

fn row(visit: &Visit, event: &Event, now: Timestamp) -> Markup {
    html! {
        tr #(event.id) {
            th scope="row" data-label="Type" { a href=(visit.link(&format!("{PATH}/{}", event.id))) { (event.event_type) } }
            td data-label="Event" { code { (event.id) } }
            td data-label="externalId" { code { (event.external_id.as_deref().unwrap_or("–")) } }
            td data-label="Project" { code { (event.project_id.as_deref().unwrap_or("–")) } }
            td data-label="Deliveries" { (deliveries(event)) }
            td.nowrap data-label="Created" { (time::relative(event.id.created_at(), now)) }
        }
    }
}

/// How many deliveries an event made.
pub fn deliveries(event: &Event) -> Markup {
    match event.deliveries {
        _ if event.matched_none => state::state(Tone::Neutral, icon::SKIP, "matched nothing"),
        0 => state::state(Tone::Neutral, icon::SKIP, "all skipped"),
        count => html! { (count) },
    }
}
