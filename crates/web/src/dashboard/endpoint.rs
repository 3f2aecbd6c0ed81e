//! One endpoint: how it is, what it got, how it is configured, and what can be done with it.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter};
use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::{DisabledReason, Endpoint, EndpointChange};
use postrider_domain::endpoint_health::HealthState;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::limits;
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::replay::Replay;
use postrider_domain::stats::EndpointActivity;
use postrider_service::{Idempotent, ServiceError, StatsReport, UpdateEndpoint};

use super::audit;
use super::statistics::{self, Period};
use crate::components::field::{self, Faults, TextField};
use crate::components::{activity, code, delivery_rows, icon, list, outcome, state, time};
use crate::failure::Failure;
use crate::form::Fields;
use crate::language::say;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

/// How many rows of deliveries, replays and audit entries the page shows.
const NEWEST: &str = "10";

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let newest = Newest::read(&visit, &endpoint).await?;
    let body = html! {
        div.heading { h1 { (endpoint.name) } (state::endpoint(&endpoint)) }
        div #answer data-live="swap" { (sentence(&visit, &endpoint, &newest)) }
        (actions(&visit, &endpoint))
        @if let Some(test) = &newest.test { (test_result(&visit, test)) }
        @if let Some(numbers) = &newest.numbers { div #activity data-live="swap" { (numbers.render(&visit)) } }
        @if let Some((period, report)) = &newest.stats {
            h2 { (say!("Activity")) }
            (period.links(&visit, &format!("/endpoints/{}", endpoint.id)))
            div #charts data-live="swap" { (period.incomplete(&report.series)) (statistics::charts(&report.series)) }
        }
        @if visit.may(Permission::DeliveriesRead) {
            h2 { (say!("Newest deliveries")) }
            (deliveries(&visit, &endpoint, &newest.deliveries))
            (replays(&visit, &endpoint, &newest.replays))
        }
        h2 { (say!("Configuration")) }
        (configuration(&visit, &endpoint))
        // A customer has a secret to verify with if he may rotate it.
        @if visit.is_operator() || visit.may(Permission::SecretsRotate) {
            p.alone { a href=(visit.link("/verify")) { (say!("Why does a signature not verify?")) } }
        }
        @if visit.may(Permission::AuditRead) {
            h2 { "What was done with it" }
            (audit::table(&visit, &newest.audit))
            p { a href=(visit.link(&format!("/audit?resourceId={}", endpoint.id))) { "All entries of this endpoint" } }
        }
        (visit.api_call("GET", &api_path(endpoint.id)))
    };
    Ok(visit.page(Section::Endpoints, &endpoint.name, body))
}

fn api_path(id: EndpointId) -> String {
    format!("/v1/{}/{id}", if id.is_listener() { "listeners" } else { "webhook-endpoints" })
}

/// What the page shows beside the endpoint itself. A part that the visitor may not see stays empty.
struct Newest {
    deliveries: Vec<Delivery>,
    blocking: Option<Delivery>,
    replays: Vec<Replay>,
    audit: Vec<AuditEntry>,
    numbers: Option<Numbers>,
    stats: Option<(Period, StatsReport)>,
    test: Option<(Delivery, Vec<Attempt>)>,
}

impl Newest {
    async fn read(visit: &Visit, endpoint: &Endpoint) -> Result<Self, ServiceError> {
        let (service, principal) = (visit.service(), &visit.principal);
        let page = PageRequest::parse(Some(NEWEST), None)?;
        let mut newest = Self {
            deliveries: Vec::new(),
            blocking: None,
            replays: Vec::new(),
            audit: Vec::new(),
            numbers: None,
            stats: None,
            test: None,
        };
        if visit.may(Permission::DeliveriesRead) {
            let filter = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..DeliveryFilter::default() };
            newest.deliveries = service.list_deliveries(principal, filter, page).await?.items;
            newest.blocking = service.blocking_delivery(principal, endpoint.id).await?;
            newest.numbers = Some(Numbers::read(visit, endpoint.id).await?);
            // A session that does not see all types does not see these counts, which are not kept by type.
            if principal.event_types.is_none() {
                let period = Period::of(visit);
                let report = service.stats(principal, &period.query(visit.now(), Some(endpoint.id))).await?;
                newest.stats = Some((period, report));
            }
            newest.replays = service.list_replays(principal, Some(endpoint.id), page).await?.items;
            // An id that is none, or of another endpoint, shows no result.
            if let Some(id) = visit.query.text("test").and_then(|text| text.parse::<DeliveryId>().ok()) {
                let found = service.get_delivery(principal, id).await.ok();
                newest.test = found.filter(|(delivery, _)| delivery.endpoint_id == endpoint.id);
            }
        }
        if visit.may(Permission::AuditRead) {
            let filter = AuditFilter { resource_id: Some(endpoint.id.to_string()), ..AuditFilter::default() };
            newest.audit = service.list_audit(principal, filter, page).await?.items;
        }
        Ok(newest)
    }
}

