//! The export of spans, if the settings ask for one.

use postrider_domain::span::Tracing;
use postrider_metrics::TraceMetrics;

use crate::config::TraceSettings;

use super::error::StartError;

#[cfg(feature = "otel")]
pub use postrider_traces::SpanExport;

/// This binary exports no spans.
#[cfg(not(feature = "otel"))]
pub enum SpanExport {}

#[cfg(not(feature = "otel"))]
impl SpanExport {
    #[expect(clippy::unused_async, reason = "as the export of a binary that has one")]
    pub async fn stop(self) {
        match self {}
    }
}

/// Starts the export on the current runtime. Without a collector nothing is traced.
///
/// # Errors
/// When the settings of the collector cannot be used.
#[cfg(feature = "otel")]
pub fn start(settings: &TraceSettings, metrics: &TraceMetrics) -> Result<(Tracing, Option<SpanExport>), StartError> {
    use postrider_domain::span::Tracer;
    use postrider_traces::ExportSettings;

    let Some(endpoint) = settings.endpoint.clone() else { return Ok((Tracing::default(), None)) };
    let extra_ca_pem = match &settings.ca_file {
        None => None,
        Some(path) => Some(
            std::fs::read(path)
                .map_err(|source| StartError::OtlpCaFile { path: path.display().to_string(), source })?,
        ),
    };
    let collector = ExportSettings { endpoint, extra_ca_pem };
    let (sink, export) = postrider_traces::start(&collector, metrics.clone()).map_err(StartError::Traces)?;
    let tracer = Tracer { sampler: settings.sampler, exports_failures: settings.exports_failures, sink };
    tracing::info!(
        collector = collector.endpoint,
        ratio = %settings.sampler.ratio,
        "spans are exported (--otlp-endpoint)"
    );
    Ok((Tracing::new(tracer), Some(export)))
}

/// As with the export, which this binary does not have.
///
/// # Errors
/// When a collector is named.
#[cfg(not(feature = "otel"))]
pub fn start(settings: &TraceSettings, _metrics: &TraceMetrics) -> Result<(Tracing, Option<SpanExport>), StartError> {
    match settings.endpoint {
        None => Ok((Tracing::default(), None)),
        Some(_) => Err(StartError::NoTraces),
    }
}
