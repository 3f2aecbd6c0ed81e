//! Exports spans to a collector of the operator: OTLP, protobuf over HTTP, by the OpenTelemetry SDK.
//!
//! A full queue and a slow or failing collector cost spans, which are counted, and nothing else: no publish and no
//! attempt waits here. The address of the collector is a setting of the operator, so the guard for receivers does not
//! apply to it, and nothing here may be used for strangers.

mod collector;
mod export;
mod span_data;

pub use export::{SpanExport, SpanQueue, start};

/// Where spans go.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// The base URL of the collector. `/v1/traces` is appended.
    pub endpoint: String,
    /// Certificates in PEM to trust in addition to the public ones.
    pub extra_ca_pem: Option<Vec<u8>>,
}

/// Why the export cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the address of the collector cannot be used (--otlp-endpoint)")]
    Endpoint(#[source] postrider_local::client::InvalidBaseUrl),
    #[error("the CA file of the collector cannot be used (--otlp-ca-file)")]
    Ca(#[source] postrider_local::client::InvalidCa),
    #[error("the exporter cannot be set up: check the variables OTEL_EXPORTER_OTLP_…")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}
