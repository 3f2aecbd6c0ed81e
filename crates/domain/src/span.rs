//! Spans: which publishes and attempts are traced, and what an exported span says.
//!
//! Spans are built from what a publish or an attempt recorded anyway, after it has ended, and only if they are
//! exported. Nothing here sends them: see [`SpanSink`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postrider_crypto::Random;

use super::limits;
use super::time::Timestamp;
use super::trace_context::{SpanId, TraceContext, TraceId};

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub name: &'static str,
    pub kind: SpanKind,
    pub context: TraceContext,
    pub parent: Option<SpanId>,
    /// The parent is a span of another process.
    pub parent_is_remote: bool,
    /// A span of another trace that led to this one.
    pub link: Option<TraceContext>,
    pub started_at: Timestamp,
    pub duration: Duration,
    pub attributes: Vec<(&'static str, SpanValue)>,
    pub events: Vec<SpanEvent>,
    /// Why it failed. `None`: it did not.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Producer,
    Client,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanValue {
    Text(String),
    Number(i64),
}

impl From<String> for SpanValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for SpanValue {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// The end of a part of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanEvent {
    pub name: &'static str,
    /// Since the start of the span.
    pub after: Duration,
    pub took: Duration,
}

/// Takes spans for export. It must not wait, and drops what it cannot take.
pub trait SpanSink: Send + Sync {
    fn take(&self, span: Span);
}

/// The share of traces that are sampled: 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TraceRatio(f64);

/// The text is not a number from 0 to 1.
#[derive(Debug, thiserror::Error)]
#[error("must be a number from 0 to 1, like 0.05")]
pub struct InvalidRatio;

impl TraceRatio {
    pub const NONE: Self = Self(0.0);
    pub const ALL: Self = Self(1.0);

    /// Decides by the trace id, as other senders of spans do: a trace is sampled by all of them or by none.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
    fn samples(self, trace_id: TraceId) -> bool {
        const WHOLE: u64 = 1 << 63;
        let [.., a, b, c, d, e, f, g, h] = trace_id.bytes();
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        drawn < (self.0 * WHOLE as f64) as u64
    }
}

impl std::str::FromStr for TraceRatio {
    type Err = InvalidRatio;

    fn from_str(text: &str) -> Result<Self, InvalidRatio> {
        let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or(InvalidRatio)
    }
}

impl fmt::Display for TraceRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which publishes are sampled. Their attempts follow them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// A publish with a `traceparent` is sampled if that says so. Otherwise the ratio decides there, too.
    pub follows_parent: bool,
    pub ratio: TraceRatio,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { follows_parent: true, ratio: TraceRatio::NONE }
    }
}

/// What decides on spans and takes them.
pub struct Tracer {
    pub sampler: Sampler,
    /// Failed attempts are exported although their publish was not sampled.
    pub exports_failures: bool,
    pub sink: Arc<dyn SpanSink>,
}

/// Whether and how this process exports spans. The default exports none.
#[derive(Clone, Default)]
pub struct Tracing(Option<Arc<Tracer>>);

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracing(on)" } else { "Tracing(off)" })
    }
}

/// The trace of a publish.
#[derive(Debug)]
pub struct PublishTrace {
    /// What is stored with the events, and the parent of their attempts.
    pub stored: Option<TraceContext>,
    parent: Option<TraceContext>,
}

/// The trace of an attempt. The context is the one that the receiver gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptTrace {
    pub context: TraceContext,
    parent: Option<SpanId>,
    link: Option<TraceContext>,
}

impl Tracing {
    pub fn new(tracer: Tracer) -> Self {
        Self(Some(Arc::new(tracer)))
    }

    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The trace of a publish that came with this context.
    pub fn publish(&self, given: Option<TraceContext>, random: &Random) -> PublishTrace {
        let Some(tracer) = &self.0 else { return PublishTrace { stored: given, parent: None } };
        let trace_id = given.map_or_else(|| TraceId::random(random), |given| given.trace_id);
        let is_sampled = match given {
            Some(given) if tracer.sampler.follows_parent => given.is_sampled(),
            _ => tracer.sampler.ratio.samples(trace_id),
        };
        if !is_sampled {
            return PublishTrace { stored: given.map(|given| given.sampled(false)), parent: None };
        }
        let span_id = SpanId::random(random);
        let own = given.map_or_else(|| TraceContext::new(trace_id, span_id, true), |given| given.with_span(span_id));
        PublishTrace { stored: Some(own.sampled(true)), parent: given }
    }

