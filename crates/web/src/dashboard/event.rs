//! One event: its data, where it went, and where it did not go and why.

use axum::body::Body;
use axum::response::Response;
use maud::{Markup, html};

use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::EndpointLabel;
use postrider_domain::event::{EventDetail, data_of};
use postrider_domain::not_reached::{ConfiguredAs, NotReached};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::payload::PayloadState;
use postrider_domain::permission::Permission;
use postrider_domain::visible::is_unprintable;
use postrider_service::{OtherEndpoint, ServiceError};

use super::{deliveries, erase, events};
use crate::answer;
use crate::components::delivery_rows::{self, Rows};
use crate::components::{body, code, list, outcome, time};
use crate::failure::Failure;
use crate::form::Fields;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

use super::delivery;

/// Deliveries that the page shows.
const DELIVERIES: &str = "200";

struct Seen {
    event: EventDetail,
    deliveries: Vec<Delivery>,
    rows: Rows,
    /// Endpoints that did not get it. Empty when the visitor may not see endpoints.
    others: Page<OtherEndpoint>,
    other_labels: Vec<EndpointLabel>,
}

impl Seen {
    async fn load(visit: &Visit) -> Result<Self, ServiceError> {
        let (service, principal) = (visit.service(), &visit.principal);
        let event = service.get_event(principal, visit.id(1)?).await?;
        let deliveries = if visit.may(Permission::DeliveriesRead) {
            let filter = DeliveryFilter { event_ids: vec![event.event.id], ..DeliveryFilter::default() };
            let page = PageRequest::parse(Some(DELIVERIES), None).unwrap_or(PageRequest::FIRST);
            service.list_deliveries(principal, filter, page).await?.items
        } else {
            Vec::new()
        };
        let rows = deliveries::rows(visit, &deliveries).await?;
        let mut others = Page::all(Vec::new());
        let mut other_labels = Vec::new();
        if visit.may(Permission::EndpointsRead) {
            others = service.list_other_endpoints(principal, event.event.id, PageRequest::FIRST).await?;
            let ids = others.items.iter().map(|other| other.endpoint_id).collect();
            other_labels = service.endpoint_labels(principal, ids).await?;
        }
        Ok(Self { event, deliveries, rows, others, other_labels })
    }

    /// Deliveries that failed and were not sent again by hand since.
    fn failed(&self) -> impl Iterator<Item = &Delivery> {
        let is_newest = |delivery: &&Delivery| {
            let newest = self.deliveries.iter().find(|other| other.endpoint_id == delivery.endpoint_id);
            newest.is_some_and(|newest| newest.id == delivery.id)
        };
        self.deliveries.iter().filter(|it| it.status == DeliveryStatus::Failed).filter(is_newest)
    }
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let seen = Seen::load(&visit).await?;
    let title = seen.event.event.id.to_string();
    Ok(visit.page(Section::Events, &title, content(&visit, &seen)))
}

/// The bytes that receivers get.
pub async fn raw(visit: Visit) -> Result<Response, Failure> {
    let (event, envelope) = visit.service().get_payload(&visit.principal, visit.id(1)?).await?;
    Ok(answer::bytes(&visit.site, &format!("{}.json.txt", event.id), envelope))
}

/// Queues a retry of each delivery that failed.
pub async fn retry(visit: Visit, body: Body) -> Result<Response, Failure> {
    let fields = Fields::read(body).await?;
    let seen = Seen::load(&visit).await?;
    for delivery in seen.failed() {
        delivery::retry_one_of(&visit, &fields, delivery.id).await?;
    }
    Ok(visit.done(&format!("/events/{}", seen.event.event.id), "retried"))
}

fn content(visit: &Visit, seen: &Seen) -> Markup {
    let event = &seen.event.event;
    html! {
        h1 { "Event " (event.event_type) }
        div #answer data-live="swap" { (answer_of(seen)) }
        (facts(seen))
        (actions(visit, seen))
        @if !seen.deliveries.is_empty() {
            h2 { "Deliveries" }
            (delivery_rows::table(&seen.deliveries, &seen.rows, false))
        }
        (skipped(visit, seen))
        (others(visit, seen))
        (data(visit, seen))
        (code::api_call("GET", &format!("/v1/events/{}", event.id)))
    }
}

