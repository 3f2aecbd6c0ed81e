//! The progress of a run: a bar on a terminal, otherwise one line per run.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use super::arrivals::Arrivals;

/// Shows on standard error what is being measured.
pub struct Progress {
    bar: ProgressBar,
}

/// Updates the bar until it is dropped.
pub struct Ticker {
    task: JoinHandle<()>,
}

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

impl Progress {
    pub fn on_stderr() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} [{bar:14}] {pos}/{len} s, {prefix}");
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")) }
    }

    /// Starts the preparation of a run.
    pub fn begin(&self, what: &str, duration: Duration) {
        if self.bar.is_hidden() {
            // The measurement goes on also when nobody hears of it.
            drop(writeln!(io::stderr(), "measuring {what} …"));
            return;
        }
        self.bar.reset();
        self.bar.set_length(duration.as_secs());
        self.bar.set_message(format!("{what:<22}"));
        self.bar.set_prefix("preparing");
    }

    /// Starts showing the arrivals.
    pub fn watch(&self, arrivals: &Arc<Arrivals>) -> Ticker {
        let (bar, arrivals, started) = (self.bar.clone(), Arc::clone(arrivals), Instant::now());
        let task = tokio::spawn(async move {
            while !bar.is_hidden() {
                let seconds = started.elapsed().as_secs();
                bar.set_position(seconds.min(bar.length().unwrap_or(seconds)));
                bar.set_prefix(format!("{} delivered", arrivals.total()));
                tokio::time::sleep(REDRAW_INTERVAL).await;
            }
        });
        Ticker { task }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
