//! What the doctor found: a list of checks, as a table or as JSON.

use std::fmt::Display;

use serde::Serialize;

use super::super::output::{self, OutputError};
use super::super::table::print_rows;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    /// It works, with a risk.
    Warn,
    /// It does not work, or will not.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do. `None` when nothing is to be done.
    pub advice: Option<String>,
}

impl Check {
    pub fn ok(name: &'static str, detail: impl Display) -> Self {
        Self { name, state: State::Ok, detail: detail.to_string(), advice: None }
    }

    pub fn warn(name: &'static str, detail: impl Display, advice: impl Display) -> Self {
        Self { name, state: State::Warn, detail: detail.to_string(), advice: Some(advice.to_string()) }
    }

    pub fn fail(name: &'static str, detail: impl Display, advice: impl Display) -> Self {
        Self { name, state: State::Fail, detail: detail.to_string(), advice: Some(advice.to_string()) }
    }
}

#[derive(Serialize)]
struct Report<'c> {
    checks: &'c [Check],
}

/// # Errors
/// When standard output cannot be written.
pub fn print_json(checks: &[Check]) -> anyhow::Result<()> {
    Ok(output::json(serde_json::to_string_pretty(&Report { checks })?)?)
}

/// # Errors
/// When standard output cannot be written.
pub fn print_table(checks: &[Check]) -> Result<(), OutputError> {
    let state = |check: &Check| match check.state {
        State::Ok => "ok",
        State::Warn => "WARN",
        State::Fail => "FAIL",
    };
    let row = |check: &Check| [state(check).to_owned(), check.name.to_owned(), check.detail.clone()];
    print_rows(&["state", "check", "found"], checks.iter().map(row))?;
    let advised: Vec<&Check> = checks.iter().filter(|check| check.advice.is_some()).collect();
    if !advised.is_empty() {
        output::line("")?;
    }
    for check in advised {
        output::line(format_args!("{}: {}", check.name, check.advice.as_deref().unwrap_or_default()))?;
    }
    Ok(())
}
