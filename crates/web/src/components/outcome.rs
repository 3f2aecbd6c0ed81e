//! How attempts and deliveries ended, in words.

use maud::{Markup, html};

use postrider_domain::attempt::{AttemptOutcome, Fault};
use postrider_domain::delivery::{DeliveryCause, EndReason};

use super::icon;
use super::state::{Tone, state};
use crate::language::{say, say_text};

/// The outcome as a sentence without a full stop: `The receiver answered 503 Service Unavailable`.
pub fn sentence(outcome: AttemptOutcome, response_status: Option<u16>) -> String {
    let answered = || match response_status {
        Some(status) => say_text!("The receiver answered {}", &status_words(status)),
        None => say!("The receiver answered with an error").to_owned(),
    };
    let fixed = match outcome {
        AttemptOutcome::Delivered | AttemptOutcome::HttpError => return answered(),
        AttemptOutcome::Redirect => return say_text!("{}; redirects are not followed", &answered()),
        AttemptOutcome::Gone => return say_text!("{}: it wants no more events", &answered()),
        AttemptOutcome::Timeout => say!("The receiver did not answer in time"),
        AttemptOutcome::DnsFailed => say!("The host name has no address"),
        AttemptOutcome::ConnectFailed => say!("No connection to the receiver"),
        AttemptOutcome::TlsFailed => say!("The TLS handshake failed"),
        AttemptOutcome::ConnectionClosed => say!("The connection closed before the answer was complete"),
        AttemptOutcome::InvalidResponse => say!("The answer is not valid HTTP"),
        AttemptOutcome::SsrfBlocked => say!("The host has an address that may not be called"),
        AttemptOutcome::Simulated => say!("Rendered and signed, not sent: test mode"),
        AttemptOutcome::Abandoned => say!("The server stopped during the attempt"),
        AttemptOutcome::InternalError => say!("A fault of this server"),
        AttemptOutcome::ProxyFailed => "The forward proxy of this server did not work",
        AttemptOutcome::ProxyRefused => "The forward proxy of this server refused the address",
        AttemptOutcome::DnsUnavailable => "No name server could be reached",
    };
    fixed.to_owned()
}

/// The outcome in a few words, for a row: `503`, `timeout`.
pub fn short(outcome: AttemptOutcome, response_status: Option<u16>) -> String {
    match response_status {
        Some(status) if outcome == AttemptOutcome::HttpError => status.to_string(),
        Some(status) => format!("{} {status}", word(outcome)),
        None => word(outcome).to_owned(),
    }
}

/// The outcome as the API writes it, with spaces.
pub fn word(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Delivered => say!("delivered"),
        AttemptOutcome::HttpError => say!("error status"),
        AttemptOutcome::Redirect => say!("redirect"),
        AttemptOutcome::Gone => say!("gone"),
        AttemptOutcome::Timeout => say!("timeout"),
        AttemptOutcome::DnsFailed => say!("no address"),
        AttemptOutcome::ConnectFailed => say!("no connection"),
        AttemptOutcome::TlsFailed => say!("TLS failed"),
        AttemptOutcome::ConnectionClosed => say!("connection closed"),
        AttemptOutcome::InvalidResponse => say!("invalid answer"),
        AttemptOutcome::SsrfBlocked => say!("address blocked"),
        AttemptOutcome::Simulated => say!("simulated"),
        AttemptOutcome::Abandoned => say!("abandoned"),
        AttemptOutcome::InternalError => say!("our error"),
        AttemptOutcome::ProxyFailed => "proxy failed",
        AttemptOutcome::ProxyRefused => "proxy refused",
        AttemptOutcome::DnsUnavailable => "no name server",
    }
}

/// A status with its standard phrase, if it has one: `503 Service Unavailable`.
pub fn status_words(status: u16) -> String {
    let phrase = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    phrase.map_or_else(|| status.to_string(), |phrase| format!("{status} {phrase}"))
}

/// Whose fault an outcome is, for the reader who may have to act.
pub fn fault(outcome: AttemptOutcome) -> &'static str {
    match (outcome, outcome.fault()) {
        (AttemptOutcome::Abandoned, _) => say!("Nobody’s fault: it uses no step of the schedule"),
        (_, Fault::Nobody) => "",
        (_, Fault::Receiver) => say!("The receiver’s side"),
        (_, Fault::Sender) => say!("This server’s side: it uses no step of the schedule"),
    }
}

pub fn attempt_state(outcome: AttemptOutcome, response_status: Option<u16>) -> Markup {
    let (tone, icon) = match (outcome, outcome.fault()) {
        (AttemptOutcome::Delivered, _) => (Tone::Good, icon::CHECK),
        (AttemptOutcome::Simulated, _) => (Tone::Neutral, icon::FLASK),
        (_, Fault::Receiver) => (Tone::Bad, icon::CROSS),
        (_, Fault::Sender | Fault::Nobody) => (Tone::Waiting, icon::WARNING),
    };
    state(tone, icon, &short(outcome, response_status))
}

/// Why a delivery ended without success, as a sentence without a full stop.
pub fn reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Exhausted => say!("The retry schedule has no step left"),
        EndReason::Expired => say!("It waited 14 days behind an endpoint that was off or paused"),
        EndReason::Inactive => say!("The endpoint was switched off when the event was accepted"),
        EndReason::DisabledGone => {
            say!("The endpoint was disabled when the event was accepted: it had answered 410 Gone")
        }
        EndReason::DisabledFailing => {
            say!("The endpoint was disabled when the event was accepted: it had failed for five days")
        }
        EndReason::DisabledSsrfBlocked => {
            say!(
                "The endpoint was disabled when the event was accepted: its host had an address that may not be called"
            )
        }
        EndReason::EndpointDeleted => say!("The endpoint was deleted"),
        EndReason::EventGone => say!("The event was removed before the delivery ended"),
        EndReason::Erased => say!("The content of the event was erased"),
    }
}

/// The reason in a few words, for a row.
pub fn short_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Exhausted => say!("exhausted"),
        EndReason::Expired => say!("expired"),
        EndReason::Inactive => say!("inactive"),
        EndReason::DisabledGone => say!("disabled gone"),
        EndReason::DisabledFailing => say!("disabled failing"),
        EndReason::DisabledSsrfBlocked => say!("disabled ssrf blocked"),
        EndReason::EndpointDeleted => say!("endpoint deleted"),
        EndReason::EventGone => say!("event gone"),
        EndReason::Erased => say!("erased"),
    }
}

pub fn cause(cause: DeliveryCause) -> Markup {
    let words = match cause {
        DeliveryCause::Event => say!("the event"),
        DeliveryCause::Retry => say!("a retry by hand"),
        DeliveryCause::Replay => say!("a replay"),
        DeliveryCause::Test => say!("a test"),
    };
    html! { (words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_words_of_its_own() {
        let sentences: std::collections::HashSet<_> =
            AttemptOutcome::ALL.iter().map(|outcome| sentence(*outcome, Some(503))).collect();
        // An answer reads alike whether its status is a success or not.
        assert_eq!(sentences.len(), AttemptOutcome::ALL.len() - 1);
        assert_eq!(sentence(AttemptOutcome::HttpError, Some(503)), "The receiver answered 503 Service Unavailable");
        assert_eq!(sentence(AttemptOutcome::HttpError, Some(799)), "The receiver answered 799");
        assert_eq!(short(AttemptOutcome::Delivered, Some(204)), "delivered 204");
        assert_eq!(short(AttemptOutcome::HttpError, Some(503)), "503");
        assert_eq!(short(AttemptOutcome::Timeout, None), "timeout");
    }
}
