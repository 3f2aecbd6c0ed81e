//! Replays over several endpoints: "replay all these" of a list, the list of all replays, and the page of a job.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::id::ReplayId;
use postrider_domain::list_filter::{ListFilter, filter_from_pairs};
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;
use postrider_domain::replay::{Replay, ReplayCount, ReplayStatus, replayable};
use postrider_domain::time::Timestamp;
use postrider_service::{Idempotent, ServiceError, known_event};

use crate::components::field;
use crate::components::{code, icon, list, time};
use crate::failure::Failure;
use crate::form::Fields;
use crate::layout::Section;
use crate::list_query::ListQuery;
use crate::once;
use crate::visit::Visit;

use super::replay;

/// The pages of replays over several endpoints, below `base`.
pub fn routes(base: &str) -> Router {
    let at = |path: &str| format!("{base}{path}");
    Router::new()
        .route(&at("/deliveries/replay"), get(ask).post(start))
        .route(&at("/replays"), get(show_all))
        .route(&at("/replays/{id}"), get(show))
        .route(&at("/replays/{id}/stop"), post(stop))
}

/// The link of a list to the replay of all that it lists. None for a filter of nothing that can be sent again, and for
/// the list without a filter.
pub fn button(visit: &Visit, filter: &DeliveryFilter) -> Markup {
    let is_offered =
        visit.is_operator() && visit.may(Permission::ReplaysWrite) && replayable(filter.clone(), visit.now()).is_ok();
    html! {
        @if is_offered {
            a.button href=(visit.link(&form_path(filter))) { "Replay all these" }
        }
    }
}

fn form_path(filter: &DeliveryFilter) -> String {
    format!("/deliveries/replay?{}", query_of(filter))
}

fn query_of(filter: &DeliveryFilter) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(filter.pairs()).finish()
}

/// Counts what would be sent, and asks.
async fn ask(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::ReplaysWrite)?;
    let query: ListQuery<DeliveryFilter> = ListQuery::read(&visit);
    if !query.faults.0.is_empty() {
        let body = html! { h1 { "Replay all these" } (query.faults.summary()) (back(&visit, &query.filter)) };
        return Ok(visit.page_with(StatusCode::BAD_REQUEST, Section::Deliveries, "Replay", body));
    }
    let (filter, count) = visit.service().count_filtered(&visit.principal, query.filter).await?;
    let body = html! {
        h1 { "Replay all these" }
        p { "A replay sends deliveries again: the same events with the same bytes, each to its endpoint, signed with today's secret. It runs behind live traffic." }
        (counted(&filter, count))
        (list::facts(&filter_facts(&filter)))
        form.card action=(visit.link("/deliveries/replay")) method="post" {
            (once::token(&visit))
            @for (name, text) in filter.pairs() { input type="hidden" name=(name) value=(text); }
            div.actions {
                @if count.total > count.unavailable { button.primary type="submit" { "Start" } }
                (back(&visit, &filter))
            }
        }
        (code::api_call("POST", "/v1/webhook-deliveries/replay"))
    };
    Ok(visit.page(Section::Deliveries, "Replay", body))
}

fn back(visit: &Visit, filter: &DeliveryFilter) -> Markup {
    html! { a.button href=(visit.link(&format!("/deliveries?{}", query_of(filter)))) { "Back to the list" } }
}

/// What a replay would send.
fn counted(filter: &DeliveryFilter, count: ReplayCount) -> Markup {
    let ReplayCount { total, unavailable, counted_to } = count;
    html! {
        div.answer role="status" {
            @if total == 0 && counted_to.is_none() {
                p { "There is nothing to send again. What is pending or has arrived meanwhile is not repeated." }
            } @else {
                p { @if counted_to.is_some() { "At least " } (total) @if total == 1 { " delivery" } @else { " deliveries" } " would be sent again." }
                @if unavailable > 0 {
                    p { "Of " (unavailable) " the payload is past its retention or the endpoint is deleted. They cannot be sent." }
                }
                @if let Some(at) = counted_to {
                    p { "The count stopped at " (time::instant(at)) ", because there are so many. The replay goes on to the end." }
                }
                @if filter.statuses.contains(&DeliveryStatus::Delivered) {
                    p.warning role="note" { "Deliveries that have arrived are among these. Their receivers get them twice." }
                }
            }
        }
    }
}