    /// Exports the span of a publish, if it is sampled. `complete` adds what the span is to say.
    pub fn end_publish(&self, trace: &PublishTrace, started_at: Timestamp, complete: impl FnOnce(&mut Span)) {
        let (Some(tracer), Some(context)) = (&self.0, trace.stored.filter(TraceContext::is_sampled)) else { return };
        let parent = trace.parent.map(|parent| parent.span_id);
        let mut span = Span { parent_is_remote: true, ..span("publish", SpanKind::Producer, context, started_at) };
        span.parent = parent;
        complete(&mut span);
        tracer.sink.take(span);
    }

    /// The trace of an attempt to deliver an event with this context. Back ends drop spans that come long after their
    /// trace: a late attempt starts one of its own, with a link to that of the event.
    pub fn attempt(&self, event: TraceContext, age: Duration, random: &Random) -> AttemptTrace {
        let span_id = SpanId::random(random);
        if self.is_on() && age > limits::TRACE_CHILD_AGE {
            let context = TraceContext::new(TraceId::random(random), span_id, event.is_sampled());
            return AttemptTrace { context, parent: None, link: Some(event) };
        }
        AttemptTrace { context: event.with_span(span_id), parent: Some(event.span_id), link: None }
    }

    /// Exports the span of an attempt, if it is sampled. One without a trace starts its own. `complete` adds what the
    /// span is to say.
    pub fn end_attempt(
        &self,
        trace: Option<AttemptTrace>,
        has_failed: bool,
        random: &Random,
        started_at: Timestamp,
        complete: impl FnOnce(&mut Span),
    ) {
        let Some(tracer) = &self.0 else { return };
        let is_sampled = trace.is_some_and(|trace| trace.context.is_sampled());
        let is_exported = is_sampled || (has_failed && tracer.exports_failures);
        if !is_exported {
            return;
        }
        let own = || TraceContext::new(TraceId::random(random), SpanId::random(random), true);
        let AttemptTrace { context, parent, link } =
            trace.unwrap_or_else(|| AttemptTrace { context: own(), parent: None, link: None });
        let mut span = Span { parent, link, ..span("attempt", SpanKind::Client, context.sampled(true), started_at) };
        complete(&mut span);
        tracer.sink.take(span);
    }
}

