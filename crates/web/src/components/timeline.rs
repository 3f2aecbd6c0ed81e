//! A delivery from its acceptance to its end: the sentence that says where it is, the steps, and an attempt in full.

use maud::{Markup, html};

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{Delivery, DeliveryStatus};
use postrider_domain::endpoint::Endpoint;
use postrider_domain::endpoint_health::HealthState;
use postrider_domain::time::Timestamp;

use super::icon::{self, Icon};
use super::{body, headers, list, outcome, phases, time};

/// Where the event is, why, and what is next.
pub fn answer(delivery: &Delivery, attempts: &[Attempt], endpoint: Option<&Endpoint>, now: Timestamp) -> Markup {
    let last = attempts.last();
    let tone = match delivery.status {
        DeliveryStatus::Delivered => "answer answer-good",
        DeliveryStatus::Pending => "answer answer-waiting",
        DeliveryStatus::Failed => "answer answer-bad",
        DeliveryStatus::Skipped | DeliveryStatus::Cancelled | DeliveryStatus::Simulated => "answer",
    };
    html! {
        div class=(tone) {
            p { (headline(delivery, last, endpoint, now)) }
            p { (next(delivery, last, endpoint)) }
        }
    }
}

fn headline(delivery: &Delivery, last: Option<&Attempt>, endpoint: Option<&Endpoint>, now: Timestamp) -> Markup {
    let created = delivery.id.created_at();
    let ended = delivery.completed_at.unwrap_or(now);
    let last_words = last.map(|attempt| outcome::sentence(attempt.outcome, attempt.response_status));
    let reason = delivery.reason.map(outcome::reason);
    html! {
        @match delivery.status {
            DeliveryStatus::Delivered => {
                strong { "Delivered" } " by attempt " (delivery.attempt_count) ", " (time::rough(ended.since(created))) " after it was accepted. "
                @if let Some(words) = last_words { (words) "." }
            }
            DeliveryStatus::Failed => {
                strong { "Failed" } " after " (attempts_in_words(delivery.attempt_count)) ". "
                @if let Some(reason) = reason { (reason) ". " }
                @if let Some(words) = last_words { (words) "." }
            }
            DeliveryStatus::Skipped => { strong { "Not sent" } ". " @if let Some(reason) = reason { (reason) "." } }
            DeliveryStatus::Cancelled => { strong { "Cancelled" } ". " @if let Some(reason) = reason { (reason) "." } }
            DeliveryStatus::Simulated => { strong { "Simulated" } ": rendered and signed, but not sent, because it is of test mode." }
            DeliveryStatus::Pending => {
                strong { "Waiting" }
                @match delivery.next_attempt_at {
                    Some(at) => { " for attempt " (delivery.attempt_count + 1) ", due " (time::due(at, now)) ". " }
                    None => { ". " (held_by(endpoint, now)) " " }
                }
                @if let Some(words) = last_words { "The last attempt: " (words) "." }
            }
        }
    }
}

/// What a delivery without a due instant waits for.
fn held_by(endpoint: Option<&Endpoint>, now: Timestamp) -> Markup {
    let streak = endpoint.and_then(|endpoint| endpoint.failure_streak.as_ref());
    html! {
        @match endpoint {
            Some(endpoint) if !endpoint.is_active => {
                "Its endpoint is " @if endpoint.disabled_reason.is_some() { "disabled" } @else { "switched off" } ". It goes on when the endpoint is switched on."
            }
            Some(_) if streak.is_some_and(|streak| streak.state() == HealthState::Paused) => {
                "Its endpoint is paused because it fails."
                @if let Some(pause) = streak.and_then(|streak| streak.pause.as_ref()) { " The next probe is due " (time::due(pause.next_probe_at, now)) "." }
            }
            _ => { "It waits behind an earlier delivery, or for its endpoint." }
        }
    }
}

fn next(delivery: &Delivery, last: Option<&Attempt>, endpoint: Option<&Endpoint>) -> Markup {
    html! {
        @match delivery.status {
            DeliveryStatus::Failed if delivery.is_blocking => { "The strict order of its endpoint has stopped here: retry it or skip it, and the deliveries behind it go on." }
            DeliveryStatus::Failed | DeliveryStatus::Skipped => { "Nothing more happens by itself. A retry sends it again." }
            DeliveryStatus::Pending if last.is_some_and(|attempt| attempt.outcome.fault() == postrider_domain::attempt::Fault::Sender) => {
                "The fault is on this server’s side: the attempt is repeated without using the retry schedule."
            }
            DeliveryStatus::Pending if last.is_some() => { "It is tried until its retry schedule ends." }
            DeliveryStatus::Pending if endpoint.is_some_and(|endpoint| !endpoint.is_active) => { "After 14 days it is given up." }
            DeliveryStatus::Pending => { "It is new." }
            DeliveryStatus::Delivered | DeliveryStatus::Cancelled | DeliveryStatus::Simulated => { "Nothing more happens." }
        }
    }
}

