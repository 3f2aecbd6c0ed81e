//! Replays of an endpoint: the form that counts and starts one, and the page of the job.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::Endpoint;
use postrider_domain::id::{EndpointId, ReplayId};
use postrider_domain::permission::Permission;
use postrider_domain::replay::{
    REPLAYABLE, REPLAYED_BY_DEFAULT, Replay, ReplayCount, ReplayRange, ReplaySelection, ReplayStatus,
};
use postrider_domain::time::Timestamp;
use postrider_service::Idempotent;

use crate::components::field::{self, Choice, Faults, TextField};
use crate::components::icon;
use crate::components::state::{self, Tone};
use crate::components::{code, list, time};
use crate::failure::Failure;
use crate::form::Fields;
use crate::language::{say, say_text};
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

pub async fn show_form(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::ReplaysWrite)?;
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let mut form = visit.query.clone();
    if form.text("since").is_none() {
        let day_ago = visit.now().minus(Duration::from_secs(24 * 3600));
        form = form.with("since", minute(day_ago));
        for status in REPLAYED_BY_DEFAULT {
            form = form.with("statuses", status.as_str());
        }
    }
    Ok(form_page(&visit, StatusCode::OK, &endpoint, &form, &Faults::default(), None))
}

/// Counts, or starts if the button says so.
pub async fn submit(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::ReplaysWrite)?;
    let form = Fields::read(body).await?;
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let range = match range_of(&visit, &form) {
        Ok(range) => range,
        Err(faults) => return Ok(form_page(&visit, StatusCode::BAD_REQUEST, &endpoint, &form, &faults, None)),
    };
    if !form.is_on("start") {
        let count = visit.service().count_replay(&visit.principal, endpoint.id, &range).await?;
        let counted = Some((range, count));
        return Ok(form_page(&visit, StatusCode::OK, &endpoint, &form, &Faults::default(), counted));
    }
    let (service, principal, id) = (Arc::clone(visit.service()), visit.principal.clone(), endpoint.id);
    let job = once::finish(&visit, &form, id_of_job, |idempotent| async move {
        service.start_replay(&principal, id, range, &idempotent).await
    })
    .await?;
    Ok(visit.done(&job_path(endpoint.id, String::from_utf8_lossy(&job)), "started"))
}

fn id_of_job(replay: &Replay) -> (u16, Bytes) {
    once::page(replay.id.to_string())
}

pub fn job_path(endpoint: EndpointId, replay: impl Display) -> String {
    format!("/endpoints/{endpoint}/replays/{replay}")
}

/// The range of a replay of an endpoint. The replay of a customer from whom types are hidden is kept as a filter.
pub fn range_of_job(replay: &Replay) -> Option<ReplayRange> {
    match &replay.selection {
        ReplaySelection::Endpoint { range, .. } => Some(range.clone()),
        ReplaySelection::Filter(filter) => {
            let DeliveryFilter { since, until, statuses, .. } = &**filter;
            Some(ReplayRange { since: (*since)?, until: (*until)?, statuses: statuses.clone() })
        }
    }
}

fn range_of(visit: &Visit, form: &Fields) -> Result<ReplayRange, Faults> {
    let mut faults = Faults::default();
    let since = faults
        .read("since", instant(form.text("since")).and_then(|at| at.ok_or_else(|| say!("is required").to_owned())));
    let until = faults.read("until", instant(form.text("until"))).flatten().unwrap_or_else(|| visit.now());
    let mut statuses = Vec::new();
    for text in form.all("statuses") {
        match DeliveryStatus::parse(text).filter(|status| REPLAYABLE.contains(status)) {
            Some(status) if !statuses.contains(&status) => statuses.push(status),
            Some(_) => {}
            None => faults.0.push(("statuses".to_owned(), say_text!("{} cannot be replayed", text))),
        }
    }
    if statuses.is_empty() {
        faults.0.push(("statuses".to_owned(), say!("Choose at least one.").to_owned()));
    }
    if since.is_some_and(|since| since >= until) {
        faults.0.push(("until".to_owned(), say!("must be later than the start").to_owned()));
    }
    match since {
        Some(since) if faults.0.is_empty() => Ok(ReplayRange { since, until, statuses }),
        _ => Err(faults),
    }
}

