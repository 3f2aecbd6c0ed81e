//! A collector: what arrived at a receiver of the tests, decoded.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
pub use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::support::app::Setup;
use crate::support::receiver::Receiver;
use crate::support::wait::eventually_within;

pub struct Collector(pub Receiver);

impl Collector {
    pub async fn start() -> Self {
        Self(Receiver::start().await)
    }

    /// Lets the server export to this collector.
    pub fn of(&self, setup: Setup) -> Setup {
        let endpoint = self.0.url("");
        setup.change(|settings| settings.traces.endpoint = Some(endpoint))
    }

    fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        let decoded = self.0.received().into_iter().map(|request| {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            ExportTraceServiceRequest::decode(&request.body[..]).expect("an export of spans")
        });
        decoded.collect()
    }

    pub fn spans(&self) -> Vec<Span> {
        let of_resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        of_resources.flat_map(|spans| spans.scope_spans).flat_map(|spans| spans.spans).collect()
    }

    /// Attributes of the process that exported.
    pub fn resource(&self) -> Vec<KeyValue> {
        let of_resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        of_resources.filter_map(|spans| spans.resource).flat_map(|resource| resource.attributes).collect()
    }

    /// Waits until so many spans of this name have arrived. Returns them in the order of arrival.
    pub async fn spans_named(&self, name: &str, count: usize) -> Vec<Span> {
        let named = || self.spans().into_iter().filter(|span| span.name == name).collect::<Vec<_>>();
        let enough = || async { Some(named()).filter(|spans| spans.len() >= count) };
        let explain = || format!("{count} spans {name:?}; there are {:#?}", self.spans());
        eventually_within(crate::support::wait::BOUND, enough, explain).await
    }
}

/// The value of an attribute as a text.
pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.clone().and_then(|AnyValue { value, .. }| value) {
        Some(Value::StringValue(text)) => Some(text),
        Some(Value::IntValue(number)) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