fn attempts_in_words(count: u32) -> String {
    match count {
        0 => "no attempt".to_owned(),
        1 => "1 attempt".to_owned(),
        many => format!("{many} attempts"),
    }
}

/// The steps: accepted, each attempt, what is next, the end.
pub fn steps(delivery: &Delivery, attempts: &[Attempt], now: Timestamp) -> Markup {
    html! {
        ol.timeline {
            (step("step step-good", icon::CHECK, "Accepted", html! { (time::instant(delivery.id.created_at())) }))
            @for attempt in attempts {
                @let (class, icon) = step_look(attempt);
                @let what = html! { "Attempt " (attempt.number) ": " (outcome::sentence(attempt.outcome, attempt.response_status)) };
                @let when = html! { (time::instant(attempt.started_at)) ", took " (attempt.duration_ms) " ms" };
                li class=(class) { (icon) div { a href={ "#attempt-" (attempt.number) } { (what) } span.sub { (when) } } }
            }
            @if delivery.status == DeliveryStatus::Pending {
                @let when = html! { @match delivery.next_attempt_at { Some(at) => { "due " (time::due(at, now)) }, None => "nothing is scheduled now" } };
                (step("step step-ghost", icon::CLOCK, &format!("Attempt {}", delivery.attempt_count + 1), when))
            }
            @if let Some(ended) = delivery.completed_at {
                @let good = matches!(delivery.status, DeliveryStatus::Delivered);
                @let (class, icon) = if good { ("step step-good", icon::CHECK) } else { ("step step-end", icon::CROSS) };
                (step(class, icon, delivery.status.as_str(), time::instant(ended)))
            }
        }
    }
}

fn step(class: &str, icon: Icon, what: &str, when: Markup) -> Markup {
    html! { li class=(class) { (icon) div { (what) span.sub { (when) } } } }
}

const fn step_look(attempt: &Attempt) -> (&'static str, Icon) {
    use postrider_domain::attempt::{AttemptOutcome, Fault};
    match (attempt.outcome, attempt.outcome.fault()) {
        (AttemptOutcome::Delivered, _) => ("step step-good", icon::CHECK),
        (AttemptOutcome::Simulated, _) => ("step", icon::FLASK),
        (_, Fault::Receiver) => ("step step-bad", icon::CROSS),
        (_, Fault::Sender | Fault::Nobody) => ("step step-waiting", icon::WARNING),
    }
}

/// An attempt in full. `answer_at` leads to the bytes that are kept of the answer.
pub fn attempt(attempt: &Attempt, answer_at: &str) -> Markup {
    let mut pairs =
        vec![("Started", time::instant(attempt.started_at)), ("Took", html! { (attempt.duration_ms) " ms" })];
    if let Some(version) = attempt.http_version() {
        pairs.push(("Protocol", html! { "HTTP/" (version.as_str()) }));
    }
    if let Some(address) = attempt.remote_address {
        pairs.push(("Address", html! { code { (address) } }));
    }
    let fault = outcome::fault(attempt.outcome);
    if !fault.is_empty() {
        pairs.push(("Whose fault", html! { (fault) }));
    }
    if let Some(at) = attempt.next_attempt_at {
        let after = time::rough(at.since(attempt.started_at));
        pairs.push(("What followed", html! { "Due again " (after) " later, at " (time::instant(at)) }));
    }
    html! {
        p.attempt-outcome { (outcome::sentence(attempt.outcome, attempt.response_status)) "." }
        @if let Some(error) = &attempt.error { (super::code::block("Error", error)) }
        (list::facts(&pairs))
        @if let Some(phases) = &attempt.phases { (phases::bar(phases, attempt.duration_ms)) }
        @if !attempt.request_headers.is_empty() {
            details { summary { "Headers of the request, as sent" } (headers::table("Headers of the request", &attempt.request_headers)) }
        }
        @if !attempt.response_headers.is_empty() {
            details { summary { "Headers of the answer" } (headers::table("Headers of the answer", &attempt.response_headers)) }
        }
        @if let Some(bytes) = attempt.response_body.as_ref().filter(|bytes| !bytes.is_empty()) {
            h3 { "Body of the answer" @if bytes.len() >= 4096 { ", the first 4 KiB" } }
            (body::show("Body of the answer", bytes, answer_at))
        } @else if attempt.response_status.is_some() {
            p.soft { "The answer had no body." }
        }
    }
}
