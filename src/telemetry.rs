//! Logs: one line an event, readable alone, with fields for machines. Never payloads, secrets or header values.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// What libraries say of their routine, at each start.
const QUIETER: [&str; 2] = ["refinery=warn", "refinery_core=warn"];

/// Sends the process's logs to standard error. Call it once.
pub fn start_logging(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = QUIETER.iter().filter_map(|directive| directive.parse().ok()).fold(filter, EnvFilter::add_directive);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
    }
}

/// Whether a text says what is to be logged.
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}
