//! The span of an attempt, built from its record.

use std::time::Duration;

use url::Url;

use postrider_crypto::Random;
use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases, Fault};
use postrider_domain::id::EventId;
use postrider_domain::sent_request::HttpVersion;
use postrider_domain::span::{AttemptTrace, Span, SpanEvent, SpanValue, Tracing};
use postrider_store::OutcomeRecord;

/// Exports the span of an attempt if it is sampled. A simulated attempt has none: nothing was sent.
pub fn export(
    tracing: &Tracing,
    trace: Option<AttemptTrace>,
    random: &Random,
    event_id: EventId,
    record: &OutcomeRecord,
    duration: Duration,
) {
    let Attempt { outcome, started_at, .. } = record.attempt;
    if outcome == AttemptOutcome::Simulated {
        return;
    }
    let has_failed = outcome.fault() != Fault::Nobody;
    tracing.end_attempt(trace, has_failed, random, started_at, |span| {
        span.duration = duration;
        span.events = record.attempt.phases.as_ref().map(events).unwrap_or_default();
        describe(span, event_id, record);
        if has_failed {
            let attempt = &record.attempt;
            span.attributes.push(("error.type", outcome.as_str().into()));
            span.error = Some(attempt.error.clone().unwrap_or_else(|| outcome.as_str().to_owned()));
        }
    });
}

fn describe(span: &mut Span, event_id: EventId, record: &OutcomeRecord) {
    let OutcomeRecord { attempt, endpoint, delivery_id, cause, .. } = record;
    let mut add = |name, value: SpanValue| span.attributes.push((name, value));
    add("http.request.method", "POST".into());
    // Neither the path nor the query, which may hold a secret of the receiver.
    if let Ok(url) = Url::parse(&endpoint.url) {
        add("server.address", url.host_str().unwrap_or_default().into());
        if let Some(port) = url.port_or_known_default() {
            add("server.port", u32::from(port).into());
        }
    }
    if let Some(status) = attempt.response_status {
        add("http.response.status_code", u32::from(status).into());
    }
    if let Some(version) = attempt.http_version() {
        add("network.protocol.version", HttpVersion::as_str(version).into());
    }
    add("postrider.workspace_id", endpoint.workspace_id.to_string().into());
    add("postrider.endpoint_id", endpoint.id.to_string().into());
    add("postrider.event_id", event_id.to_string().into());
    add("postrider.delivery_id", delivery_id.to_string().into());
    add("postrider.cause", cause.as_str().into());
    add("postrider.attempt", attempt.number.into());
}

/// The parts of the exchange in their order. A part that did not happen has no event.
fn events(phases: &AttemptPhases) -> Vec<SpanEvent> {
    let AttemptPhases { dns_ms, connect_ms, tls_ms, first_byte_ms, body_ms, connection_reused: _ } = *phases;
    let parts =
        [("dns", dns_ms), ("connect", connect_ms), ("tls", tls_ms), ("first_byte", first_byte_ms), ("body", body_ms)];
    let mut after = Duration::ZERO;
    let mut events = Vec::with_capacity(parts.len());
    for (name, took) in parts {
        let Some(took) = took.map(|took| Duration::from_millis(took.into())) else { continue };
        after += took;
        events.push(SpanEvent { name, after, took });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_exchange_follow_each_other() {
        let phases = AttemptPhases {
            connect_ms: Some(4),
            first_byte_ms: Some(10),
            body_ms: Some(1),
            ..AttemptPhases::default()
        };
        let millis = Duration::from_millis;
        let expected = [("connect", 4, 4), ("first_byte", 14, 10), ("body", 15, 1)]
            .map(|(name, after, took)| SpanEvent { name, after: millis(after), took: millis(took) });
        assert_eq!(events(&phases), expected);
    }
}
