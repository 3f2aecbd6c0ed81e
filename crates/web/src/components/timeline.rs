//! A delivery from its acceptance to its end: the steps, and an attempt in full.

use maud::{Markup, html};

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{Delivery, DeliveryStatus};
use postrider_domain::payload::PayloadState;
use postrider_domain::time::Timestamp;

use super::icon::{self, Icon};
use super::{body, headers, list, outcome, phases, time};
use crate::language::{say, say_text};

/// The steps: accepted, each attempt, what is next, the end.
pub fn steps(delivery: &Delivery, attempts: &[Attempt], now: Timestamp) -> Markup {
    html! {
        ol.timeline {
            (step("step step-good", icon::CHECK, say!("Accepted"), html! { (time::instant(delivery.id.created_at())) }))
            @for attempt in attempts {
                @let (class, icon) = step_look(attempt);
                @let what = html! { (say!("Attempt {}", attempt.number)) ": " (outcome::sentence(attempt.outcome, attempt.response_status)) };
                @let when = say!("{}, took {} ms", time::instant(attempt.started_at), attempt.duration_ms);
                li class=(class) { (icon) div { a href={ "#attempt-" (attempt.number) } { (what) } span.sub { (when) } } }
            }
            @if delivery.status == DeliveryStatus::Pending {
                @let is_under_way = delivery.queued.as_ref().is_some_and(|queued| queued.is_claimed);
                @let when = html! {
                    @match delivery.next_attempt_at {
                        _ if is_under_way => (say!("under way")),
                        Some(at) => (say!("due {}", time::due(at, now))),
                        None => (say!("nothing is scheduled now")),
                    }
                };
                // The attempt that is under way counts already, and is not in the list.
                @let number = attempts.last().map_or(0, |attempt| attempt.number) + 1;
                (step("step step-ghost", icon::CLOCK, &say_text!("Attempt {}", &number.to_string()), when))
            }
            @if let Some(ended) = delivery.completed_at {
                @let good = matches!(delivery.status, DeliveryStatus::Delivered);
                @let (class, icon) = if good { ("step step-good", icon::CHECK) } else { ("step step-end", icon::CROSS) };
                (step(class, icon, super::state::delivery_word(delivery.status), time::instant(ended)))
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
    let mut pairs = vec![
        (say!("Started"), time::instant(attempt.started_at)),
        (say!("Took"), html! { (attempt.duration_ms) " ms" }),
    ];
    if let Some(version) = attempt.http_version() {
        pairs.push((say!("Protocol"), html! { "HTTP/" (version.as_str()) }));
    }
    if let Some(address) = attempt.remote_address {
        pairs.push(("Address", html! { code { (address) } }));
    }
    let fault = outcome::fault(attempt.outcome);
    if !fault.is_empty() {
        pairs.push((say!("Whose fault"), html! { (fault) }));
    }
    if let Some(at) = attempt.next_attempt_at {
        let after = time::rough(at.since(attempt.started_at));
        pairs.push((say!("What followed"), say!("Due again {} later, at {}", after, time::instant(at))));
    }
    html! {
        p.attempt-outcome { (outcome::sentence(attempt.outcome, attempt.response_status)) "." }
        @if let Some(error) = &attempt.error { (super::code::block(say!("Error"), error)) }
        (list::facts(&pairs))
        @if let Some(phases) = &attempt.phases { (phases::bar(phases, attempt.duration_ms)) }
        @if !attempt.request_headers.is_empty() {
            details { summary { (say!("Headers of the request, as sent")) } (headers::table(say!("Headers of the request"), &attempt.request_headers)) }
        }
        @if !attempt.response_headers.is_empty() {
            details { summary { (say!("Headers of the answer")) } (headers::table(say!("Headers of the answer"), &attempt.response_headers)) }
        }
        @if attempt.payload != PayloadState::Kept {
            p.soft { (say!("The headers and bodies of this attempt are no longer stored: they are older than what is kept, or were erased.")) }
        } @else if let Some(bytes) = attempt.response_body.as_ref().filter(|bytes| !bytes.is_empty()) {
            h3 { @if bytes.len() >= 4096 { (say!("Body of the answer, the first 4 KiB")) } @else { (say!("Body of the answer")) } }
            (body::show(say!("Body of the answer"), bytes, answer_at))
        } @else if attempt.response_status.is_some() {
            p.soft { (say!("The answer had no body.")) }
        }
    }
}
