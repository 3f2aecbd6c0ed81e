//! One delivery: the answer to "where is my event?", and each attempt in full.
//!
//! The portal shows the same page. So nothing here names a path above the base of the visit, and each part asks for the
//! permission that it needs.

use axum::body::Body;
use axum::body::Bytes;
use axum::response::Response;
use maud::{Markup, html};

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::endpoint::Endpoint;
use postrider_domain::explanation::Explanation;
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::private_options::REDACTED;
use postrider_domain::time::Timestamp;
use postrider_service::ServiceError;

use crate::answer;
use crate::components::{answer as sentence, body, code, curl, delivery_rows, list, outcome, time, timeline};
use crate::failure::Failure;
use crate::form::Fields;
use crate::language::say;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

/// Deliveries of the same event that the page shows.
const SIBLINGS: &str = "50";

/// Everything that the page shows.
pub(crate) struct Seen {
    pub delivery: Delivery,
    pub attempts: Vec<Attempt>,
    /// `None` when it is deleted, or when the visitor may not see endpoints.
    pub endpoint: Option<Endpoint>,
    pub payload: Payload,
    /// All deliveries of the event, this one too, the newest first.
    pub siblings: Page<Delivery>,
    pub explanation: Explanation,
    pub now: Timestamp,
}

/// The event, as far as the visitor may see it.
pub(crate) enum Payload {
    Hidden,
    /// Retention or an erasure took it.
    Gone,
    Kept(Bytes),
}

impl Seen {
    pub fn envelope(&self) -> Option<&Bytes> {
        match &self.payload {
            Payload::Kept(envelope) => Some(envelope),
            _ => None,
        }
    }

    async fn load(visit: &Visit, id: DeliveryId) -> Result<Self, ServiceError> {
        let (service, principal) = (visit.service(), &visit.principal);
        let (delivery, attempts) = service.get_delivery(principal, id).await?;
        let filter = DeliveryFilter { event_ids: vec![delivery.event_id], ..DeliveryFilter::default() };
        let page = PageRequest::parse(Some(SIBLINGS), None).map_err(|_| ServiceError::NotFound)?;
        let siblings = service.list_deliveries(principal, filter, page).await?;
        let explanation = service.explain_delivery(principal, &delivery, &attempts).await?;
        let endpoint = if visit.may(Permission::EndpointsRead) {
            found(service.get_endpoint(principal, delivery.endpoint_id).await)?
        } else {
            None
        };
        let payload = if visit.may(Permission::PayloadsRead) {
            let kept = found(service.get_payload(principal, delivery.event_id).await)?;
            kept.map_or(Payload::Gone, |(_, envelope)| Payload::Kept(envelope))
        } else {
            Payload::Hidden
        };
        Ok(Self { delivery, attempts, endpoint, payload, siblings, explanation, now: visit.now() })
    }
}

fn found<T>(result: Result<T, ServiceError>) -> Result<Option<T>, ServiceError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(ServiceError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let seen = Seen::load(&visit, visit.id(1)?).await?;
    let title = seen.delivery.id.to_string();
    Ok(visit.page(Section::Deliveries, &title, content(&visit, &seen)))
}

/// Queues a new delivery of the same event.
pub async fn retry(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::DeliveriesRetry)?;
    let id = visit.id(1)?;
    let fields = Fields::read(body).await?;
    let service = visit.service();
    let page = once::write(&visit, &fields, page_of, async |idempotent| {
        service.retry_delivery(&visit.principal, id, idempotent).await
    });
    let page = page.await?;
    Ok(visit.done(&page, "retried"))
}

/// Skips the delivery at which a strict order has stopped.
pub async fn skip(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::DeliveriesSkip)?;
    let id = visit.id(1)?;
    let fields = Fields::read(body).await?;
    let service = visit.service();
    let page = once::write(&visit, &fields, page_of, async |idempotent| {
        service.skip_delivery(&visit.principal, id, idempotent).await
    });
    let page = page.await?;
    Ok(visit.done(&page, "skipped"))
}

/// Queues a retry of one of several deliveries of a form. Each has its own token, so that a second click queues
/// nothing.
pub(super) async fn retry_one_of(visit: &Visit, form: &Fields, id: DeliveryId) -> Result<(), ServiceError> {
    let token = format!("{}-{id}", form.text(once::FIELD).unwrap_or_default());
    let one = Fields::of(&[(once::FIELD, &token)]);
    let service = visit.service();
    let retried = once::write(visit, &one, page_of, async |idempotent| {
        service.retry_delivery(&visit.principal, id, idempotent).await
    });
    retried.await.map(drop)
}

