//! How attempts and deliveries ended, in words.

use maud::{Markup, html};

use postrider_domain::attempt::{AttemptOutcome, Fault};
use postrider_domain::delivery::{DeliveryCause, EndReason};

use super::icon;
use super::state::{Tone, state};

/// The outcome as a sentence without a full stop: `The receiver answered 503 Service Unavailable`.
pub fn sentence(outcome: AttemptOutcome, response_status: Option<u16>) -> String {
    let answered = || match response_status {
        Some(status) => format!("The receiver answered {}", status_words(status)),
        None => "The receiver answered with an error".to_owned(),
    };
    match outcome {
        AttemptOutcome::Delivered | AttemptOutcome::HttpError => answered(),
        AttemptOutcome::Redirect => format!("{}; redirects are not followed", answered()),
        AttemptOutcome::Gone => format!("{}: it wants no more events", answered()),
        AttemptOutcome::Timeout => "The receiver did not answer in time".to_owned(),
        AttemptOutcome::DnsFailed => "The host name has no address".to_owned(),
        AttemptOutcome::ConnectFailed => "No connection to the receiver".to_owned(),
        AttemptOutcome::TlsFailed => "The TLS handshake failed".to_owned(),
        AttemptOutcome::ConnectionClosed => "The connection closed before the answer was complete".to_owned(),
        AttemptOutcome::InvalidResponse => "The answer is not valid HTTP".to_owned(),
        AttemptOutcome::SsrfBlocked => "The host has an address that may not be called".to_owned(),
        AttemptOutcome::Simulated => "Rendered and signed, not sent: test mode".to_owned(),
        AttemptOutcome::Abandoned => "The server stopped during the attempt".to_owned(),
        AttemptOutcome::InternalError => "A fault of this server".to_owned(),
        AttemptOutcome::ProxyFailed => "The forward proxy of this server did not work".to_owned(),
        AttemptOutcome::ProxyRefused => "The forward proxy of this server refused the address".to_owned(),
        AttemptOutcome::DnsUnavailable => "No name server could be reached".to_owned(),
    }
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
pub const fn word(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Delivered => "delivered",
        AttemptOutcome::HttpError => "error status",
        AttemptOutcome::Redirect => "redirect",
        AttemptOutcome::Gone => "gone",
        AttemptOutcome::Timeout => "timeout",
        AttemptOutcome::DnsFailed => "no address",
        AttemptOutcome::ConnectFailed => "no connection",
        AttemptOutcome::TlsFailed => "TLS failed",
        AttemptOutcome::ConnectionClosed => "connection closed",
        AttemptOutcome::InvalidResponse => "invalid answer",
        AttemptOutcome::SsrfBlocked => "address blocked",
        AttemptOutcome::Simulated => "simulated",
        AttemptOutcome::Abandoned => "abandoned",
        AttemptOutcome::InternalError => "our error",
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
pub const fn fault(outcome: AttemptOutcome) -> &'static str {
    match (outcome, outcome.fault()) {
        (AttemptOutcome::Abandoned, _) => "Nobody’s fault: it uses no step of the schedule",
        (_, Fault::Nobody) => "",
        (_, Fault::Receiver) => "The receiver’s side",
        (_, Fault::Sender) => "This server’s side: it uses no step of the schedule",
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
pub const fn reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Exhausted => "The retry schedule has no step left",
        EndReason::Expired => "It waited 14 days behind an endpoint that was off or paused",
        EndReason::Inactive => "The endpoint was switched off when the event was accepted",
        EndReason::DisabledGone => "The endpoint was disabled when the event was accepted: it had answered 410 Gone",
        EndReason::DisabledFailing => {
            "The endpoint was disabled when the event was accepted: it had failed for five days"
        }
        EndReason::DisabledSsrfBlocked => {
            "The endpoint was disabled when the event was accepted: its host had an address that may not be called"
        }
        EndReason::EndpointDeleted => "The endpoint was deleted",
        EndReason::EventGone => "The event was removed before the delivery ended",
    }
}

pub fn cause(cause: DeliveryCause) -> Markup {
    let words = match cause {
        DeliveryCause::Event => "the event",
        DeliveryCause::Retry => "a retry by hand",
        DeliveryCause::Replay => "a replay",
        DeliveryCause::Test => "a test",
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
