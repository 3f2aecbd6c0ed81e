//! The families that every client of Prometheus has for its process, under their usual names. They are read from
//! `/proc` at each scrape; on a system without it they are left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::register::Register;

#[derive(Debug)]
struct Process;

/// Names without the suffix of counters, with the help. In the order of [`Readings::values`].
const FAMILIES: [(&str, MetricType, &str); 7] = [
    ("process_cpu_seconds", MetricType::Counter, "Processor time of this process"),
    ("process_resident_memory_bytes", MetricType::Gauge, "Memory of this process that is in RAM"),
    ("process_virtual_memory_bytes", MetricType::Gauge, "Address space of this process"),
    ("process_open_fds", MetricType::Gauge, "Files and sockets that this process has open"),
    ("process_max_fds", MetricType::Gauge, "Files and sockets that this process may have open"),
    ("process_threads", MetricType::Gauge, "Threads of this process"),
    ("process_start_time_seconds", MetricType::Gauge, "When this process started, in seconds since 1970"),
];

pub fn register(register: &mut Register) {
    for (name, kind, help) in FAMILIES {
        let (suffix, kind) = if kind == MetricType::Counter { ("_total", "counter") } else { ("", "gauge") };
        register.describe(format!("{name}{suffix}"), kind, help, &[]);
    }
    register.registry.register_collector(Box::new(Process));
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for ((name, kind, help), value) in FAMILIES.into_iter().zip(read()) {
            let Some(value) = value else { continue };
            let help = format!("{help}.");
            let mut encoder = encoder.encode_descriptor(name, &help, None, kind)?;
            match kind {
                MetricType::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None)?,
                _ => encoder.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}

/// In the order of [`FAMILIES`].
fn read() -> [Option<f64>; 7] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program is in parentheses and may contain spaces. Then come fields from the third on.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let ticks = as_float(rustix::param::clock_ticks_per_second());
    let pages = as_float(rustix::param::page_size() as u64);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| as_float(files.count() as u64));
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    [
        field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks),
        field(24).map(|resident| resident * pages),
        field(23),
        open,
        most.map(as_float),
        field(20),
        field(22).zip(booted_at()).map(|(started, booted)| booted + started / ticks),
    ]
}

/// When the machine started, in seconds since 1970.
fn booted_at() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "no such number is beyond 2^53")]
fn as_float(number: u64) -> f64 {
    number as f64
}
