//! A span as the exporter takes it.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use postrider_domain::span::{Span, SpanEvent, SpanKind, SpanValue};
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::TraceContext;

pub fn span_data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let started_at = system_time(span.started_at);
    let mut events = SpanEvents::default();
    events.events = span.events.iter().map(|event| event_data(event, started_at)).collect();
    let mut links = SpanLinks::default();
    links.links = span.link.map(|link| Link::with_context(context(link, true))).into_iter().collect();
    SpanData {
        span_context: context(span.context, false),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.bytes())),
        parent_span_is_remote: span.parent_is_remote,
        span_kind: match span.kind {
            SpanKind::Producer => opentelemetry::trace::SpanKind::Producer,
            SpanKind::Client => opentelemetry::trace::SpanKind::Client,
        },
        name: span.name.into(),
        start_time: started_at,
        end_time: started_at + span.duration,
        attributes: span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value_of(value))).collect(),
        dropped_attributes_count: 0,
        events,
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn value_of(value: SpanValue) -> Value {
    match value {
        SpanValue::Text(text) => text.into(),
        SpanValue::Number(number) => number.into(),
    }
}

fn event_data(event: &SpanEvent, started_at: SystemTime) -> Event {
    let SpanEvent { name, after, took } = *event;
    let took = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
    Event::new(name, started_at + after, vec![KeyValue::new("postrider.duration_ms", took)], 0)
}

fn context(context: TraceContext, is_remote: bool) -> SpanContext {
    let flags = if context.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace_id, span_id) =
        (TraceId::from_bytes(context.trace_id.bytes()), SpanId::from_bytes(context.span_id.bytes()));
    SpanContext::new(trace_id, span_id, flags, is_remote, TraceState::NONE)
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.millis()).unwrap_or_default())
}