/// The parameters of a filter in words.
fn filter_facts(filter: &DeliveryFilter) -> Vec<(&'static str, Markup)> {
    let words = |text: String| html! { (text.replace(',', ", ").replace('_', " ")) };
    let ids = |text: &str| html! { @for id in text.split(',') { code { (id) } " " } };
    filter
        .pairs()
        .into_iter()
        .map(|(name, text)| match name {
            "endpointId" => ("Endpoint", ids(&text)),
            "eventId" => ("Event", ids(&text)),
            "eventType" => ("Type", ids(&text)),
            "projectId" => ("Project", ids(&text)),
            "status" => ("Ended as", words(text)),
            "cause" => ("Made by", words(text)),
            "outcome" => ("Last attempt", words(text)),
            "responseStatus" => ("Answer", words(text)),
            "since" => ("Created from", filter.since.map_or_else(|| html! {}, time::instant)),
            _ => ("Created before", filter.until.map_or_else(|| html! {}, time::instant)),
        })
        .collect()
}

async fn start(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::ReplaysWrite)?;
    let form = Fields::read(body).await?;
    let pairs = DeliveryFilter::NAMES.iter().filter_map(|name| Some((*name, form.text(name)?)));
    let catalogue = visit.service().catalogue();
    let filter: DeliveryFilter = filter_from_pairs(pairs, &|event| known_event(catalogue, event))
        .map_err(|parameters| ServiceError::InvalidRequest { parameters })?;
    let (service, principal) = (Arc::clone(visit.service()), visit.principal.clone());
    let job = once::finish(&visit, &form, page_of_job, |idempotent| async move {
        service.start_filtered(&principal, filter, &idempotent).await
    })
    .await?;
    Ok(visit.done(&String::from_utf8_lossy(&job), "started"))
}

fn page_of_job(replay: &Replay) -> (u16, Bytes) {
    once::page(format!("/replays/{}", replay.id))
}

async fn show_all(visit: Visit) -> Result<Response, Failure> {
    let page = PageRequest::parse(None, visit.query.text("cursor")).map_err(ServiceError::from)?;
    let listed = visit.service().list_replays(&visit.principal, None, page).await?;
    let first_use = html! { p { "A replay sends many deliveries again. Start one from a filtered list of deliveries, or from the page of an endpoint." } };
    let body = html! {
        h1 { "Replays" }
        @if listed.items.is_empty() {
            (list::empty(icon::ARROW, "No replays", &first_use))
        } @else {
            div.table tabindex="0" role="region" aria-label="Replays" {
                table.stack {
                    caption { "Replays, newest first" }
                    thead { tr { th scope="col" { "Started" } th scope="col" { "Of" } th scope="col" { "State" } th.number scope="col" { "Progress" } } }
                    tbody #replays data-live="rows" {
                        @for replay in &listed.items { (row(&visit, replay)) }
                    }
                }
            }
        }
        (visit.page_links(listed.next))
        (code::api_call("GET", "/v1/replays"))
    };
    Ok(visit.page(Section::Deliveries, "Replays", body))
}

fn row(visit: &Visit, replay: &Replay) -> Markup {
    html! {
        tr id=(replay.id) {
            th scope="row" data-label="Started" {
                a href=(visit.link(&format!("/replays/{}", replay.id))) { (time::instant(replay.id.created_at())) }
            }
            td data-label="Of" {
                @match replay.selection.endpoint_id() {
                    Some(endpoint) => code { (endpoint) },
                    None => "a filter",
                }
            }
            td data-label="State" { (replay::status(replay.status)) }
            td.number data-label="Progress" { (replay.replayed + replay.unavailable) " of " (replay.total) }
        }
    }
}