fn page_of(delivery: &Delivery) -> (u16, Bytes) {
    once::page(format!("/deliveries/{}", delivery.id))
}

/// The bytes that each attempt sends as its body.
pub async fn request_body(visit: Visit) -> Result<Response, Failure> {
    let (delivery, _) = visit.service().get_delivery(&visit.principal, visit.id(1)?).await?;
    let (_, envelope) = visit.service().get_payload(&visit.principal, delivery.event_id).await?;
    Ok(answer::bytes(&visit.site, &format!("{}.json.txt", delivery.event_id), envelope))
}

/// The bytes that are kept of an answer.
pub async fn response_body(visit: Visit) -> Result<Response, Failure> {
    let (delivery, attempts) = visit.service().get_delivery(&visit.principal, visit.id(1)?).await?;
    let number: u32 = visit.segment(3).parse().map_err(|_| ServiceError::NotFound)?;
    let attempt = attempts.into_iter().find(|attempt| attempt.number == number);
    let bytes = attempt.and_then(|attempt| attempt.response_body).ok_or(ServiceError::NotFound)?;
    Ok(answer::bytes(&visit.site, &format!("{}-{number}.txt", delivery.id), bytes))
}

fn content(visit: &Visit, seen: &Seen) -> Markup {
    let delivery = &seen.delivery;
    let last = seen.attempts.last();
    let answered = sentence::of_delivery(delivery, last, &seen.explanation, &|path| visit.link(path), seen.now);
    html! {
        h1 { (say!("Delivery of {}", delivery.event_type.as_str())) }
        div #answer data-live="swap" { (answered) }
        (actions(visit, seen))
        (facts(visit, seen))
        h2 { (say!("What happened")) }
        div #timeline data-live="swap" { (timeline::steps(delivery, &seen.attempts, seen.now)) }
        div #attempts data-live="swap" { (attempts(visit, seen)) }
        (request(visit, seen))
        (siblings(visit, seen))
        (visit.api_call("GET", &format!("/v1/webhook-deliveries/{}", delivery.id)))
    }
}

fn actions(visit: &Visit, seen: &Seen) -> Markup {
    let delivery = &seen.delivery;
    let path = |verb: &str| visit.link(&format!("/deliveries/{}/{verb}", delivery.id));
    // A new delivery of the event changes the token: a later retry is another one.
    let newest = seen.siblings.items.first().map_or(delivery.id, |newest| newest.id).to_string();
    let once = html! { input type="hidden" name=(once::FIELD) value=(newest); };
    let may_retry = visit.may(Permission::DeliveriesRetry);
    let may_skip = delivery.is_blocking && visit.may(Permission::DeliveriesSkip);
    let since = format!("/endpoints/{}/replay?since={}", delivery.endpoint_id, delivery.id.created_at());
    html! {
        @if may_retry || may_skip {
            div.actions {
                @if may_retry {
                    form.action action=(path("retry")) method="post" { (once) button.primary type="submit" { (say!("Retry now")) } }
                }
                @if may_skip {
                    form.action action=(path("skip")) method="post" { (once) button type="submit" { "Skip it" } }
                }
                @if visit.may(Permission::ReplaysWrite) { a.button href=(visit.link(&since)) { (say!("Replay from here")) } }
            }
            p.soft {
                @if may_retry { (say!("A retry is a new delivery of the same bytes, with the endpoint’s secret of today and the whole retry schedule.")) " " }
                @if may_skip { "Skipping gives this delivery up, so that the deliveries behind it go on." }
            }
        }
    }
}

fn facts(visit: &Visit, seen: &Seen) -> Markup {
    let delivery = &seen.delivery;
    let retry_of = |id: DeliveryId| html! { ": " a href=(visit.link(&format!("/deliveries/{id}"))) { (id) } };
    let mut pairs = vec![
        (say!("Delivery"), code::copyable(&delivery.id.to_string())),
        (say!("Event"), event_link(visit, delivery)),
        (say!("Endpoint"), endpoint_link(visit, delivery.endpoint_id, seen.endpoint.as_ref())),
        (
            say!("Made by"),
            html! { (outcome::cause(delivery.cause)) @if let Some(id) = delivery.retry_of { (retry_of(id)) } },
        ),
        (say!("Accepted"), time::instant(delivery.id.created_at())),
    ];
    if let Some(external_id) = &delivery.external_id {
        pairs.insert(2, ("externalId", code::copyable(external_id)));
    }
    if let Some(project) = delivery.project_id.as_ref().filter(|_| visit.is_operator()) {
        pairs.push(("Project", html! { code { (project) } }));
    }
    if let Some(completed_at) = delivery.completed_at {
        let took = time::rough(completed_at.since(delivery.id.created_at()));
        pairs.push((say!("Ended"), say!("{} (after {})", time::instant(completed_at), took)));
    }
    list::facts(&pairs)
}

