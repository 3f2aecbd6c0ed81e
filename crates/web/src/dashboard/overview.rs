//! The first page: what needs somebody, how things go, and the first steps of a new workspace.

use axum::response::Response;
use maud::{Markup, html};

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::{Endpoint, EndpointFilter, EndpointState};
use postrider_domain::event::EventFilter;
use postrider_domain::limits;
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;
use postrider_domain::stats::Counts;
use postrider_domain::time::Timestamp;
use postrider_service::{NothingWrong, ServiceError, StatsReport};

use super::deliveries;
use super::nodes;
use super::statistics::{self, Period};
use crate::components::delivery_rows;
use crate::components::{code, curl, icon, state, time};
use crate::failure::Failure;
use crate::layout::Section;
use crate::visit::Visit;

/// Endpoints in need and newest failures that the page shows.
const NEEDY: &str = "50";
const FAILURES: &str = "10";

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let workspace = visit.service().own_workspace(&visit.principal).await?;
    let steps = Steps::load(&visit).await?;
    let body = if steps.is_done() { running(&visit).await? } else { first_steps(&visit, &steps) };
    let nodes = nodes::section(&visit).await?;
    let body = html! {
        h1 { (workspace.name.as_str()) }
        @if visit.service().is_restored_copy() { (restored_copy()) }
        (body)
        (nodes)
        (code::api_calls(&[("GET", "/v1/stats"), ("GET", "/v1/nodes")]))
    };
    Ok(visit.page(Section::Overview, workspace.name.as_str(), body))
}

/// What the operator of a restored copy has to do.
fn restored_copy() -> Markup {
    html! {
        div.warning role="note" {
            (icon::WARNING)
            p {
                "This server runs on a restored copy. It answers reads and sends nothing, and it refuses events, retries, tests and replays. \
                 When the original is out of use for ever, stop this server and start it once with " code { "--i-am-the-only-one" } "."
            }
        }
    }
}

/// What a new workspace still has to do.
struct Steps {
    has_endpoint: bool,
    has_event: bool,
    has_delivery: bool,
}

impl Steps {
    async fn load(visit: &Visit) -> Result<Self, ServiceError> {
        let (service, principal) = (visit.service(), &visit.principal);
        let one = PageRequest::parse(Some("1"), None).unwrap_or(PageRequest::FIRST);
        // What the visitor may not see is not asked of him.
        let has_delivery = !visit.may(Permission::DeliveriesRead)
            || !service.list_deliveries(principal, DeliveryFilter::default(), one).await?.items.is_empty();
        let has_event = has_delivery
            || !visit.may(Permission::EventsRead)
            || !service.list_events(principal, EventFilter::default(), one).await?.items.is_empty();
        let has_endpoint = has_delivery
            || !visit.may(Permission::EndpointsRead)
            || !service.list_endpoints(principal, EndpointFilter::default(), one).await?.items.is_empty();
        Ok(Self { has_endpoint, has_event, has_delivery })
    }

    const fn is_done(&self) -> bool {
        self.has_delivery
    }
}

fn first_steps(visit: &Visit, steps: &Steps) -> Markup {
    let url = |path: &str| format!("{}{}{path}", visit.site.origin, visit.site.prefix);
    let event_type = visit.service().catalogue().names().next().map(ToString::to_string).unwrap_or_default();
    let command = |path: &str, body: &str| {
        let command = curl::command("POST", &url(path), &[("content-type", "application/json")], Some(body));
        command.replacen(" \\\n  --header", " \\\n  --header \"authorization: Bearer $KEY\" \\\n  --header", 1)
    };
    let endpoint = format!(
        "{{\"name\": \"My receiver\", \"url\": \"https://example.com/hooks\", \"events\": [\"{event_type}\"]}}"
    );
    let event = format!("{{\"type\": \"{event_type}\", \"data\": {{\"id\": \"1\"}}}}");
    let step = |is_done: bool, title: &str, body: Markup| {
        html! {
            li.first-step {
                h2 { @if is_done { span.state.state-good { (icon::CHECK) "Done" } " " } (title) }
                @if !is_done { (body) }
            }
        }
    };
    html! {
        p.lead { "Three steps to the first webhook. Each is ticked here as it is done." }
        ol.first-steps #steps data-live="swap" {
            (step(steps.has_endpoint, "Make an endpoint", html! {
                p { "It is the URL that receives events. Put your API key into the variable " code { "KEY" } "." }
                (code::block("Make an endpoint", &command("/v1/webhook-endpoints", &endpoint)))
            }))
            (step(steps.has_event, "Publish an event", html! {
                (code::block("Publish an event", &command("/v1/events", &event)))
            }))
            (step(steps.has_delivery, "See it arrive", html! {
                p { "The delivery appears under " a href=(visit.link("/deliveries")) { "Deliveries" } ". If it fails, its page says why." }
            }))
        }
    }
}