async fn show(visit: Visit) -> Result<Response, Failure> {
    let id = visit.id::<ReplayId>(1)?;
    let replay = visit.service().get_replay(&visit.principal, None, id).await?;
    let body = html! {
        h1 { "Replay" }
        div #replay data-live="swap" { (job(&visit, &replay)) }
        (code::api_call("GET", &format!("/v1/replays/{id}")))
    };
    Ok(visit.page(Section::Deliveries, "Replay", body))
}

fn job(visit: &Visit, replay: &Replay) -> Markup {
    let filter = replay.selection.filter();
    let mut facts = vec![("State", replay::status(replay.status)), ("Replay", code::copyable(&replay.id.to_string()))];
    facts.extend(filter_facts(&filter));
    facts.push(("Started", time::instant(replay.id.created_at())));
    facts.push(("Ended", replay.completed_at.map_or_else(|| html! { "–" }, time::instant)));
    html! {
        (progress(replay, visit.now()))
        (list::facts(&facts))
        p { a href=(visit.link("/deliveries?cause=replay")) { "Deliveries that replays have made" } }
        @if visit.may(Permission::ReplaysWrite) {
            div.actions {
                @if replay.status == ReplayStatus::Running {
                    (field::action(&visit.link(&format!("/replays/{}/stop", replay.id)), "Stop", "danger", &[]))
                } @else if visit.is_operator() {
                    a.button href=(visit.link(&form_path(&filter))) { "Again" }
                }
            }
        }
    }
}

/// How far a replay is, how fast it goes and what is left.
fn progress(replay: &Replay, now: Timestamp) -> Markup {
    let done = replay.replayed + replay.unavailable;
    let (tone, sentence) = match replay.status {
        ReplayStatus::Running => ("waiting", "It is running."),
        ReplayStatus::Completed => ("good", "It is complete."),
        ReplayStatus::Stopped => ("bad", "It was stopped. What was queued until then is still sent."),
    };
    let took = replay.completed_at.unwrap_or(now).since(replay.id.created_at());
    let left = replay.total.saturating_sub(done);
    html! {
        div class={ "answer answer-" (tone) } {
            p { (sentence) " " (done) " of " @if replay.counted_to.is_some() { "at least " } (replay.total) " are through." }
            p { (replay.replayed) " were queued again, " (replay.unavailable) " could not be sent: their payload is past its retention or their endpoint is deleted." }
            @if replay.status == ReplayStatus::Running {
                p { (left) " are left. " (pace(replay.replayed, left, took)) }
            } @else if replay.status == ReplayStatus::Completed && left > 0 {
                p { (left) " were not needed any more: they had been sent again or had arrived meanwhile." }
            }
        }
        progress aria-label="Progress of the replay" max=(replay.total.max(1)) value=(done.min(replay.total.max(1))) {}
    }
}

/// The rate so far, and how long the rest takes at this rate.
fn pace(replayed: u64, left: u64, took: Duration) -> Markup {
    let seconds = took.as_secs().max(1);
    let per_minute = replayed.saturating_mul(60) / seconds;
    html! {
        @if replayed == 0 {
            "Live deliveries go first, and endpoints that are off wait."
        } @else {
            "It queues about " (per_minute.max(1)) " a minute"
            @if left > 0 { "; the rest takes about " (time::rough(Duration::from_secs((left.saturating_mul(seconds) / replayed).max(1)))) " at this rate" }
            "."
        }
    }
}

async fn stop(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::ReplaysWrite)?;
    let id = visit.id::<ReplayId>(1)?;
    let stopped = visit.service().stop_replay(&visit.principal, None, id, &Idempotent::default()).await;
    let replay = once::effect(stopped)?;
    Ok(visit.done(&format!("/replays/{}", replay.id), "stopped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_whole_run() {
        let words = |replayed, left, seconds| pace(replayed, left, Duration::from_secs(seconds)).into_string();
        assert!(words(600, 1_200, 60).starts_with("It queues about 600 a minute; the rest takes about 2"));
        assert_eq!(words(600, 0, 60), "It queues about 600 a minute.");
        assert!(words(0, 5, 60).contains("Live deliveries go first"));
    }
}
