//! Logs: one line per event, readable alone, with fields for machines. They must never contain payloads, secrets or
//! header values.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

use crate::config::{LogFormat, LogSettings};

/// Libraries that log routine work at `info` on every start.
const QUIETER_TARGETS: [&str; 2] = ["refinery", "refinery_core"];

/// Sends the logs of this process to standard error. Call it once.
pub fn start_logging(settings: &LogSettings) {
    let filter = parse_filter(&settings.filter).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let filter = filter.with_targets(QUIETER_TARGETS.map(|target| (target, LevelFilter::WARN)));
    let output = fmt::layer().with_writer(std::io::stderr);
    let output = match settings.format {
        LogFormat::Json => output.json().flatten_event(true).boxed(),
        LogFormat::Text => output.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    };
    registry().with(output).with(filter).init();
}

/// Whether a text is a level, a target, `target=level`, or a comma-separated list of these.
pub fn is_filter(text: &str) -> bool {
    parse_filter(text).is_some()
}

/// A target matches every target that begins with it: `postrider=debug` also covers `postrider_engine`.
fn parse_filter(text: &str) -> Option<Targets> {
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    // `Targets` would take these as a target that nothing has, and so hide a mistake.
    let is_plain = |directive: &&str| {
        !directive.contains(['[', ']', '{', '}', '"', ' ']) && !directive.starts_with('=') && !directive.ends_with('=')
    };
    if directives.iter().all(is_plain) { directives.join(",").parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_a_level_a_target_or_a_list_of_them() {
        for good in
            ["info", "INFO", "off", "postrider=debug", "warn,postrider=debug", "warn, hyper=trace,", "hyper", ""]
        {
            assert!(is_filter(good), "{good:?}");
        }
        for bad in ["postrider=loud", "a=b=c", "=info", "postrider=", "postrider[span]=info", "postrider[{field}]=info"]
        {
            assert!(!is_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_target_covers_the_crates_whose_names_begin_with_it() {
        let filter = parse_filter("warn,postrider=debug").unwrap();
        for target in ["postrider", "postrider::server", "postrider_engine", "postrider_engine::worker"] {
            assert!(filter.would_enable(target, &Level::DEBUG), "{target}");
            assert!(!filter.would_enable(target, &Level::TRACE), "{target}");
        }
        assert!(filter.would_enable("hyper", &Level::WARN));
        assert!(!filter.would_enable("hyper", &Level::INFO));
    }

    #[test]
    fn an_empty_filter_logs_errors_only() {
        let filter = parse_filter("").unwrap();
        assert!(filter.would_enable("postrider", &Level::ERROR));
        assert!(!filter.would_enable("postrider", &Level::WARN));
    }
}