/// How the endpoint is, since when, and what follows.
fn sentence(visit: &Visit, endpoint: &Endpoint, newest: &Newest) -> Markup {
    let now = visit.now();
    let (tone, first, then) = if let Some(reason) = endpoint.disabled_reason {
        (
            "bad",
            disabled(reason),
            html! { (say!("New events are recorded as skipped. What was queued waits up to {} days for the endpoint to be switched on again.", days(limits::WAITING_MAX))) },
        )
    } else if !endpoint.is_active {
        (
            "",
            html! { (say!("It is switched off.")) },
            html! { (say!("New events are recorded as skipped. What was queued waits up to {} days.", days(limits::WAITING_MAX))) },
        )
    } else if let Some(streak) = endpoint.failure_streak.filter(|streak| streak.state() != HealthState::Ok) {
        let disables_at = time::instant(streak.disables_at());
        let failures = match visit.principal.event_types {
            None => say!(
                "{} attempts have failed since the last success. Unless one succeeds, it is disabled after {}.",
                streak.failures,
                disables_at
            ),
            // Attempts of hidden types are among them.
            Some(_) => say!("Unless an attempt succeeds, it is disabled after {}.", disables_at),
        };
        match streak.pause {
            Some(pause) => (
                "waiting",
                say!(
                    "It has been paused for {}. The next probe is due {}.",
                    time::rough(now.since(pause.since)),
                    time::due(pause.next_probe_at, now)
                ),
                html! { (say!("Its queue is kept; one delivery at a time is sent to find out whether it works again.")) " " (failures) },
            ),
            None => {
                ("bad", say!("It has been failing for {}.", time::rough(now.since(streak.first_failure_at))), failures)
            }
        }
    } else if let (Some(streak), None) = (endpoint.failure_streak, &visit.principal.event_types) {
        (
            "waiting",
            match streak.failures {
                1 => html! { (say!("It is active. Its last attempt failed.")) },
                failures => say!("It is active. Its last {} attempts failed.", failures),
            },
            html! { (say!("The page of each delivery says why, and when it is tried again.")) },
        )
    } else {
        (
            "good",
            html! { (say!("It is active.")) },
            match endpoint.events.len() {
                _ if endpoint.listener.is_some() => {
                    html! { (say!("New events wait until one of its consumers leases them.")) }
                }
                1 => html! { (say!("New events of its type are sent to it at once.")) },
                many => say!("New events of its {} types are sent to it at once.", many),
            },
        )
    };
    html! {
        div class={ "answer" @if !tone.is_empty() { " answer-" (tone) } } { p { (first) } p { (then) } }
        @if let Some(delivery) = &newest.blocking { (stopped_order(visit, delivery)) }
    }
}

fn disabled(reason: DisabledReason) -> Markup {
    match reason {
        DisabledReason::Gone => {
            html! { (say!("It is disabled: the receiver answered 410, so it wants no further events.")) }
        }
        DisabledReason::Failing => {
            html! { (say!("It is disabled: no attempt succeeded for {} days.", days(limits::DISABLE_AGE))) }
        }
        DisabledReason::SsrfBlocked => {
            html! { (say!("It is disabled: its host now leads to an address that may not be called.")) }
        }
    }
}

const fn days(duration: Duration) -> u64 {
    duration.as_secs() / 86_400
}

/// A strict order stands still at this delivery.
fn stopped_order(visit: &Visit, delivery: &Delivery) -> Markup {
    let path = format!("/deliveries/{}", delivery.id);
    html! {
        div.answer.answer-bad {
            @let failed = html! { a href=(visit.link(&path)) { (delivery.event_type) } };
            p { (say!("The order has stopped: the delivery of {} has failed for good.", failed)) }
            p { (say!("Nothing else is sent until it is skipped or retried.")) }
            div.actions { a.button href=(visit.link(&path)) { (say!("Open the delivery")) } }
        }
    }
}

/// What waits, when it last worked, and the attempts of the last day.
enum Numbers {
    Counted(EndpointActivity),
    /// For a customer from whom types are hidden, whose deliveries must not count: what the log says of the others.
    OfSeenTypes {
        waiting: BoundedCount,
        /// The newest delivery that arrived.
        newest: Page<Delivery>,
    },
}

