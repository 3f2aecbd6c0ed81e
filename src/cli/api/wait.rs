//! Waits until deliveries have an outcome.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use postrider_domain::limits;
use postrider_local::pages::List;

use super::super::exit::Fault;
use super::super::instant::duration;
use super::super::output;
use super::super::table::print_table;
use super::list::with_kind;
use super::session::Session;
use super::show::{DELIVERY_COLUMNS, delivery_row};

#[derive(Debug, Args)]
pub struct WaitOptions {
    /// Wait for the outcome of the first attempt, or with =end for the last. Exit 1 if a delivery failed.
    #[arg(long, value_enum, value_name = "UNTIL", num_args = 0..=1, require_equals = true, default_missing_value = "first")]
    wait: Option<Until>,
    /// How long to wait at most; then exit 6.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", requires = "wait")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Until {
    First,
    End,
}

/// The waits between two looks: short at first, because most deliveries end at once.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// What is waited for.
pub enum Deliveries<'d> {
    /// All deliveries of these events, so many in all.
    OfEvents {
        ids: &'d [String],
        count: usize,
    },
    Ids(&'d [String]),
}

impl WaitOptions {
    pub const fn until(&self) -> Option<Until> {
        self.wait
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout)
    }

    /// Waits, if it was asked for, and prints the deliveries. Fails if one of them failed.
    pub async fn wait_for(&self, session: &mut Session, deliveries: Deliveries<'_>) -> anyhow::Result<()> {
        let Some(until) = self.wait else { return Ok(()) };
        let mut deadline = self.deadline();
        loop {
            let (found, expected) = deliveries.look(session).await?;
            let values: Result<Vec<Value>, _> = found.iter().map(|one| serde_json::from_str(one.get())).collect();
            let values = values?;
            let has_all = found.len() >= expected && values.iter().all(|delivery| until.is_reached(delivery));
            if has_all || deadline.is_over() {
                print(session, &found, &values)?;
            }
            if has_all {
                let failed = values.iter().any(has_failed);
                return if failed { Err(Fault::Shown.into()) } else { Ok(()) };
            }
            deadline.pause("outcome of every delivery").await?;
        }
    }
}

/// The end of a wait, and the pauses until then.
pub struct Deadline {
    at: Instant,
    timeout: Duration,
    next: Duration,
}

impl Deadline {
    pub fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout, next: SHORTEST }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Pauses before the next look.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn pause(&mut self, what: &str) -> anyhow::Result<()> {
        if self.is_over() {
            let seconds = self.timeout.as_secs_f64();
            return Err(Fault::TimedOut(format!("no {what} within {seconds} s: raise --timeout")).into());
        }
        tokio::time::sleep_until(self.at.min(Instant::now() + self.next)).await;
        self.next = (self.next * 3 / 2).min(LONGEST);
        Ok(())
    }
}

impl Until {
    fn is_reached(self, delivery: &Value) -> bool {
        delivery["status"] != "pending" || self == Self::First && delivery["lastOutcome"].is_string()
    }
}

impl Deliveries<'_> {
    /// What is there now, and how many are expected.
    async fn look(&self, session: &mut Session) -> anyhow::Result<(Vec<Box<RawValue>>, usize)> {
        let mut found = Vec::new();
        match self {
            Self::OfEvents { ids, count } => {
                for some in ids.chunks(limits::FILTER_VALUES) {
                    let list = List::new("/v1/webhook-deliveries").filter("eventId", some.join(","));
                    let mut cursor = None::<String>;
                    loop {
                        let page = session.page(&list, limits::PAGE_MAX, cursor.as_deref()).await?;
                        cursor = page.next_cursor().map(str::to_owned);
                        found.extend(page.data);
                        if cursor.is_none() {
                            break;
                        }
                    }
                }
                Ok((found, *count))
            }
            Self::Ids(ids) => {
                for id in *ids {
                    found.push(session.get(&format!("/v1/webhook-deliveries/{id}")).await?);
                }
                Ok((found, ids.len()))
            }
        }
    }
}

fn has_failed(delivery: &Value) -> bool {
    match delivery["status"].as_str() {
        Some("delivered" | "simulated" | "skipped") => false,
        Some("pending") => !matches!(delivery["lastOutcome"].as_str(), Some("delivered" | "simulated")),
        _ => true,
    }
}

fn print(session: &Session, found: &[Box<RawValue>], values: &[Value]) -> anyhow::Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    if session.look.is_json {
        for delivery in found {
            output::json_line(&with_kind("delivery", delivery))?;
        }
        return Ok(());
    }
    Ok(print_table(&DELIVERY_COLUMNS, values.iter().map(delivery_row).collect(), session.look)?)
}
