//! The queue of spans, and the task that sends them to the collector.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use postrider_domain::limits;
use postrider_domain::span::{Span, SpanSink};
use postrider_local::client::ServerAddress;
use postrider_metrics::{SpanResult, TraceMetrics};

use crate::collector::Collector;
use crate::span_data::span_data;
use crate::{ExportError, ExportSettings};

/// Takes spans for the task. A span for which the queue has no room is dropped and counted.
pub struct SpanQueue {
    queue: mpsc::Sender<Span>,
    metrics: TraceMetrics,
}

impl SpanSink for SpanQueue {
    fn take(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.spans.increment(SpanResult::Dropped);
        }
    }
}

/// The running task.
#[derive(Debug)]
pub struct SpanExport {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl SpanExport {
    /// Sends what is queued, as far as the collector takes it soon.
    pub async fn stop(self) {
        self.stop.cancel();
        let Self { mut task, .. } = self;
        if tokio::time::timeout(limits::SPAN_FLUSH_WAIT, &mut task).await.is_err() {
            tracing::warn!("spans were dropped at the stop: the collector did not take them in time");
            task.abort();
        }
    }
}

/// Starts the export on the current runtime. Does not connect before there is a span.
///
/// # Errors
/// When a setting, or a variable that the exporter reads, cannot be used.
pub fn start(settings: &ExportSettings, metrics: TraceMetrics) -> Result<(Arc<SpanQueue>, SpanExport), ExportError> {
    let mut address = ServerAddress::parse(&settings.endpoint).map_err(ExportError::Endpoint)?;
    if let Some(pem) = &settings.extra_ca_pem {
        address.trust(pem).map_err(ExportError::Ca)?;
    }
    let collector = Arc::new(Collector::new(address));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", settings.endpoint.trim_end_matches('/')))
        .with_shared_http_client(collector.clone());
    let mut exporter = exporter.build().map_err(ExportError::Exporter)?;
    exporter.set_resource(&resource());
    let (queue, spans) = mpsc::channel(limits::SPANS_QUEUED);
    let stop = CancellationToken::new();
    let scope = InstrumentationScope::builder("postrider").with_version(env!("CARGO_PKG_VERSION")).build();
    let export =
        Export { spans, exporter, collector, scope, metrics: metrics.clone(), stop: stop.clone(), is_failing: false };
    let task = tokio::spawn(export.run());
    Ok((Arc::new(SpanQueue { queue, metrics }), SpanExport { stop, task }))
}

/// What `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say of this process. Its name is `postrider` otherwise.
fn resource() -> Resource {
    let version = || opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let found = Resource::builder().with_attribute(version()).build();
    let name = found.get(&Key::from_static_str("service.name"));
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return found;
    }
    Resource::builder().with_attribute(version()).with_service_name("postrider").build()
}

struct Export {
    spans: mpsc::Receiver<Span>,
    exporter: SpanExporter,
    collector: Arc<Collector>,
    scope: InstrumentationScope,
    metrics: TraceMetrics,
    stop: CancellationToken,
    /// The last request failed. Only changes are logged.
    is_failing: bool,
}

impl Export {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(limits::SPANS_PER_EXPORT);
        loop {
            tokio::select! {
                count = self.spans.recv_many(&mut batch, limits::SPANS_PER_EXPORT) => {
                    if count == 0 {
                        return;
                    }
                    self.fill(&mut batch).await;
                    self.send(std::mem::take(&mut batch)).await;
                }
                () = self.stop.cancelled() => break,
            }
        }
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
            self.fill(&mut batch).await;
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Waits a little for further spans, until the batch is full. Not during the stop.
    async fn fill(&mut self, batch: &mut Vec<Span>) {
        let wait = if self.stop.is_cancelled() { Duration::ZERO } else { limits::SPAN_EXPORT_WAIT };
        let until = Instant::now() + wait;
        while batch.len() < limits::SPANS_PER_EXPORT {
            let room = limits::SPANS_PER_EXPORT - batch.len();
            let further = timeout_at(until, self.spans.recv_many(batch, room));
            tokio::select! {
                further = further => match further {
                    Ok(count) if count > 0 => {}
                    Ok(_) | Err(_) => return,
                },
                () = self.stop.cancelled(), if !wait.is_zero() => return,
            }
        }
    }

    async fn send(&mut self, batch: Vec<Span>) {
        let spans = batch.len() as u64;
        let data = batch.into_iter().map(|span| span_data(span, &self.scope)).collect();
        match self.exporter.export(data).await {
            Ok(()) => {
                self.metrics.spans.add(SpanResult::Exported, spans);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.metrics.spans.add(SpanResult::Failed, spans);
                if !std::mem::replace(&mut self.is_failing, true) {
                    let cause = self.collector.take_fault();
                    tracing::warn!(
                        error = %postrider_domain::error_chain::Chain(&error),
                        cause,
                        "the collector does not take spans; they are dropped until it does (--otlp-endpoint)"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider_domain::span::SpanKind;
    use postrider_domain::time::Timestamp;
    use postrider_domain::trace_context::{SpanId, TraceContext, TraceId};
    use postrider_metrics::{Build, Format, Labels, Metrics};
    use tokio::net::TcpListener;

    use super::*;

    fn span() -> Span {
        let context = TraceContext::new(TraceId::new([1; 16]).unwrap(), SpanId::new([2; 8]).unwrap(), true);
        Span {
            name: "attempt",
            kind: SpanKind::Client,
            context,
            parent: None,
            parent_is_remote: false,
            link: None,
            started_at: Timestamp::from_millis(0),
            duration: Duration::ZERO,
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    #[tokio::test]
    async fn a_full_queue_drops_spans_and_a_stalled_collector_ends() {
        // Connections stay in its listen queue, and nobody answers.
        let stalled = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", stalled.local_addr().unwrap());
        let metrics = Metrics::new(&Labels::default(), Build { version: "1", commit: "c" });
        let settings = ExportSettings { endpoint, extra_ca_pem: None };
        let (queue, export) = start(&settings, metrics.families.traces.clone()).unwrap();
        // The task has no turn before the first wait of this one.
        for _ in 0..3 * limits::SPANS_QUEUED {
            queue.take(span());
        }
        let line = format!("postrider_trace_spans_total{{result=\"dropped\"}} {}", 2 * limits::SPANS_QUEUED);
        let text = metrics.scrape(Format::Text);
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        export.stop().await;
    }

    #[tokio::test]
    async fn a_collector_that_cannot_be_used_is_refused_at_the_start() {
        let metrics = Metrics::new(&Labels::default(), Build { version: "1", commit: "c" });
        let of = |endpoint: &str, pem: Option<&[u8]>| {
            let settings = ExportSettings { endpoint: endpoint.to_owned(), extra_ca_pem: pem.map(<[u8]>::to_vec) };
            start(&settings, metrics.families.traces.clone()).map(|_| ())
        };
        assert!(matches!(of("otel:4318", None), Err(ExportError::Endpoint(_))));
        assert!(matches!(of("https://otel", Some(b"no certificate")), Err(ExportError::Ca(_))));
        of("https://otel.example.com/tenant/", None).unwrap();
    }
}
