//! Logs: one line per event, readable alone, with fields for machines. They must never contain payloads, secrets or
//! header values.
//!
//! A log line never holds up or ends the work that it describes: see [`crate::lossy_writer`].

use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

use crate::clock::SystemClock;
use crate::config::{LogFormat, LogSettings};
use crate::lossy_writer::LossyWriter;
use postrider_domain::limits;
use postrider_domain::time::Clock as _;
use postrider_domain::visible::Visible;

/// Libraries that log routine work at `info` on every start.
const QUIETER_TARGETS: [&str; 2] = ["refinery", "refinery_core"];

/// The writer of the log, for [`lines_dropped`].
static WRITER: OnceLock<LossyWriter> = OnceLock::new();

/// The lines of the log of this process that were dropped.
pub fn lines_dropped() -> u64 {
    WRITER.get().map_or(0, LossyWriter::lines_dropped)
}

const DROPPED: &str = "log lines were dropped because standard error was closed or not read fast enough";

/// Writes what is left of the log when it is dropped, within a second.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    writer: LossyWriter,
}

/// Sends the logs of this process to standard error, and panics to the log. Call it once, and keep the guard until the
/// end of the process.
///
/// # Errors
/// When the thread that writes the log cannot be started.
pub fn start_logging(settings: &LogSettings) -> io::Result<LogGuard> {
    let filter = parse_filter(&settings.filter).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let filter = filter.with_targets(QUIETER_TARGETS.map(|target| (target, LevelFilter::WARN)));
    let format = settings.format;
    let writer = LossyWriter::on(io::stderr(), move |lines| dropped_line(format, lines))?;
    WRITER.get_or_init(|| writer.clone());
    let lines = LogLines { writer: writer.clone(), format };
    let output = fmt::layer().with_writer(lines).log_internal_errors(false);
    let output = match format {
        LogFormat::Json => output.json().flatten_event(true).boxed(),
        LogFormat::Text => output.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
    };
    registry().with(output).with(filter).init();
    panic::set_hook(Box::new(log_panic));
    Ok(LogGuard { writer })
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.writer.flush_within(limits::LINE_FLUSH_WAIT);
    }
}

/// The default hook writes to standard error itself, and would wait for its reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("not a text");
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(location, message, %backtrace, "a thread panicked");
}

/// Takes the lines of the formatter, one a write.
struct LogLines {
    writer: LossyWriter,
    format: LogFormat,
}

struct LogLine<'l>(&'l LogLines);

impl<'l> MakeWriter<'l> for LogLines {
    type Writer = LogLine<'l>;

    fn make_writer(&'l self) -> LogLine<'l> {
        LogLine(self)
    }
}

impl Write for LogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut writer = self.0.writer.clone();
        match self.0.format {
            // The encoder has escaped control characters, and JSON stays as it is.
            LogFormat::Json => writer.write_all(line)?,
            LogFormat::Text => writer.write_all(visible_line(&String::from_utf8_lossy(line)).as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of the text format with what steers a terminal escaped, so that a field can neither forge a line nor hide
/// one. The colours of the formatter itself stay; it has escaped the escape characters of fields.
fn visible_line(line: &str) -> String {
    let mut parts = line.trim_end_matches('\n').split('\u{1b}');
    let mut text = Visible(parts.next().unwrap_or_default()).to_string();
    for part in parts {
        let is_colour = part
            .strip_prefix('[')
            .and_then(|rest| rest.split_once('m'))
            .is_some_and(|(code, _)| code.bytes().all(|byte| byte.is_ascii_digit() || byte == b';'));
        text.push_str(if is_colour { "\u{1b}" } else { r"\u{1b}" });
        text.push_str(&Visible(part).to_string());
    }
    text.push('\n');
    text
}

/// The line is not sent through the queue: it says that the queue lost lines.
fn dropped_line(format: LogFormat, lines: u64) -> String {
    let now = SystemClock.now();
    match format {
        LogFormat::Text => format!("{now}  WARN {DROPPED} dropped_lines={lines}"),
        LogFormat::Json => serde_json::json!({
            "timestamp": now.to_string(),
            "level": "WARN",
            "message": DROPPED,
            "dropped_lines": lines,
            "target": module_path!(),
        })
        .to_string(),
    }
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
    fn a_field_can_neither_forge_a_line_nor_steer_a_terminal() {
        assert_eq!(visible_line("a\nb\u{202e}c\r\n"), "a\\nb\\u{202e}c\\r\n");
        assert_eq!(
            visible_line("\u{1b}[2mA\u{1b}[0m \u{1b}]0;t\u{7}\u{1b}[2J\n"),
            "\u{1b}[2mA\u{1b}[0m \\u{1b}]0;t\\u{7}\\u{1b}[2J\n"
        );
    }

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