async fn running(visit: &Visit) -> Result<Markup, ServiceError> {
    let (service, principal) = (visit.service(), &visit.principal);
    let now = visit.now();
    let period = Period::of(visit);
    let needs = needs(visit).await?;
    if !visit.may(Permission::DeliveriesRead) {
        return Ok(needs);
    }
    let report = service.stats(principal, &period.query(now, None)).await?;
    let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Failed], ..DeliveryFilter::default() };
    let page = PageRequest::parse(Some(FAILURES), None).unwrap_or(PageRequest::FIRST);
    let failures = service.list_deliveries(principal, filter, page).await?;
    let rows = deliveries::rows(visit, &failures.items).await?;
    Ok(html! {
        div #needs data-live="swap" { (needs) }
        h2 { "Activity" }
        (period.links(visit, ""))
        div #numbers data-live="swap" { (numbers(&report, &period, now)) }
        div #charts data-live="swap" { (statistics::charts(&report.series)) }
        h2 { "Newest failures" }
        @if failures.items.is_empty() {
            p.soft {
                "No delivery has failed for good among those that are kept. One whose attempts failed "
                a href=(visit.link("/deliveries?status=pending")) { "waits for its next attempt" } "."
            }
        }
        @else { (delivery_rows::table(&failures.items, &rows, false)) }
    })
}

fn numbers(report: &StatsReport, period: &Period, now: Timestamp) -> Markup {
    let totals = report.series.totals();
    let minutes = (period.length.as_secs() / 60).max(1);
    let waits = totals.first_attempts;
    let wait = |percent| waits.percentile_ms(percent).map_or_else(|| "–".to_owned(), statistics::millis);
    let queue = &report.queue;
    let pairs = [
        ("Events a minute", per_minute(totals.events.unwrap_or_default(), minutes), ""),
        ("Deliveries a minute", per_minute(totals.created, minutes), ""),
        ("Attempts that succeeded", success(&totals), ""),
        ("First attempt, half within", wait(50), ""),
        ("First attempt, 95 % within", wait(95), ""),
        ("Waiting now", queue.pending.to_string(), if queue.is_exact() { "" } else { " or more" }),
    ];
    html! {
        dl.numbers {
            @for (name, value, rest) in pairs { div { dt { (name) } dd { (value) small { (rest) } } } }
            div { dt { "Oldest that is due" } dd { @match queue.oldest_due_at { Some(at) => (time::rough(now.since(at))), None => "none" } } }
        }
        (period.incomplete(&report.series))
    }
}

/// A rate with one decimal below ten.
fn per_minute(count: u64, minutes: u64) -> String {
    let tenths = count * 10 / minutes;
    match (count, tenths) {
        (0, _) => "0".to_owned(),
        (_, 0) => "< 0.1".to_owned(),
        (_, 1..100) => format!("{}.{}", tenths / 10, tenths % 10),
        _ => (tenths / 10).to_string(),
    }
}

/// The share of attempts that the receiver took, of those that were somebody's fault or none's. Rounded down, so that
/// 100 % means all.
fn success(counts: &Counts) -> String {
    let delivered = counts.attempts_of(AttemptOutcome::Delivered);
    match delivered + statistics::failed(counts) {
        0 => "–".to_owned(),
        sum => format!("{}.{} %", delivered * 100 / sum, delivered * 1000 / sum % 10),
    }
}

