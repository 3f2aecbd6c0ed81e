//! Limits of what the process tells its operator: lines and metrics.

use std::time::Duration;

// Output of the process

/// Bytes of log lines that wait for a slow reader of standard error, or of lines of a screen for its terminal. As many
/// again may be in the write that blocks. It holds ten thousand lines, a burst of some seconds.
pub const LINE_QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// How long the end of the process waits for a reader of its last lines.
pub const LINE_FLUSH_WAIT: Duration = Duration::from_secs(1);

// Metrics

/// Connections to the listener of metrics. Prometheus needs one. A second Prometheus and a person may look too.
pub const METRICS_CONNECTIONS: usize = 16;
/// A token for metrics has at least this many bytes, so that nobody guesses it.
pub const METRICS_TOKEN_BYTES_MIN: usize = 16;
