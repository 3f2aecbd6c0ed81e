//! How a command's output looks: human or JSON, with colours or without, and how wide the terminal is.

use std::fmt::Display;
use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};

use postrider_domain::visible::Visible;

use super::environment::variable;
use super::output;

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Print text for people, or JSON: one object a line, with its "kind".
    #[arg(long, value_enum, default_value_t = Form::Human, value_name = "FORM")]
    pub output: Form,
    /// Colours. auto: on a terminal, unless NO_COLOR is set or TERM is dumb.
    #[arg(long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub color: Colour,
    /// Print no notes on standard error, only errors.
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Human,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    Auto,
    Always,
    Never,
}

/// What a piece of text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Warning,
    Soft,
}

/// The decided look of one command.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub is_json: bool,
    pub is_coloured: bool,
    pub is_quiet: bool,
}

impl OutputOptions {
    pub fn look(&self) -> Look {
        let is_coloured = match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                let is_dumb = variable("TERM").is_some_and(|term| term == "dumb");
                io::stdout().is_terminal() && variable("NO_COLOR").is_none() && !is_dumb
            }
        };
        Look { is_json: self.output == Form::Json, is_coloured, is_quiet: self.quiet }
    }
}

impl Look {
    /// The text, made visible and coloured.
    pub fn painted(self, tone: Tone, text: impl Display) -> String {
        let text = Visible(text).to_string();
        let code = match tone {
            Tone::Plain => return text,
            _ if !self.is_coloured => return text,
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warning => "33",
            Tone::Soft => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Says something on standard error that is no result.
    pub fn note(self, text: impl Display) {
        if !self.is_quiet {
            output::note(text);
        }
    }
}

/// The columns of the terminal on standard output. `None` when that is something else.
pub fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The tone of a delivery's status, an attempt's outcome or an endpoint's state.
pub fn tone_of(word: &str) -> Tone {
    match word {
        "delivered" | "simulated" | "completed" | "ok" | "active" => Tone::Good,
        "failed" | "gone" | "failing" | "ssrf_blocked" => Tone::Bad,
        "pending" | "running" | "paused" | "skipped" | "cancelled" | "stopped" => Tone::Warning,
        "" | "off" => Tone::Soft,
        _ => Tone::Plain,
    }
}
