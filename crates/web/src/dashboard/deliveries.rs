//! The list of deliveries, with its filter, and what can be done with many of them.
//!
//! The portal shows the same list. So nothing here names a path above the base of the visit, and each part asks for the
//! permission that it needs.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus};
use postrider_domain::id::DeliveryId;
use postrider_domain::limits;
use postrider_domain::page::{Page, encode_cursor};
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::{RetriedDelivery, ServiceError, refused_retry};

use crate::components::delivery_rows::{self, Rows};
use crate::components::list::{self, Nothing, Things};
use crate::components::{filter, outcome, state};
use crate::failure::Failure;
use crate::fingerprint::fingerprint;
use crate::form::Fields;
use crate::language::{Phrase, say, say_text, translated};
use crate::layout::Section;
use crate::list_query::ListQuery;
use crate::once;
use crate::visit::Visit;

use super::{delivery, filter_replay};

const PATH: &str = "/deliveries";

/// Filters that people often want.
const PRESETS: [(Phrase, &str); 7] = [
    (Phrase::of("All"), ""),
    (Phrase::of("Failed"), "status=failed"),
    (Phrase::of("Waiting"), "status=pending"),
    (Phrase::of("Server errors"), "responseStatus=5xx"),
    (Phrase::of("Timeouts"), "outcome=timeout"),
    (Phrase::of("Not sent"), "status=skipped"),
    (Phrase::of("By hand"), "cause=retry%2Creplay%2Ctest"),
];

/// The pages about deliveries, below `base`.
pub fn routes(base: &str) -> Router {
    let at = |path: &str| format!("{base}{path}");
    Router::new()
        .route(&at("/deliveries"), get(show))
        .route(&at("/deliveries/retry"), post(retry))
        .route(&at("/deliveries/{id}"), get(delivery::show))
        .route(&at("/deliveries/{id}/retry"), post(delivery::retry))
        .route(&at("/deliveries/{id}/skip"), post(delivery::skip))
        .route(&at("/deliveries/{id}/body"), get(delivery::request_body))
        .route(&at("/deliveries/{id}/attempts/{number}/body"), get(delivery::response_body))
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let query: ListQuery<DeliveryFilter> = ListQuery::read(&visit);
    if !query.faults.0.is_empty() {
        let body = html! { h1 { (say!("Deliveries")) } (query.faults.summary()) (form(&visit, true)) };
        return Ok(visit.page_with(StatusCode::BAD_REQUEST, Section::Deliveries, "", body));
    }
    let page = visit.service().list_deliveries(&visit.principal, query.filter.clone(), query.page).await?;
    let rows = rows(&visit, &page.items).await?;
    let listed = listed(&visit, &query, &page, &rows);
    let body = html! {
        h1 { (say!("Deliveries")) }
        (filter::presets(&|query| visit.link(&format!("{PATH}{query}")), &visit.query, &PRESETS.map(|(phrase, query)| (phrase.text(), query))))
        (form(&visit, query.is_narrowed))
        (listed)
        (visit.api_call("GET", &api_path(&query.filter)))
    };
    Ok(visit.page(Section::Deliveries, "", body))
}

/// The labels of the rows' endpoints, and what the visitor may do with rows.
pub(crate) async fn rows(visit: &Visit, deliveries: &[Delivery]) -> Result<Rows, ServiceError> {
    let mut endpoints: Vec<_> = deliveries.iter().map(|delivery| delivery.endpoint_id).collect();
    endpoints.sort_unstable_by_key(ToString::to_string);
    endpoints.dedup();
    let labels = if visit.may(Permission::EndpointsRead) && !endpoints.is_empty() {
        visit.service().endpoint_labels(&visit.principal, endpoints).await?
    } else {
        Vec::new()
    };
    Ok(Rows {
        labels,
        schedule: visit.service().retry_schedule().clone(),
        now: visit.now(),
        base: visit.base.clone(),
        kept: visit.kept_query(),
        shows_project: visit.is_operator(),
    })
}

fn listed(visit: &Visit, query: &ListQuery<DeliveryFilter>, page: &Page<Delivery>, rows: &Rows) -> Markup {
    let next = page.next.map(|key| further(visit, &encode_cursor(key)));
    let newest = query.is_continued.then(|| visit.link(&with_query(PATH, &visit.query.query_with("cursor", None))));
    html! {
        @if page.items.is_empty() {
            (nothing(visit, query, page).render())
        } @else {
            a.button.live-new href=(visit.here()) data-new-of="deliveries" hidden { span data-count { "0" } " " (say!("new")) }
            @if visit.may(Permission::DeliveriesRetry) {
                form action=(visit.link("/deliveries/retry")) method="post" {
                    (delivery_rows::table(&page.items, rows, true))
                    (actions(visit))
                }
            } @else {
                (delivery_rows::table(&page.items, rows, false))
            }
        }
        @if !page.items.is_empty() || page.searched_to.is_some() {
            div.actions { (filter_replay::button(visit, &query.filter)) }
        }
        @match (page.searched_to, next) {
            (Some(searched_to), Some(next)) => (list::cut(searched_to, &next)),
            (_, next) => (list::pages(newest.as_deref(), next.as_deref())),
        }
    }
}

fn further(visit: &Visit, cursor: &str) -> String {
    let query = visit.query.query_with("cursor", Some(cursor));
    visit.link(&with_query(PATH, &query))
}

fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn nothing(visit: &Visit, query: &ListQuery<DeliveryFilter>, page: &Page<Delivery>) -> Nothing {
    let kept_since = visit.service().kept_since();
    Nothing {
        things: Things::Deliveries,
        is_narrowed: query.is_narrowed,
        is_continued: query.is_continued,
        searched_to: page.searched_to,
        kept_since: query.filter.until.filter(|until| *until <= kept_since).map(|_| kept_since),
        first_use: html! {
            p {
                (say!("A delivery is one event on its way to one endpoint.")) " "
                @if visit.is_operator() { "Publish an event of a type that an endpoint has subscribed to." }
                @else { (say!("It appears here when something happens that one of your endpoints wants to know.")) }
            }
        },
    }
}

/// What can be done with the rows that are ticked.
fn actions(visit: &Visit) -> Markup {
    html! {
        input type="hidden" name=(once::FIELD) value=(minute(visit.now()));
        div.actions {
            button type="submit" { (say!("Retry the ticked ones")) }
        }
    }
}

/// The token of a list's forms. The same rows sent again from a page of the same minute are the same request.
fn minute(now: Timestamp) -> String {
    format!("minute-{}", now.seconds() / 60)
}

fn form(visit: &Visit, is_narrowed: bool) -> Markup {
    let query = &visit.query;
    let statuses = DeliveryStatus::ALL.map(|status| (status.as_str(), state::delivery_word(status)));
    let outcomes =
        AttemptOutcome::ALL.into_iter().filter(|outcome| visit.is_operator() || outcome.for_customer() == *outcome);
    let outcomes: Vec<_> = outcomes.map(|outcome| (outcome.as_str(), outcome::word(outcome))).collect();
    let types: Vec<(&str, &str)> = visit.event_types().map(|it| (it.name.as_str(), it.name.as_str())).collect();
    let causes = [
        ("event", say!("The event")),
        ("retry", say!("A retry")),
        ("replay", say!("A replay")),
        ("test", say!("A test")),
    ];
    filter::form(
        &visit.link(PATH),
        is_narrowed,
        html! {
            (visit.kept_fields())
            (filter::choice(query, "status", say!("State"), say!("Any state"), &statuses))
            (filter::choice(query, "eventType", say!("Event type"), say!("Any type"), &types))
            (filter::text(query, "endpointId", say!("Endpoint"), "whe_…"))
            (filter::period(query))
            (filter::more(query, &["outcome", "responseStatus", "projectId", "cause", "since", "until", "eventId"], html! {
                (filter::choice(query, "outcome", say!("Last attempt"), say!("Any outcome"), &outcomes))
                (filter::text(query, "responseStatus", say!("Answer"), say!("503 or 5xx")))
                @if visit.is_operator() { (filter::text(query, "projectId", "Project", "")) }
                (filter::choice(query, "cause", say!("Made by"), say!("Anything"), &causes))
                (filter::text(query, "eventId", say!("Event"), "evt_…"))
                (filter::between(query))
            }))
        },
    )
}

/// Queues a retry of each ticked delivery.
pub async fn retry(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::DeliveriesRetry)?;
    let fields = Fields::read(body).await?;
    let ids: Vec<DeliveryId> = fields.all("id").filter_map(|id| id.parse().ok()).collect();
    if ids.is_empty() {
        return Err(
            ServiceError::Conflict(say!("No delivery is ticked. Go back and tick those to retry.").to_owned()).into()
        );
    }
    if ids.len() > usize::try_from(limits::PAGE_MAX).unwrap_or(usize::MAX) {
        return Err(ServiceError::Conflict(say_text!(
            "At most {} deliveries are retried at once.",
            &limits::PAGE_MAX.to_string()
        ))
        .into());
    }
    // The token of the list is the same for a minute, so that its page stays the same: the chosen rows belong to it.
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let hash = fingerprint(texts.join(" ").as_bytes());
    let token = format!("{}-{hash}", fields.text(once::FIELD).unwrap_or_default());
    let (service, count) = (visit.service(), ids.len());
    let chosen = Fields::of(&[(once::FIELD, &token)]);
    let kept = once::write(&visit, &chosen, kept_refusals, async |idempotent| {
        service.retry_deliveries(&visit.principal, ids, idempotent).await
    });
    let kept = kept.await?;
    let refused: Vec<(&str, &str)> = kept.lines().filter_map(|line| line.split_once(' ')).collect();
    if refused.is_empty() {
        return Ok(visit.done("/deliveries?cause=retry&period=1h", "retried"));
    }
    let queued = count.saturating_sub(refused.len());
    Ok(visit.page(Section::Deliveries, say!("Retries"), refusals(&visit, queued, &refused)))
}

/// What is kept of several retries: a line for each that was refused.
#[expect(clippy::ptr_arg, reason = "the renderer of an effect gets a reference to it")]
fn kept_refusals(retried: &Vec<RetriedDelivery>) -> (u16, Bytes) {
    let refused = retried.iter().filter_map(|one| Some((one.id, one.result.as_ref().err()?)));
    let lines: Vec<String> = refused.map(|(id, refusal)| format!("{id} {}", refused_retry(*refusal))).collect();
    (200, Bytes::from(lines.join("\n")))
}

fn refusals(visit: &Visit, queued: usize, refused: &[(&str, &str)]) -> Markup {
    html! {
        h1 { (say!("Not all were queued")) }
        p { (say!("{} are queued again, {} are not:", queued, refused.len())) }
        ul {
            @for (id, error) in refused {
                li { a href=(visit.link(&format!("/deliveries/{id}"))) { (id) } ": " (translated(error)) }
            }
        }
        p { a href=(visit.link("/deliveries?cause=retry&period=1h")) { (say!("The retries of the last hour")) } }
    }
}

fn api_query(filter: &DeliveryFilter) -> String {
    use postrider_domain::list_filter::ListFilter as _;
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(filter.pairs()).finish()
}

fn api_path(filter: &DeliveryFilter) -> String {
    with_query("/v1/webhook-deliveries", &api_query(filter))
}