/// What needs somebody, the most urgent first. Each has its cause and one action.
async fn needs(visit: &Visit) -> Result<Markup, ServiceError> {
    let (service, principal) = (visit.service(), &visit.principal);
    let page = PageRequest::parse(Some(NEEDY), None).unwrap_or(PageRequest::FIRST);
    let stopped =
        if visit.may(Permission::DeliveriesRead) { service.blocking_deliveries(principal).await? } else { Vec::new() };
    let mut endpoints = Vec::new();
    let mut has_more = false;
    if visit.may(Permission::EndpointsRead) {
        for state in [EndpointState::Disabled, EndpointState::Paused, EndpointState::Failing] {
            let filter = EndpointFilter { states: vec![state], ..EndpointFilter::default() };
            let found = service.list_endpoints(principal, filter, page).await?;
            has_more |= found.next.is_some();
            endpoints.extend(found.items);
        }
    }
    let now = visit.now();
    let soon = |endpoint: &Endpoint| endpoint.is_active && disables_at(endpoint).is_some_and(|at| at.since(now) < SOON);
    // Stable: within a group they stay as they were found.
    endpoints.sort_by_key(|endpoint| (endpoint.is_active, !soon(endpoint)));
    // Who sees only a part cannot be told about the whole.
    let sees_all = visit.may(Permission::DeliveriesRead) && visit.may(Permission::EndpointsRead);
    let since = match sees_all && stopped.is_empty() && endpoints.is_empty() {
        true => Some(service.nothing_wrong_since(principal).await?),
        false => None,
    };
    Ok(html! {
        h2 { "Needs attention" }
        @if stopped.is_empty() && endpoints.is_empty() {
            p.nothing-wrong {
                (icon::CHECK) " Nothing. No order has stopped, and no endpoint is failing, paused or disabled. "
                @if let Some(since) = since { (nothing_wrong(since)) }
            }
        } @else {
            ul.needs {
                @for delivery in &stopped { (stopped_order(visit, delivery)) }
                @for endpoint in &endpoints { (endpoint_in_need(visit, endpoint, soon(endpoint))) }
            }
            @if has_more { p { a href=(visit.link("/endpoints?state=failing,paused,disabled")) { "All endpoints in need" } } }
        }
    })
}

/// Since when nothing has needed anybody, as far as the store knows.
fn nothing_wrong(since: NothingWrong) -> Markup {
    html! {
        @match since {
            NothingWrong::SinceTrouble(at) => { "Nothing wrong since " (time::instant(at)) "." },
            NothingWrong::SinceCreation(at) => { "Nothing wrong since this workspace was made, " (time::instant(at)) "." },
            NothingWrong::SinceNoted(at) => { "Nothing wrong since " (time::instant(at)) ", when this began to be recorded." },
        }
    }
}

/// An endpoint is in need of help before the server disables it.
const SOON: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

fn disables_at(endpoint: &Endpoint) -> Option<Timestamp> {
    let streak = endpoint.failure_streak.as_ref()?;
    (streak.failures >= limits::FAILING_FAILURES).then(|| streak.disables_at())
}

fn stopped_order(visit: &Visit, delivery: &Delivery) -> Markup {
    html! {
        li {
            (state::state(state::Tone::Bad, icon::WARNING, "order stopped"))
            div {
                "The strict order of " code { (delivery.endpoint_id) } " has stopped at a delivery of " (delivery.event_type) " that failed. Deliveries behind it wait."
            }
            a.button href=(visit.link(&format!("/deliveries/{}", delivery.id))) { "Retry or skip it" }
        }
    }
}

fn endpoint_in_need(visit: &Visit, endpoint: &Endpoint, is_soon: bool) -> Markup {
    let now = visit.now();
    let streak = endpoint.failure_streak.as_ref();
    let since = streak.map(|streak| html! { " since " (time::instant(streak.first_failure_at)) });
    let path = visit.link(&format!("/endpoints/{}", endpoint.id));
    let failures = format!("/deliveries?endpointId={}&status=pending", endpoint.id);
    html! {
        li {
            (state::endpoint(endpoint))
            div {
                a href=(path) { (endpoint.name) } " "
                @match endpoint.disabled_reason {
                    Some(reason) if !endpoint.is_active => { (disabled_because(reason)) }
                    _ => {
                        @if let Some(streak) = streak { (streak.failures) " attempts failed in a row" (since.unwrap_or_default()) "." }
                        @if let Some(pause) = streak.and_then(|streak| streak.pause.as_ref()) { " The next probe is due " (time::due(pause.next_probe_at, now)) "." }
                        @if let (true, Some(at)) = (is_soon, disables_at(endpoint)) { strong { " It is disabled " (time::due(at, now)) " unless an attempt succeeds." } }
                    }
                }
            }
            @if endpoint.is_active { a.button href=(visit.link(&failures)) { "See what waits" } }
            @else { a.button href=(path) { "Open it to switch it on" } }
        }
    }
}

const fn disabled_because(reason: postrider_domain::endpoint::DisabledReason) -> &'static str {
    use postrider_domain::endpoint::DisabledReason::{Failing, Gone, SsrfBlocked};
    match reason {
        Gone => "answered 410 Gone: the receiver wants no more events.",
        Failing => "had no success for five days.",
        SsrfBlocked => "has a host whose address may not be called.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_as_many_digits_as_it_needs() {
        assert_eq!([0, 1, 15, 95, 1_000].map(|count| per_minute(count, 10)), ["0", "0.1", "1.5", "9.5", "100"]);
        assert_eq!(per_minute(1, 1_440), "< 0.1");
    }
}