/// An instant as a browser's field writes it (`2026-05-15T08:21`, taken as UTC), or as ISO 8601.
fn instant(text: Option<&str>) -> Result<Option<Timestamp>, String> {
    let Some(text) = text else { return Ok(None) };
    let spellings = [text.to_owned(), format!("{text}Z"), format!("{text}:00Z")];
    let parsed = spellings.iter().find_map(|spelling| Timestamp::parse(spelling).ok());
    parsed.map(Some).ok_or_else(|| say!("must be a date and a time in UTC, like 2026-05-15T08:21").to_owned())
}

/// The text of a link's instant as a browser's field reads it, which knows no zone.
fn without_zone(text: &str) -> &str {
    text.strip_suffix('Z').unwrap_or(text)
}

/// As a browser's field of date and time reads it.
fn minute(at: Timestamp) -> String {
    at.to_string().chars().take("2026-05-15T08:21".len()).collect()
}

type Counted = Option<(ReplayRange, ReplayCount)>;

fn form_page(
    visit: &Visit,
    status: StatusCode,
    endpoint: &Endpoint,
    form: &Fields,
    faults: &Faults,
    counted: Counted,
) -> Response {
    let when = |name, label, hint, required| {
        let value = without_zone(form.raw(name).unwrap_or_default());
        TextField { name, label, hint, value, kind: "datetime-local", required }.render(faults)
    };
    let body = html! {
        h1 { (say!("Replay deliveries of {}", endpoint.name)) }
        p { (say!("A replay sends again what did not arrive: the same events with the same bytes, signed with today's secret. It runs behind live traffic.")) }
        @if !endpoint.is_active {
            p.warning role="note" { (icon::WARNING) (say!("The endpoint is not active. Switch it on first; a replay of an inactive endpoint cannot be started.")) }
        }
        (faults.summary())
        form.form.card action=(visit.link(&format!("/endpoints/{}/replay", endpoint.id))) method="post" {
            (once::token(visit))
            (when("since", say!("From"), say!("UTC. Deliveries that an event created at or after this instant."), true))
            (when("until", say!("To"), say!("UTC. Empty: now."), false))
            (field::group("statuses", say!("Deliveries that ended as"), "", faults, &statuses(form)))
            @if let Some((range, count)) = &counted { (answer_of_count(visit, endpoint, range, *count)) }
            div.actions {
                button.primary[counted.is_none()] type="submit" { (say!("Count")) }
                @if counted.as_ref().is_some_and(|(_, count)| count.total > 0) && endpoint.is_active {
                    button.primary type="submit" name="start" value="yes" { (say!("Start")) }
                }
                a.button href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (say!("Cancel")) }
            }
        }
        (visit.api_call("POST", &format!("/v1/webhook-endpoints/{}/replay", endpoint.id)))
    };
    visit.page_with(status, Section::Endpoints, say!("Replay"), body)
}

fn statuses(form: &Fields) -> Markup {
    html! {
        @for status in REPLAYABLE {
            @let name = status.as_str();
            (Choice { id: &format!("status-{name}"), name: "statuses", value: name, label: state::delivery_word(status), hint: "", is_on: form.all("statuses").any(|typed| typed == name) }.render())
        }
    }
}

/// What a replay would send, and how long that takes at least.
fn answer_of_count(visit: &Visit, endpoint: &Endpoint, range: &ReplayRange, count: ReplayCount) -> Markup {
    let ReplayCount { total, unavailable, .. } = count;
    let rate = endpoint.options.rate_limit.filter(|_| visit.is_operator()).map(|rate| u64::from(rate.per_second()));
    html! {
        div.answer role="status" {
            @if total == 0 {
                p { (say!("There is nothing to replay in this range.")) }
            } @else {
                @let (since, until) = (time::instant(range.since), time::instant(range.until));
                p {
                    @if total == 1 { (say!("1 delivery would be sent again, from {} to {}.", since, until)) }
                    @else { (say!("{} deliveries would be sent again, from {} to {}.", total, since, until)) }
                }
                @if unavailable > 0 { p { (say!("Of {} the payload is past its retention. They cannot be sent.", unavailable)) } }
                @match rate {
                    Some(rate) => p { "At the endpoint's rate of " (rate) " a second that takes at least " (time::rough(Duration::from_secs((total / rate).max(1)))) "." },
                    None => p { (say!("How long that takes depends on how fast the receiver answers.")) },
                }
            }
        }
    }
}

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let endpoint = visit.service().get_endpoint(&visit.principal, visit.id::<EndpointId>(1)?).await?;
    let id = visit.id::<ReplayId>(3)?;
    let replay = visit.service().get_replay(&visit.principal, Some(endpoint.id), id).await?;
    let body = html! {
        h1 { (say!("Replay of {}", endpoint.name)) }
        div #replay data-live="swap" { (job(&visit, &endpoint, &replay)) }
        (visit.api_call("GET", &format!("/v1/webhook-endpoints/{}/replays/{}", endpoint.id, replay.id)))
    };
    Ok(visit.page(Section::Endpoints, say!("Replay"), body))
}

