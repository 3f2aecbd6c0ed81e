//! The settings of traces, a part of the table of settings, and the variables of OpenTelemetry that stand for them.

use postrider_domain::span::{Sampler, TraceRatio};
use postrider_local::client::ServerAddress;

use crate::config::Settings;

use super::environment::variable;
use super::setting_value::{message, path, set, shown_path, shown_switch, switch};
use super::settings::{PLAIN, Setting};

pub const OTLP_ENDPOINT: Setting = Setting {
    name: "otlp_endpoint",
    flag: "otlp-endpoint",
    env: "POSTRIDER_OTLP_ENDPOINT",
    value_name: "URL",
    help: "Base URL of an OpenTelemetry collector that gets spans by OTLP over HTTP, to which /v1/traces is appended",
    otherwise: Some("OTEL_EXPORTER_OTLP_ENDPOINT, or none: no spans"),
    read: |settings, text| set(&mut settings.traces.endpoint, collector(text).map(Some)),
    show: |settings| settings.traces.endpoint.clone().unwrap_or_default(),
    ..PLAIN
};

pub const OTLP_CA_FILE: Setting = Setting {
    name: "otlp_ca_file",
    flag: "otlp-ca-file",
    env: "POSTRIDER_OTLP_CA_FILE",
    value_name: "FILE",
    help: "PEM file of certificate authorities to trust for the collector in addition to the public ones",
    otherwise: Some("OTEL_EXPORTER_OTLP_CERTIFICATE, or none"),
    read: |settings, text| set(&mut settings.traces.ca_file, path(text).map(Some)),
    show: |settings| shown_path(settings.traces.ca_file.as_ref()),
    ..PLAIN
};

pub const TRACE_RATIO: Setting = Setting {
    name: "trace_ratio",
    flag: "trace-ratio",
    env: "POSTRIDER_TRACE_RATIO",
    value_name: "SHARE",
    help: "Share of publishes without traceparent that are traced, 0 to 1. With one, its sampled flag decides",
    read: |settings, text| set(&mut settings.traces.sampler.ratio, text.parse().map_err(message)),
    show: |settings| settings.traces.sampler.ratio.to_string(),
    ..PLAIN
};

pub const TRACE_FAILURES: Setting = Setting {
    name: "trace_failures",
    flag: "trace-failures",
    env: "POSTRIDER_TRACE_FAILURES",
    value_name: "on|off",
    help: "Whether the collector gets every failed attempt, also of publishes that are not traced",
    read: |settings, text| set(&mut settings.traces.exports_failures, switch(text)),
    show: |settings| shown_switch(settings.traces.exports_failures),
    ..PLAIN
};

pub const TRACE_FORWARDING: Setting = Setting {
    name: "trace_forwarding",
    flag: "trace-forwarding",
    env: "POSTRIDER_TRACE_FORWARDING",
    value_name: "on|off",
    help: "Whether receivers get traceparent when the event has a trace. An endpoint may have its own traceForwarding",
    read: |settings, text| set(&mut settings.traces.are_forwarded, switch(text)),
    show: |settings| shown_switch(settings.traces.are_forwarded),
    ..PLAIN
};

fn collector(text: &str) -> Result<String, String> {
    let read = ServerAddress::parse(text);
    read.map(|_| text.to_owned()).map_err(|_| "is not a base URL like http://127.0.0.1:4318".to_owned())
}

/// Reads the variables of OpenTelemetry that stand for a setting. The settings of our own take precedence. Returns the
/// variables that were read, each with the name of its setting.
///
/// # Errors
/// When a value is invalid. Returns the problem with the name of the variable.
pub fn read_variables(settings: &mut Settings) -> Result<Vec<(&'static str, &'static str)>, String> {
    let mut read = Vec::new();
    for (name, setting) in
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &OTLP_ENDPOINT), ("OTEL_EXPORTER_OTLP_CERTIFICATE", &OTLP_CA_FILE)]
    {
        let Some(text) = variable(name) else { continue };
        (setting.read)(settings, &text).map_err(|fault| format!("{name}: {fault}"))?;
        read.push((setting.name, name));
    }
    if let Some(name) = variable(SAMPLER) {
        settings.traces.sampler = sampler(&name, variable(SAMPLER_ARGUMENT).as_deref())?;
        read.push((TRACE_RATIO.name, SAMPLER));
    }
    Ok(read)
}

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

fn sampler(name: &str, argument: Option<&str>) -> Result<Sampler, String> {
    let (follows_parent, own) = match name.strip_prefix("parentbased_") {
        Some(own) => (true, own),
        None => (false, name),
    };
    let ratio = match own {
        "always_on" => TraceRatio::ALL,
        "always_off" => TraceRatio::NONE,
        "traceidratio" => {
            argument.map_or(Ok(TraceRatio::ALL), str::parse).map_err(|fault| format!("{SAMPLER_ARGUMENT}: {fault}"))?
        }
        _ => {
            return Err(format!(
                "{SAMPLER}: must be always_on, always_off, traceidratio, or one of these after parentbased_"
            ));
        }
    };
    Ok(Sampler { follows_parent, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samplers_of_opentelemetry_are_understood() {
        let read = |name: &str, argument| sampler(name, argument).map(|it| (it.follows_parent, it.ratio.to_string()));
        for (name, argument, expected) in [
            ("always_on", None, (false, "1")),
            ("always_off", Some("0.5"), (false, "0")),
            ("parentbased_always_on", None, (true, "1")),
            ("parentbased_always_off", None, (true, "0")),
            ("traceidratio", Some("0.25"), (false, "0.25")),
            ("parentbased_traceidratio", None, (true, "1")),
        ] {
            assert_eq!(read(name, argument), Ok((expected.0, expected.1.to_owned())), "{name}");
        }
        assert!(read("jaeger_remote", None).unwrap_err().starts_with("OTEL_TRACES_SAMPLER: must be"));
        let fault = "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1, like 0.05";
        assert_eq!(read("traceidratio", Some("2")), Err(fault.to_owned()));
    }

    #[test]
    fn a_collector_is_a_base_url() {
        for good in ["http://127.0.0.1:4318", "https://otel.example.com/tenant/"] {
            collector(good).unwrap();
        }
        for bad in ["127.0.0.1:4318", "http://otel/v1", "http://u:p@otel", "grpc://otel:4317", "http://otel?x=1", ""] {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }
}
