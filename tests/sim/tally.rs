//! What a world went through: the trace that two runs of a seed share, and how often each fault met each state.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use crate::chance::mix;

const LINES_KEPT: usize = 120;

/// A hash over everything that happened, and the last lines of it.
#[derive(Debug, Default)]
pub struct Trace {
    pub hash: u64,
    pub lines: u64,
    last: VecDeque<String>,
    /// Prints each line.
    is_shown: bool,
}

impl Trace {
    pub fn new(is_shown: bool) -> Self {
        Self { is_shown, ..Self::default() }
    }

    pub fn note(&mut self, at: Duration, text: &str) {
        let line = format!("{:>10.3} {text}", at.as_secs_f64());
        self.hash = line.bytes().fold(self.hash, |hash, byte| mix(hash ^ u64::from(byte)));
        self.lines += 1;
        if self.is_shown {
            println!("{line}");
        }
        if self.last.len() == LINES_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub fn last_lines(&self) -> String {
        self.last.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

/// What was under way when a fault came. The order is that of the table.
pub const STATES: [&str; 7] = ["idle", "publish", "configuration", "requeue", "erasure", "attempt", "failed disk"];

/// The faults of a world, and the ways in which an attempt ends. A long campaign must meet each of them.
pub const FAULTS: [&str; 14] = [
    "power failure",
    "kill",
    "stop",
    "failed flush",
    "slow flush",
    "4xx or 5xx",
    "410",
    "Retry-After",
    "timeout",
    "reset",
    "refused",
    "slow receiver",
    "paused endpoint",
    "abandoned attempt",
];

#[derive(Debug, Default)]
pub struct Tally {
    pub faults: BTreeMap<(&'static str, &'static str), u64>,
    pub worlds: u64,
    pub simulated: Duration,
    pub events: u64,
    pub attempts: u64,
    pub lives: u64,
    /// Erased events of which SQLite has left a copy in the unused bytes of a page.
    pub left_in_gaps: u64,
}

impl Tally {
    pub fn count(&mut self, fault: &'static str, states: &[&'static str]) {
        for state in states {
            *self.faults.entry((fault, state)).or_default() += 1;
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.faults {
            *self.faults.entry(*key).or_default() += count;
        }
        self.worlds += other.worlds;
        self.simulated += other.simulated;
        self.events += other.events;
        self.attempts += other.attempts;
        self.lives += other.lives;
        self.left_in_gaps += other.left_in_gaps;
    }

    pub fn of(&self, fault: &str) -> u64 {
        self.faults.iter().filter(|((of, _), _)| *of == fault).map(|(_, count)| count).sum()
    }

    pub fn report(&self) -> String {
        let mut text = format!("| fault | {} |\n|---|{}\n", STATES.join(" | "), "---:|".repeat(STATES.len()));
        for fault in FAULTS {
            let cell = |state| self.faults.get(&(fault, state)).map(u64::to_string).unwrap_or_default();
            let cells: Vec<String> = STATES.into_iter().map(cell).collect();
            let _ = writeln!(text, "| {fault} | {} |", cells.join(" | "));
        }
        let Self { worlds, events, attempts, lives, left_in_gaps, .. } = self;
        let hours = self.simulated.as_secs_f64() / 3600.0;
        let _ = write!(
            text,
            "\n{worlds} worlds, {hours:.1} simulated hours, {lives} starts, {events} acknowledged events, {attempts} \
             attempts, {left_in_gaps} erased events of which a copy is left in a gap."
        );
        text
    }

    /// For the process that started this one.
    pub fn to_line(&self) -> String {
        let Self { worlds, simulated, events, attempts, lives, left_in_gaps, .. } = self;
        let ms = simulated.as_millis();
        let mut line = format!("TALLY {worlds} {ms} {events} {attempts} {lives} {left_in_gaps}");
        for ((fault, state), count) in &self.faults {
            let place = |names: &[&str], name: &str| names.iter().position(|each| *each == name).expect("listed");
            let _ = write!(line, " {}:{}:{count}", place(&FAULTS, fault), place(&STATES, state));
        }
        line
    }

    pub fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.strip_prefix("TALLY ")?.split(' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let mut tally = Self {
            worlds: number()?,
            simulated: Duration::from_millis(number()?),
            events: number()?,
            attempts: number()?,
            lives: number()?,
            left_in_gaps: number()?,
            ..Self::default()
        };
        for part in parts {
            let mut numbers = part.split(':').map(|number| number.parse::<u64>().ok());
            let mut index = || usize::try_from(numbers.next()??).ok();
            let key = (*FAULTS.get(index()?)?, *STATES.get(index()?)?);
            tally.faults.insert(key, index()? as u64);
        }
        Some(tally)
    }
}
