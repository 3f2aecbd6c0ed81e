//! The sentence that answers "where is my event?": the state, the cause, what is next, when and why then, and when the
//! delivery is given up.

use maud::{Markup, html};

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{Delivery, DeliveryStatus};
use postrider_domain::explanation::{Explanation, NextStep, StateCause, WhyThen};
use postrider_domain::time::Timestamp;

use super::{outcome, time};
use crate::language::say;

/// `link` makes the URL of a path.
pub fn of_delivery(
    delivery: &Delivery,
    last: Option<&Attempt>,
    explanation: &Explanation,
    link: &dyn Fn(&str) -> String,
    now: Timestamp,
) -> Markup {
    let tone = match delivery.status {
        DeliveryStatus::Delivered => "answer answer-good",
        DeliveryStatus::Pending => "answer answer-waiting",
        DeliveryStatus::Failed => "answer answer-bad",
        DeliveryStatus::Skipped | DeliveryStatus::Cancelled | DeliveryStatus::Simulated => "answer",
    };
    html! {
        div class=(tone) {
            p { (state(delivery, now)) (cause(explanation, last, link)) }
            p { (next(explanation, now)) (gives_up(explanation, now)) }
        }
    }
}

fn state(delivery: &Delivery, now: Timestamp) -> Markup {
    let took = || time::rough(delivery.completed_at.unwrap_or(now).since(delivery.id.created_at()));
    let after = attempts(delivery.attempt_count);
    let strong = |word: &str| html! { strong { (word) } };
    html! {
        @match delivery.status {
            DeliveryStatus::Delivered => (say!("{} by attempt {}, {} after it was accepted.", strong(say!("Delivered")), delivery.attempt_count, took())),
            DeliveryStatus::Failed => (say!("{} after {}.", strong(say!("Failed")), after)),
            DeliveryStatus::Cancelled => (say!("{} after {}.", strong(say!("Cancelled")), after)),
            DeliveryStatus::Skipped => { (strong(say!("Not sent"))) "." },
            DeliveryStatus::Simulated => { (strong(say!("Simulated"))) "." },
            DeliveryStatus::Pending => { (strong(say!("Waiting"))) "." },
        }
        " "
    }
}

fn attempts(count: u32) -> Markup {
    match count {
        0 => html! { (say!("no attempt")) },
        1 => html! { (say!("1 attempt")) },
        many => say!("{} attempts", many),
    }
}

fn cause(explanation: &Explanation, last: Option<&Attempt>, link: &dyn Fn(&str) -> String) -> Markup {
    let last = last.map(|attempt| outcome::sentence(attempt.outcome, attempt.response_status));
    let last = |before: &str| html! { @if let Some(words) = &last { (before) (words) "." } };
    html! {
        @match explanation.cause {
            StateCause::NotAttempted => (say!("It has not been attempted yet.")),
            StateCause::AttemptUnderWay => (say!("An attempt is under way.")),
            StateCause::AttemptFailed => { (say!("The last attempt failed.")) (last(" ")) }
            StateCause::SenderFault => { (say!("The last attempt did not come about, which is not the receiver’s fault.")) (last(" ")) }
            StateCause::EndpointPaused => { (say!("Its endpoint is paused because its attempts fail.")) " " (last(say!("The last one: "))) }
            StateCause::EndpointOff => (say!("Its endpoint is switched off.")),
            StateCause::EndpointGone => (say!("Its endpoint is disabled: it answered 410 Gone.")),
            StateCause::EndpointFailing => (say!("Its endpoint is disabled: it had no success for days.")),
            StateCause::EndpointSsrfBlocked => (say!("Its endpoint is disabled: its host has an address that may not be called.")),
            StateCause::EndpointDeleted => (say!("Its endpoint is deleted.")),
            StateCause::BehindHead => {
                (say!("Its endpoint gets deliveries in strict order, and another one comes first"))
                @if let Some(head) = explanation.waits_for { ": " a href=(link(&format!("/deliveries/{head}"))) { (head) } }
                "."
            }
            StateCause::Received => (last("")),
            StateCause::Simulated => (say!("It is of test mode: rendered and signed, but not sent.")),
            StateCause::Ended(reason) | StateCause::BlocksOrder(reason) => { (outcome::reason(reason)) ". " (last(say!("The last attempt: "))) }
            StateCause::Unknown => (last("")),
        }
    }
}

fn next(explanation: &Explanation, now: Timestamp) -> Markup {
    let when = html! { @if let Some(at) = explanation.next_at { " " (time::due(at, now)) } };
    let why = why_then(explanation.why_then);
    html! {
        @match explanation.next {
            NextStep::Nothing if explanation.state == DeliveryStatus::Failed || explanation.state == DeliveryStatus::Skipped => {
                (say!("Nothing more happens by itself. A retry sends it again."))
            }
            NextStep::Nothing => (say!("Nothing more happens.")),
            NextStep::Attempt => (say!("The next attempt is due{}{}.", when, why)),
            NextStep::Lease => (say!("A consumer of its listener may lease it{}{}.", when, why)),
            NextStep::Outcome => (say!("Its outcome is shown here when it ends.")),
            NextStep::Probe => (say!("The endpoint’s next probe is due{}{}. It may be this delivery or another one that waits.", when, why)),
            NextStep::Activation => (say!("It goes on when somebody switches the endpoint on.")),
            NextStep::HeadEnds => (say!("It goes on when that one has ended, or was skipped.")),
            NextStep::SkipOrRetry => (say!("The strict order of its endpoint has stopped here: retry it or skip it, and the deliveries behind it go on.")),
            NextStep::Cancellation => (say!("It is cancelled with it.")),
        }
    }
}

fn why_then(why: Option<WhyThen>) -> Markup {
    html! {
        @match why {
            None | Some(WhyThen::AtOnce) => "",
            Some(WhyThen::Schedule { step, steps }) => (say!(", by wait {} of {} of the retry schedule", step, steps)),
            Some(WhyThen::RetryAfter) => (say!(", because the receiver asked for it with Retry-After")),
            Some(WhyThen::SenderFault) => (say!(", without using a wait of the retry schedule")),
            Some(WhyThen::Paused) => (say!(": probes come at growing intervals")),
            Some(WhyThen::Overloaded) => (say!(", because the receiver reported overload and the whole endpoint gets a break")),
        }
    }
}

fn gives_up(explanation: &Explanation, now: Timestamp) -> Markup {
    html! {
        @if let Some(at) = explanation.gives_up_at.filter(|at| *at > now) {
            " "
            @match explanation.next {
                NextStep::Attempt | NextStep::Lease => (say!("If every attempt fails, it is given up about {}, at {}.", time::due(at, now), time::instant(at))),
                _ => (say!("If nothing changes, it is given up {}, at {}.", time::due(at, now), time::instant(at))),
            }
        }
    }
}
