//! The registry as a whole.

use std::collections::HashSet;
use std::time::Duration;

use super::*;

fn metrics() -> Metrics {
    let labels = Labels {
        modes: vec!["live", "test"],
        causes: vec!["event"],
        ends: vec![("delivered", "none"), ("failed", "exhausted")],
        outcomes: vec!["delivered", "timeout"],
        refusals: vec!["conflict"],
        sources: vec!["orders"],
    };
    Metrics::new(&labels, Build { version: "1.2.3", commit: "abc" })
}

#[test]
fn every_label_value_is_zero_from_the_start() {
    let text = metrics().scrape(Format::Text);
    for line in [
        "postrider_attempts_total{outcome=\"timeout\"} 0",
        "postrider_deliveries_ended_total{status=\"failed\",reason=\"exhausted\"} 0",
        "postrider_publish_seconds_count{kind=\"batch\"} 0",
        "postrider_attempt_phase_seconds_bucket{le=\"+Inf\",phase=\"dns\"} 0",
        "postrider_build_info{version=\"1.2.3\",commit=\"abc\"} 1.0",
    ] {
        let same = |found: &str| labels_sorted(found) == labels_sorted(line);
        assert!(text.lines().any(same), "{line} is not in\n{text}");
    }
}

/// The line with its labels in the order of their names.
fn labels_sorted(line: &str) -> String {
    let Some((name, rest)) = line.split_once('{') else { return line.to_owned() };
    let Some((labels, value)) = rest.split_once('}') else { return line.to_owned() };
    let mut labels: Vec<&str> = labels.split(',').collect();
    labels.sort_unstable();
    format!("{name}{labels:?}{value}")
}

#[test]
fn a_gauge_is_absent_until_it_is_set_and_after_it_was_cleared() {
    let metrics = metrics();
    let is_there = || metrics.scrape(Format::OpenMetrics).contains("postrider_queue_deliveries");
    assert!(!is_there());
    metrics.families.queue.deliveries.set_count(QueueState::Held, 3);
    let text = metrics.scrape(Format::Text);
    assert!(text.contains("postrider_queue_deliveries{state=\"held\"} 3.0"), "{text}");
    assert!(!text.contains("postrider_queue_deliveries{state=\"due\"}"), "{text}");
    metrics.families.queue.clear();
    assert!(!is_there());
}

#[test]
fn a_value_at_a_bound_is_in_the_bucket_of_that_bound() {
    let metrics = metrics();
    let histogram = &metrics.families.service.publish_seconds;
    for millis in [0, 1, 2, 60_000] {
        histogram.observe(PublishKind::Single, Duration::from_millis(millis));
    }
    let text = metrics.scrape(Format::Text);
    for (bound, count) in [("0.0005", 1), ("0.001", 2), ("0.0025", 3), ("10", 3), ("+Inf", 4)] {
        let line = format!("postrider_publish_seconds_bucket{{kind=\"single\",le=\"{bound}\"}} {count}");
        let same = |found: &str| labels_sorted(found) == labels_sorted(&line);
        assert!(text.lines().any(same), "{line} is not in\n{text}");
    }
    assert!(text.contains("postrider_publish_seconds_sum{kind=\"single\"} 60.003"), "{text}");
}

#[test]
fn a_reader_sets_its_gauge_right_before_each_scrape() {
    let metrics = metrics();
    let engine = metrics.families.engine.clone();
    let reads = std::sync::atomic::AtomicU64::new(0);
    engine.before_scrape.clone().run(move || {
        engine.in_flight.set_count(Only, reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    });
    assert!(metrics.scrape(Format::Text).contains("postrider_attempts_in_flight 0.0\n"));
    assert!(metrics.scrape(Format::Text).contains("postrider_attempts_in_flight 1.0\n"));
}

#[test]
fn each_family_is_described_once_as_it_is_scraped() {
    let metrics = metrics();
    let families = &metrics.families;
    families.queue.counted_at.set(Only, 1.0);
    let text = metrics.scrape(Format::Text);
    let described: HashSet<&str> = metrics.described().iter().map(|family| family.name.as_str()).collect();
    assert_eq!(described.len(), metrics.described().len());
    let scraped: HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(scraped.is_subset(&described), "{:?}", scraped.difference(&described));
    assert!(scraped.contains("process_cpu_seconds_total") && scraped.contains("process_open_fds"), "{text}");
    let help = text.lines().filter(|line| line.starts_with("# HELP "));
    assert_eq!(help.count(), scraped.len());
}