impl Numbers {
    async fn read(visit: &Visit, endpoint: EndpointId) -> Result<Self, ServiceError> {
        let (service, principal) = (visit.service(), &visit.principal);
        if let Some(activity) = service.endpoint_activity(principal, vec![endpoint]).await?.pop() {
            return Ok(Self::Counted(activity));
        }
        let of = |status| DeliveryFilter {
            endpoint_ids: vec![endpoint],
            statuses: vec![status],
            event_types: principal.event_types.as_deref().unwrap_or_default().to_vec(),
            ..DeliveryFilter::default()
        };
        let waiting = service.count_deliveries(principal, of(DeliveryStatus::Pending)).await?;
        let page = PageRequest::parse(Some("1"), None)?;
        let newest = service.list_deliveries(principal, of(DeliveryStatus::Delivered), page).await?;
        Ok(Self::OfSeenTypes { waiting, newest })
    }

    fn render(&self, visit: &Visit) -> Markup {
        let (waiting, last_success_at, is_known) = match self {
            Self::Counted(activity) => (html! { (activity::waiting(activity.queue)) }, activity.last_success_at, true),
            Self::OfSeenTypes { waiting: BoundedCount { count, is_exact, .. }, newest } => {
                let waiting = if *is_exact {
                    html! { (count) }
                } else {
                    say!("{} or more", count)
                };
                let last = newest.items.first().and_then(|delivery| delivery.completed_at);
                (waiting, last, newest.searched_to.is_none())
            }
        };
        html! {
            dl.numbers {
                div { dt { (say!("Waiting")) } dd { (waiting) } }
                div { dt { (say!("Last success")) } dd { @match last_success_at { Some(at) => (time::relative(at, visit.now())), None if is_known => (say!("never")), None => "–" } } }
                @if let Self::Counted(activity) = self { div { dt { (say!("Attempts in 24 h")) } dd { (activity::day(activity)) } } }
            }
        }
    }
}

fn actions(visit: &Visit, endpoint: &Endpoint) -> Markup {
    let at = |verb: &str| visit.link(&format!("/endpoints/{}/{verb}", endpoint.id));
    let writes = visit.may(Permission::EndpointsWrite);
    html! {
        div.actions {
            @if visit.may(Permission::EndpointsTest) && !endpoint.events.is_empty() && endpoint.listener.is_none() {
                form.action.test action=(at("test")) method="post" {
                    label.visually-hidden for="test-event" { (say!("Event of the test")) }
                    select #test-event name="event" {
                        @for event in &endpoint.events { option value=(event) { (event) } }
                    }
                    button.primary type="submit" { (say!("Send a test")) }
                }
            }
            @if writes {
                // The form of a listener would have no more than its name.
                @if endpoint.listener.is_none() { a.button href=(at("edit")) { (say!("Edit")) } }
                @if endpoint.is_active {
                    (field::action(&at("off"), say!("Switch off"), "", &[]))
                } @else {
                    (field::action(&at("on"), say!("Switch on"), "primary", &[]))
                }
            }
            @if visit.may(Permission::SecretsRotate) { a.button href=(at("rotate")) { (say!("Rotate the secret")) } }
            @if visit.may(Permission::ReplaysWrite) { a.button href=(at("replay")) { (say!("Replay")) } }
            @if writes { a.button.danger href=(at("delete")) { (say!("Delete")) } }
        }
    }
}

fn test_result(visit: &Visit, (delivery, attempts): &(Delivery, Vec<Attempt>)) -> Markup {
    let last = attempts.last();
    let tone = match delivery.status {
        DeliveryStatus::Delivered | DeliveryStatus::Simulated => "good",
        DeliveryStatus::Pending if last.is_none() => "waiting",
        _ => "bad",
    };
    html! {
        section #test-result data-live="swap" aria-live="polite" {
            div class={ "answer answer-" (tone) } {
                p {
                    @match last {
                        None => (say!("The test is on its way. Its result appears here.")),
                        Some(attempt) => {
                            @let result = outcome::sentence(attempt.outcome, attempt.response_status);
                            (say!("The test of {}: {}, after {} ms.", delivery.event_type.as_str(), result, attempt.duration_ms))
                        }
                    }
                }
                @if let Some(error) = last.and_then(|attempt| attempt.error.as_deref()) { p { (error) } }
                p { a href=(visit.link(&format!("/deliveries/{}", delivery.id))) { (say!("The test in full")) } }
            }
        }
    }
}