/// Where the event stands, over all its deliveries.
fn answer_of(seen: &Seen) -> Markup {
    let count = |status| seen.deliveries.iter().filter(|it| it.status == status).count();
    let (delivered, failed) = (count(DeliveryStatus::Delivered), seen.failed().count());
    let (pending, skipped) = (count(DeliveryStatus::Pending), seen.event.skipped.len());
    let tone = match () {
        () if failed > 0 => "answer answer-bad",
        () if pending > 0 => "answer answer-waiting",
        () if delivered > 0 => "answer answer-good",
        () => "answer",
    };
    let parts = [(delivered, "delivered"), (failed, "failed"), (pending, "waiting"), (skipped, "not sent")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    html! {
        div class=(tone) {
            @if seen.event.event.matched_none {
                p { strong { "Matched nothing" } ". No endpoint had subscribed to " (seen.event.event.event_type) " for its project when it was accepted." }
                p { "An endpoint that subscribes now gets later events. This one can be published again." }
            } @else if parts.is_empty() {
                p { strong { "Accepted" } "." }
            } @else {
                p { strong { (parts.join(", ")) } "." }
            }
        }
    }
}

fn facts(seen: &Seen) -> Markup {
    let event = &seen.event.event;
    let mut pairs = vec![
        ("Event", code::copyable(&event.id.to_string())),
        ("Accepted", time::instant(event.id.created_at())),
        ("Deliveries", events::deliveries(event)),
    ];
    if let Some(external_id) = &event.external_id {
        pairs.insert(1, ("externalId", code::copyable(external_id)));
    }
    if let Some(project) = &event.project_id {
        pairs.push(("Project", html! { code { (project) } }));
    }
    if let Some(occurred_at) = event.occurred_at {
        pairs.push(("Occurred", time::instant(occurred_at)));
    }
    list::facts(&pairs)
}

fn actions(visit: &Visit, seen: &Seen) -> Markup {
    let failed = seen.failed().count();
    let path = visit.link(&format!("/events/{}/retry", seen.event.event.id));
    let newest = seen.deliveries.first().map(|newest| newest.id.to_string()).unwrap_or_default();
    let erase = erase::button(visit, &seen.event.event);
    let may_retry = seen.event.event.payload == PayloadState::Kept && visit.may(Permission::DeliveriesRetry);
    html! {
        div.actions {
            @if failed > 0 && may_retry {
                form.action action=(path) method="post" {
                    input type="hidden" name=(once::FIELD) value=(newest);
                    button.primary type="submit" { "Retry the " (failed) " that failed" }
                }
            }
            (erase)
        }
    }
}

fn skipped(visit: &Visit, seen: &Seen) -> Markup {
    let path = |id| visit.link(&format!("/endpoints/{id}"));
    html! {
        @if !seen.event.skipped.is_empty() {
            h2 { "Not sent" }
            ul {
                @for skipped in &seen.event.skipped {
                    @let name = seen.rows.labels.iter().find(|label| label.id == skipped.endpoint_id).map(|label| label.name.as_str());
                    li {
                        @if visit.may(Permission::EndpointsRead) { a href=(path(skipped.endpoint_id)) { (name.unwrap_or("The endpoint")) } }
                        @else { code { (skipped.endpoint_id) } }
                        ": " (outcome::reason(skipped.reason)) "."
                    }
                }
            }
        }
    }
}

/// Why the other endpoints did not get the event.
fn others(visit: &Visit, seen: &Seen) -> Markup {
    let name =
        |id| seen.other_labels.iter().find(|label| label.id == id).map_or("An endpoint", |label| label.name.as_str());
    html! {
        @if !seen.others.items.is_empty() {
            details {
                summary { "Why other endpoints did not get it" }
                ul {
                    @for other in &seen.others.items {
                        li {
                            a href=(visit.link(&format!("/endpoints/{}", other.endpoint_id))) { (name(other.endpoint_id)) }
                            ": " (why_not(other.reason)) (configured(other.configured_as)) "."
                        }
                    }
                }
                @if seen.others.next.is_some() { p.soft { "There are more. The API lists them all." } }
            }
        }
    }
}

const fn why_not(reason: NotReached) -> &'static str {
    match reason {
        NotReached::CreatedLater => "it was made after the event",
        NotReached::OtherProject => "it belongs to another project",
        NotReached::OtherTypes => "it does not subscribe to this type",
        NotReached::TestOfOther => "the event was a test of another endpoint",
        NotReached::ChangedSince => "it matches the event, but did not when the event was accepted",
    }
}

const fn configured(configured: ConfiguredAs) -> &'static str {
    match configured {
        ConfiguredAs::AtAccept => "",
        ConfiguredAs::Now => ", as it is configured now",
    }
}

fn data(visit: &Visit, seen: &Seen) -> Markup {
    let whole_at = visit.link(&format!("/events/{}/body", seen.event.event.id));
    html! {
        h2 { "Body" }
        @match seen.event.event.payload {
            PayloadState::Kept => {
                p.soft { "Every receiver gets these bytes." }
                (body::show("Body of the event", &seen.event.envelope, &whole_at))
            }
            PayloadState::Expired => p.soft { "Payload past retention: the data is older than this server keeps it. The event cannot be sent again." },
            PayloadState::Erased => p.soft { "Payload erased: somebody had the data erased. The event cannot be sent again." },
        }
        @if let Some(command) = publish_command(visit, seen) {
            details {
                summary { "Publish it again, as a curl command" }
                p.soft { "It makes a new event of the same data. Put your API key into the variable " code { "KEY" } "." }
                (code::block("Publish command", &command))
            }
        }
    }
}

/// The command that publishes the same data as a new event. `None` when it cannot be written as one line of text.
fn publish_command(visit: &Visit, seen: &Seen) -> Option<String> {
    let event = &seen.event.event;
    let data = data_of(&seen.event.envelope)?.get();
    let project = event.project_id.as_ref().map(|id| format!(",\"projectId\":\"{id}\"")).unwrap_or_default();
    let published = format!("{{\"type\":\"{}\",\"data\":{data}{project}}}", event.event_type);
    let url = format!("{}{}/v1/events", visit.site.origin, visit.site.prefix);
    let command =
        crate::components::curl::command("POST", &url, &[("content-type", "application/json")], Some(&published));
    // The variable must be expanded by the shell, so its header is in double quotes.
    let command =
        command.replacen(" \\\n  --header", " \\\n  --header \"authorization: Bearer $KEY\" \\\n  --header", 1);
    (!command.chars().any(|c| is_unprintable(c) && c != '\n')).then_some(command)
}