fn event_link(visit: &Visit, delivery: &Delivery) -> Markup {
    html! {
        (code::copyable(&delivery.event_id.to_string()))
        @if visit.may(Permission::EventsRead) { " " a href=(visit.link(&format!("/events/{}", delivery.event_id))) { "Open the event" } }
    }
}

fn endpoint_link(visit: &Visit, id: EndpointId, endpoint: Option<&Endpoint>) -> Markup {
    html! {
        @match endpoint {
            Some(endpoint) => {
                a href=(visit.link(&format!("/endpoints/{id}"))) { (endpoint.name) }
                // A URL may have 1,024 characters, and is not cut: it gets the width of the page.
                span.sub.long[endpoint.url.len() > 100] {
                    @if endpoint.listener.is_some() { (say!("Listener: its consumers lease what it gets")) } @else { (endpoint.url) }
                }
            }
            None => {
                code { (id) }
                @if visit.may(Permission::EndpointsRead) { span.sub { (say!("deleted")) } }
            }
        }
    }
}

/// The attempts, the newest first and open.
fn attempts(visit: &Visit, seen: &Seen) -> Markup {
    let newest = seen.attempts.last().map_or(0, |attempt| attempt.number);
    html! {
        @for attempt in seen.attempts.iter().rev() {
            details.attempt #{ "attempt-" (attempt.number) } open[attempt.number == newest] {
                summary {
                    span.attempt-title { (say!("Attempt {}", attempt.number)) }
                    " " (outcome::attempt_state(attempt.outcome, attempt.response_status))
                    " " span.soft { (say!("{}, took {} ms", time::relative(attempt.started_at, seen.now), attempt.duration_ms)) }
                }
                (timeline::attempt(attempt, &answer_path(visit, seen, attempt)))
            }
        }
    }
}

fn answer_path(visit: &Visit, seen: &Seen, attempt: &Attempt) -> String {
    visit.link(&format!("/deliveries/{}/attempts/{}/body", seen.delivery.id, attempt.number))
}

/// What is sent: the body, and the request as a command.
fn request(visit: &Visit, seen: &Seen) -> Markup {
    let label = say!("Body of the request");
    let whole_at = visit.link(&format!("/deliveries/{}/body", seen.delivery.id));
    html! {
        h2 { (say!("Request")) }
        @match &seen.payload {
            Payload::Hidden => p.soft { (say!("This sign-in may not see the data of events.")) },
            Payload::Gone => p.soft { (say!("The event is no longer stored: it is older than what is kept, or was erased. It cannot be sent again.")) },
            Payload::Kept(envelope) => {
                p.soft { (say!("Every attempt sends these bytes.")) }
                (body::show(label, envelope, &whole_at))
                @if let Some(command) = command(seen) {
                    details {
                        summary { (say!("As a curl command")) }
                        p.soft { (say!("It repeats the last attempt with its signature, which most receivers refuse after five minutes. Secret headers are left out.")) }
                        (code::block(say!("The request as a curl command"), &command))
                    }
                }
                @if visit.is_operator() || visit.may(Permission::SecretsRotate) {
                    p.alone { a href=(visit.link("/verify")) { (say!("Why does a signature not verify?")) } }
                }
            }
        }
    }
}

fn command(seen: &Seen) -> Option<String> {
    let endpoint = seen.endpoint.as_ref().filter(|endpoint| endpoint.listener.is_none())?;
    let envelope = std::str::from_utf8(seen.envelope()?).ok()?;
    let sent = seen.attempts.last().map(|attempt| attempt.request_headers.as_slice()).unwrap_or_default();
    let is_repeated = |name: &str, value: &str| {
        // curl sets these itself. A redacted value is not the header's.
        let by_curl =
            name.starts_with(':') || name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case("content-length");
        !by_curl && value != REDACTED
    };
    let mut headers: Vec<(&str, &str)> = sent
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, value)| is_repeated(name, value))
        .collect();
    if headers.is_empty() {
        headers.push(("content-type", "application/json"));
    }
    Some(curl::command("POST", &endpoint.url, &headers, Some(envelope)))
}

fn siblings(visit: &Visit, seen: &Seen) -> Markup {
    let others: Vec<&Delivery> = seen.siblings.items.iter().filter(|other| other.id != seen.delivery.id).collect();
    html! {
        @if !others.is_empty() {
            h2 { (say!("Other deliveries of this event")) }
            (delivery_rows::small_table(&others, visit.service().retry_schedule(), &|path| visit.link(path), seen.now))
        }
    }
}