fn deliveries(visit: &Visit, endpoint: &Endpoint, deliveries: &[Delivery]) -> Markup {
    if deliveries.is_empty() {
        return html! { p.soft { (say!("Nothing has been sent to it yet, as far back as deliveries are kept. A test shows whether it works.")) } };
    }
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label=(say!("Newest deliveries")) {
            table.stack {
                caption { (say!("The newest deliveries of this endpoint")) }
                thead { tr { th scope="col" { (say!("State")) } th scope="col" { (say!("Event type")) } th scope="col" { (say!("Created")) } th.number scope="col" { (say!("Attempts")) } } }
                tbody #deliveries data-live="rows" {
                    @for delivery in deliveries {
                        tr id=(delivery.id) {
                            td data-label=(say!("State")) { (state::delivery(delivery.status)) @if delivery.is_blocking { span.sub { (say!("stops the order")) } } }
                            th scope="row" data-label=(say!("Event type")) { a href=(visit.link(&format!("/deliveries/{}", delivery.id))) { (delivery.event_type) } code.sub { (delivery.event_id) } @if let Some(external_id) = &delivery.external_id { code.sub { (external_id) } } }
                            td data-label=(say!("Created")) { (time::relative(delivery.id.created_at(), now)) }
                            td.number data-label=(say!("Attempts")) { (delivery_rows::attempts(delivery, visit.service().retry_schedule())) }
                        }
                    }
                }
            }
        }
        p { a href=(visit.link(&format!("/deliveries?endpointId={}", endpoint.id))) { (say!("All deliveries of this endpoint")) } }
    }
}