fn job(visit: &Visit, endpoint: &Endpoint, replay: &Replay) -> Markup {
    let done = replay.replayed + replay.unavailable;
    let (tone, sentence) = match replay.status {
        ReplayStatus::Running if !endpoint.is_active => ("waiting", say!("It waits: the endpoint is not active.")),
        ReplayStatus::Running => ("waiting", say!("It is running.")),
        ReplayStatus::Completed => ("good", say!("It is complete.")),
        ReplayStatus::Stopped => ("bad", say!("It was stopped. What was queued until then is still sent.")),
    };
    let Some(range) = range_of_job(replay) else { return html! {} };
    let statuses: Vec<&str> = range.statuses.iter().map(|status| status.as_str()).collect();
    let words: Vec<&str> = range.statuses.iter().map(|status| state::delivery_word(*status)).collect();
    let again = format!(
        "/endpoints/{}/replay?since={}&until={}{}",
        endpoint.id,
        minute(range.since),
        minute(range.until.plus(Duration::from_secs(59))),
        statuses.iter().map(|status| format!("&statuses={status}")).collect::<String>()
    );
    html! {
        div class={ "answer answer-" (tone) } {
            p { (sentence) " " (say!("{} of {} are through.", done, replay.total)) }
            p { (say!("{} were queued again, {} could not be sent: their payload is past its retention.", replay.replayed, replay.unavailable)) }
        }
        progress aria-label=(say!("Progress of the replay")) max=(replay.total.max(1)) value=(done.min(replay.total.max(1))) {}
        (list::facts(&[
            (say!("State"), status(replay.status)),
            (say!("Replay"), code::copyable(&replay.id.to_string())),
            (say!("Endpoint"), html! { a href=(visit.link(&format!("/endpoints/{}", endpoint.id))) { (endpoint.name) } }),
            (say!("From"), time::instant(range.since)),
            (say!("To"), time::instant(range.until)),
            (say!("Deliveries that ended as"), html! { (words.join(", ")) }),
            (say!("Ended"), replay.completed_at.map_or_else(|| html! { "–" }, time::instant)),
        ]))
        @if visit.may(Permission::ReplaysWrite) {
            div.actions {
                @if replay.status == ReplayStatus::Running {
                    (field::action(&visit.link(&format!("{}/stop", job_path(endpoint.id, replay.id))), say!("Stop"), "danger", &[]))
                } @else {
                    a.button href=(visit.link(&again)) { (say!("Again")) }
                }
            }
        }
        @if visit.is_operator() { p { a href=(visit.link("/replays")) { "All replays" } } }
    }
}

pub fn status(status: ReplayStatus) -> Markup {
    match status {
        ReplayStatus::Running => state::state(Tone::Waiting, icon::CLOCK, say!("running")),
        ReplayStatus::Completed => state::state(Tone::Good, icon::CHECK, say!("completed")),
        ReplayStatus::Stopped => state::state(Tone::Neutral, icon::OFF, say!("stopped")),
    }
}

pub async fn stop(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::ReplaysWrite)?;
    let (endpoint, id) = (visit.id::<EndpointId>(1)?, visit.id::<ReplayId>(3)?);
    let stopped = visit.service().stop_replay(&visit.principal, Some(endpoint), id, &Idempotent::default()).await;
    let replay = once::effect(stopped)?;
    Ok(visit.done(&job_path(endpoint, replay.id), "stopped"))
}
