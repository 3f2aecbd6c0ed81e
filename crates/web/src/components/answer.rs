//! The sentence that answers "where is my event?": the state, the cause, what is next, when and why then, and when the
//! delivery is given up.

use maud::{Markup, html};

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{Delivery, DeliveryStatus};
use postrider_domain::explanation::{Explanation, NextStep, StateCause, WhyThen};
use postrider_domain::time::Timestamp;

use super::{outcome, time};

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
    let took = delivery.completed_at.unwrap_or(now).since(delivery.id.created_at());
    html! {
        @match delivery.status {
            DeliveryStatus::Delivered => { strong { "Delivered" } " by attempt " (delivery.attempt_count) ", " (time::rough(took)) " after it was accepted. " }
            DeliveryStatus::Failed => { strong { "Failed" } " after " (attempts(delivery.attempt_count)) ". " }
            DeliveryStatus::Skipped => { strong { "Not sent" } ". " }
            DeliveryStatus::Cancelled => { strong { "Cancelled" } " after " (attempts(delivery.attempt_count)) ". " }
            DeliveryStatus::Simulated => { strong { "Simulated" } ". " }
            DeliveryStatus::Pending => { strong { "Waiting" } ". " }
        }
    }
}

fn attempts(count: u32) -> String {
    match count {
        0 => "no attempt".to_owned(),
        1 => "1 attempt".to_owned(),
        many => format!("{many} attempts"),
    }
}

fn cause(explanation: &Explanation, last: Option<&Attempt>, link: &dyn Fn(&str) -> String) -> Markup {
    let last = last.map(|attempt| outcome::sentence(attempt.outcome, attempt.response_status));
    let last = |before: &str| html! { @if let Some(words) = &last { (before) (words) "." } };
    html! {
        @match explanation.cause {
            StateCause::NotAttempted => "It has not been attempted yet.",
            StateCause::AttemptUnderWay => "An attempt is under way.",
            StateCause::AttemptFailed => { "The last attempt failed. " (last("")) }
            StateCause::SenderFault => { "The last attempt did not come about, which is not the receiver’s fault. " (last("")) }
            StateCause::EndpointPaused => { "Its endpoint is paused because its attempts fail. " (last("The last one: ")) }
            StateCause::EndpointOff => "Its endpoint is switched off.",
            StateCause::EndpointGone => "Its endpoint is disabled: it answered 410 Gone.",
            StateCause::EndpointFailing => "Its endpoint is disabled: it had no success for days.",
            StateCause::EndpointSsrfBlocked => "Its endpoint is disabled: its host has an address that may not be called.",
            StateCause::EndpointDeleted => "Its endpoint is deleted.",
            StateCause::BehindHead => {
                "Its endpoint gets deliveries in strict order, and another one comes first"
                @if let Some(head) = explanation.waits_for { ": " a href=(link(&format!("/deliveries/{head}"))) { (head) } }
                "."
            }
            StateCause::Received => (last("")),
            StateCause::Simulated => "It is of test mode: rendered and signed, but not sent.",
            StateCause::Ended(reason) | StateCause::BlocksOrder(reason) => { (outcome::reason(reason)) ". " (last("The last attempt: ")) }
            StateCause::Unknown => (last("")),
        }
    }
}

fn next(explanation: &Explanation, now: Timestamp) -> Markup {
    let when = || html! { @if let Some(at) = explanation.next_at { " " (time::due(at, now)) } };
    html! {
        @match explanation.next {
            NextStep::Nothing if explanation.state == DeliveryStatus::Failed || explanation.state == DeliveryStatus::Skipped => {
                "Nothing more happens by itself. A retry sends it again."
            }
            NextStep::Nothing => "Nothing more happens.",
            NextStep::Attempt => { "The next attempt is due" (when()) (why_then(explanation.why_then)) "." }
            NextStep::Outcome => "Its outcome is shown here when it ends.",
            NextStep::Probe => { "The endpoint’s next probe is due" (when()) (why_then(explanation.why_then)) ". It may be this delivery or another one that waits." }
            NextStep::Activation => "It goes on when somebody switches the endpoint on.",
            NextStep::HeadEnds => "It goes on when that one has ended, or was skipped.",
            NextStep::SkipOrRetry => "The strict order of its endpoint has stopped here: retry it or skip it, and the deliveries behind it go on.",
            NextStep::Cancellation => "It is cancelled with it.",
        }
    }
}

fn why_then(why: Option<WhyThen>) -> Markup {
    html! {
        @match why {
            None | Some(WhyThen::AtOnce) => "",
            Some(WhyThen::Schedule { step, steps }) => { ", by wait " (step) " of " (steps) " of the retry schedule" }
            Some(WhyThen::RetryAfter) => ", because the receiver asked for it with Retry-After",
            Some(WhyThen::SenderFault) => ", without using a wait of the retry schedule",
            Some(WhyThen::Paused) => ": probes come at growing intervals",
            Some(WhyThen::Overloaded) => ", because the receiver reported overload and the whole endpoint gets a break",
        }
    }
}

fn gives_up(explanation: &Explanation, now: Timestamp) -> Markup {
    html! {
        @if let Some(at) = explanation.gives_up_at.filter(|at| *at > now) {
            @match explanation.next {
                NextStep::Attempt => { " If every attempt fails, it is given up about " (time::due(at, now)) }
                _ => { " If nothing changes, it is given up " (time::due(at, now)) }
            }
            ", at " (time::instant(at)) "."
        }
    }
}