fn replays(visit: &Visit, endpoint: &Endpoint, replays: &[Replay]) -> Markup {
    html! {
        @if !replays.is_empty() {
            h2 { (say!("Replays")) }
            div.table tabindex="0" role="region" aria-label=(say!("Replays")) {
                table.stack {
                    caption { (say!("The newest replays of this endpoint")) }
                    thead { tr { th scope="col" { (say!("Range")) } th scope="col" { (say!("State")) } th.number scope="col" { (say!("Progress")) } } }
                    tbody #replays data-live="rows" {
                        @for replay in replays {
                            tr id=(replay.id) {
                                th scope="row" data-label=(say!("Range")) {
                                    a href=(visit.link(&super::replay::job_path(endpoint.id, replay.id))) {
                                        @if let Some(range) = super::replay::range_of_job(replay) { (time::instant(range.since)) " – " (time::instant(range.until)) }
                                    }
                                }
                                td data-label=(say!("State")) { (super::replay::status(replay.status)) }
                                td.number data-label=(say!("Progress")) { (say!("{} of {}", replay.replayed + replay.unavailable, replay.total)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn configuration(visit: &Visit, endpoint: &Endpoint) -> Markup {
    let options = &endpoint.options;
    let now = visit.now();
    let mut facts = vec![
        match endpoint.listener {
            None => (say!("URL"), code::copyable(&endpoint.url)),
            Some(_) => (say!("Kind"), html! { (say!("Listener: its consumers lease what it gets")) }),
        },
        (say!("Id"), code::copyable(&endpoint.id.to_string())),
        (say!("Event types"), html! { ul.plain { @for event in &endpoint.events { li { (event) } } } }),
        (say!("Secret"), say!("ends in {}", html! { code { (endpoint.secret_last4) } })),
        (say!("Signatures"), html! { (options.signature_schemes.as_strs().join(", ")) }),
        (
            say!("Retry schedule"),
            html! { (options.retry_schedule.as_ref().map_or_else(|| say!("the server's").to_owned(), ToString::to_string)) },
        ),
        (say!("Timeout"), html! { (options.timeout.map_or_else(|| say!("the server's").to_owned(), time::rough)) }),
        (say!("Created"), time::relative(endpoint.created_at, now)),
        (say!("Changed"), time::relative(endpoint.updated_at, now)),
    ];
    if let Some(listener) = endpoint.listener {
        facts.push((say!("Last seen"), time::relative(listener.last_seen_at, now)));
    }
    if visit.is_operator() {
        facts.insert(3, ("Project", html! { (endpoint.project_id.as_deref().unwrap_or("every project")) }));
        facts.push(("Rate", html! { (options.rate_limit.map_or_else(|| "no limit".to_owned(), |rate| format!("{} a second", rate.per_second()))) }));
        facts.push(("Order", html! { (options.ordering.as_str()) }));
        let traces = match options.trace_forwarding {
            None => "as the server is set",
            Some(true) => "forwarded",
            Some(false) => "not forwarded",
        };
        facts.push(("Traces", html! { (traces) }));
    }
    if visit.may(Permission::EndpointsWrite) {
        let names: Vec<&str> = options.headers.iter().map(|name| name.as_str()).collect();
        let headers = if names.is_empty() {
            html! { (say!("none")) }
        } else {
            say!("{} (values are not shown)", names.join(", "))
        };
        facts.push((say!("Headers"), headers));
        facts.push((
            say!("Client certificate"),
            match &options.client_certificate {
                Some(certificate) => html! { "SHA-256 " code { (certificate.sha256) } },
                None => html! { (say!("none")) },
            },
        ));
    }
    if let Some(key) = options.shown_public_key() {
        facts.push((say!("Public key of v1a"), code::copyable(key)));
    }
    list::facts(&facts)
}

/// Sends the test of the form, and leads to the page that shows its result.
pub async fn test(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsTest)?;
    let form = Fields::read(body).await?;
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let event = form.text("event").map(|name| visit.known_event(name));
    let event = event.transpose().map_err(|fault| ServiceError::invalid("event", fault))?;
    send_test(&visit, &endpoint, event).await
}

pub async fn send_test(visit: &Visit, endpoint: &Endpoint, event: Option<EventTypeName>) -> Result<Response, Failure> {
    let test = queue_test(visit, endpoint, event).await?;
    Ok(visit.done(&format!("/endpoints/{}?test={}", endpoint.id, test.id), "tested"))
}

pub async fn queue_test(
    visit: &Visit,
    endpoint: &Endpoint,
    event: Option<EventTypeName>,
) -> Result<Delivery, ServiceError> {
    once::effect(visit.service().test_endpoint(&visit.principal, endpoint.id, event, &Idempotent::default()).await)
}

pub async fn switch_on(visit: Visit) -> Result<Response, Failure> {
    switch(&visit, true).await
}

pub async fn switch_off(visit: Visit) -> Result<Response, Failure> {
    switch(&visit, false).await
}

async fn switch(visit: &Visit, is_active: bool) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsWrite)?;
    let id = visit.id::<EndpointId>(1)?;
    let change = EndpointChange { is_active: Some(is_active), ..EndpointChange::default() };
    let update = UpdateEndpoint { change, ..UpdateEndpoint::default() };
    once::effect(visit.service().update_endpoint(&visit.principal, id, update, &Idempotent::default()).await)?;
    Ok(visit.done(&format!("/endpoints/{id}"), if is_active { "enabled" } else { "disabled" }))
}

pub async fn ask_delete(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsWrite)?;
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    Ok(delete_page(&visit, StatusCode::OK, &endpoint, "", &Faults::default()))
}

pub async fn delete(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::EndpointsWrite)?;
    let form = Fields::read(body).await?;
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let typed = form.text("name").unwrap_or_default();
    if typed != endpoint.name.trim() {
        let faults = Faults(vec![("name".to_owned(), say!("is not the name of this endpoint").to_owned())]);
        return Ok(delete_page(&visit, StatusCode::BAD_REQUEST, &endpoint, typed, &faults));
    }
    once::effect(visit.service().delete_endpoint(&visit.principal, endpoint.id, &Idempotent::default()).await)?;
    Ok(visit.done("/endpoints", "deleted"))
}

fn delete_page(visit: &Visit, status: StatusCode, endpoint: &Endpoint, typed: &str, faults: &Faults) -> Response {
    let here = format!("/endpoints/{}", endpoint.id);
    let name = TextField {
        name: "name",
        label: say!("Name of the endpoint"),
        hint: "",
        value: typed,
        kind: "text",
        required: true,
    };
    let body = html! {
        h1 { (say!("Delete {}?", endpoint.name)) }
        (faults.summary())
        p.warning role="note" { (icon::WARNING) (say!("What is queued for it is cancelled, and its secret is erased. This cannot be undone. Its log stays until its retention ends.")) }
        p { (say!("To confirm, type the name of the endpoint: {}", html! { strong { (endpoint.name) } })) }
        form.form action=(visit.link(&format!("{here}/delete"))) method="post" {
            (name.render(faults))
            div.actions {
                button.danger type="submit" { (say!("Delete the endpoint")) }
                a.button href=(visit.link(&here)) { (say!("Cancel")) }
            }
        }
        (visit.api_call("DELETE", &api_path(endpoint.id)))
    };
    visit.page_with(status, Section::Endpoints, say!("Delete"), body)
}