fn span(name: &'static str, kind: SpanKind, context: TraceContext, started_at: Timestamp) -> Span {
    Span {
        name,
        kind,
        context,
        parent: None,
        parent_is_remote: false,
        link: None,
        started_at,
        duration: Duration::ZERO,
        attributes: Vec::new(),
        events: Vec::new(),
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Taken(Mutex<Vec<Span>>);

    impl SpanSink for Taken {
        fn take(&self, span: Span) {
            self.0.lock().unwrap().push(span);
        }
    }

    fn on(sampler: Sampler, exports_failures: bool) -> (Tracing, Arc<Taken>) {
        let taken = Arc::new(Taken::default());
        let sink: Arc<dyn SpanSink> = taken.clone();
        (Tracing::new(Tracer { sampler, exports_failures, sink }), taken)
    }

    fn of_publisher(is_sampled: bool) -> TraceContext {
        let random = Random::default();
        TraceContext::new(TraceId::random(&random), SpanId::random(&random), is_sampled)
    }

    fn ended(taken: &Taken) -> Vec<Span> {
        std::mem::take(&mut taken.0.lock().unwrap())
    }

    const NOW: Timestamp = Timestamp::from_millis(1_778_833_260_000);

    #[test]
    fn without_export_the_context_of_the_publisher_stays_as_it_is() {
        let (off, random, given) = (Tracing::default(), Random::default(), of_publisher(true));
        assert_eq!(off.publish(Some(given), &random).stored, Some(given));
        assert_eq!(off.publish(None, &random).stored, None);
        let late = off.attempt(given, limits::TRACE_CHILD_AGE * 2, &random);
        assert_eq!(late.context.trace_id, given.trace_id, "nothing would show the link");
        assert_ne!(late.context.span_id, given.span_id);
    }

    #[test]
    fn a_sampled_publish_is_the_parent_of_its_attempts() {
        let ((tracing, taken), random, given) = (on(Sampler::default(), false), Random::default(), of_publisher(true));
        let publish = tracing.publish(Some(given), &random);
        let stored = publish.stored.unwrap();
        tracing.end_publish(&publish, NOW, |_| {});
        let attempt = tracing.attempt(stored, limits::TRACE_CHILD_AGE, &random);
        tracing.end_attempt(Some(attempt), false, &random, NOW, |_| {});
        let spans = ended(&taken);
        assert_eq!((spans[0].parent, spans[0].parent_is_remote), (Some(given.span_id), true));
        assert_eq!((spans[1].parent, spans[1].link), (Some(spans[0].context.span_id), None));
        assert!(spans.iter().all(|span| span.context.trace_id == given.trace_id));
        assert_eq!(spans[1].context, attempt.context);
    }

    #[test]
    fn a_late_attempt_has_a_trace_of_its_own_and_a_link() {
        let ((tracing, taken), random, event) = (on(Sampler::default(), false), Random::default(), of_publisher(true));
        let late = tracing.attempt(event, limits::TRACE_CHILD_AGE + Duration::from_millis(1), &random);
        tracing.end_attempt(Some(late), false, &random, NOW, |_| {});
        let span = ended(&taken).remove(0);
        assert_eq!((span.parent, span.link), (None, Some(event)));
        assert_ne!(span.context.trace_id, event.trace_id);
        assert_eq!(span.context, late.context);
    }

    #[test]
    fn without_sampling_only_failures_are_exported_on_request() {
        let (random, given) = (Random::default(), of_publisher(false));
        for (exports_failures, has_failed, expected) in
            [(false, true, 0), (true, false, 0), (true, true, 2), (false, false, 0)]
        {
            let (tracing, taken) = on(Sampler::default(), exports_failures);
            let publish = tracing.publish(Some(given), &random);
            assert_eq!(publish.stored, Some(given));
            tracing.end_publish(&publish, NOW, |_| {});
            let attempt = tracing.attempt(given, Duration::ZERO, &random);
            for trace in [Some(attempt), None] {
                tracing.end_attempt(trace, has_failed, &random, NOW, |_| {});
            }
            let spans = ended(&taken);
            assert_eq!(spans.len(), expected, "{exports_failures} {has_failed}");
            assert!(spans.iter().all(|span| span.context.is_sampled()));
        }
    }

    #[test]
    fn the_ratio_decides_where_the_publisher_does_not() {
        let random = Random::default();
        let sampled = |sampler: Sampler, given: Option<TraceContext>| {
            let (tracing, _taken) = on(sampler, false);
            let sampled = (0..2_000).filter(|_| {
                let stored = tracing.publish(given.map(|_| of_publisher(true)), &random).stored;
                stored.is_some_and(|stored| stored.is_sampled())
            });
            sampled.count()
        };
        let ratio = |text: &str, follows_parent| Sampler { follows_parent, ratio: text.parse().unwrap() };
        assert_eq!(sampled(ratio("0", true), None), 0);
        assert_eq!(sampled(ratio("1", true), None), 2_000);
        let quarter = sampled(ratio("0.25", true), None);
        assert!((300..700).contains(&quarter), "{quarter}");
        assert_eq!(sampled(ratio("0", true), Some(of_publisher(true))), 2_000);
        assert_eq!(sampled(ratio("0", false), Some(of_publisher(true))), 0);
    }

    #[test]
    fn a_ratio_is_a_number_from_zero_to_one() {
        for good in ["0", "1", "0.05", "1e-3"] {
            good.parse::<TraceRatio>().unwrap();
        }
        for bad in ["", "-0.1", "1.1", "NaN", "half"] {
            assert!(bad.parse::<TraceRatio>().is_err(), "{bad}");
        }
    }
}
