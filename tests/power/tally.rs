//! Counts what a campaign met: where the power failed, in which state of the server, and what was lost.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::disk::Loss;

#[derive(Debug, Default)]
pub struct Tally {
    /// By what happened and the state of the server.
    counts: BTreeMap<(String, &'static str), usize>,
    pending: BTreeMap<&'static str, usize>,
    undone: BTreeMap<&'static str, usize>,
    /// Power failures in which something of this class was taken back.
    losses: BTreeMap<&'static str, usize>,
    pub power_failures: usize,
    pub kills_and_stops: usize,
    pub faults: usize,
    pub log_restarts: usize,
}

pub const STATES: &[&str] =
    &["first start", "after the first start", "upgrade", "start", "serving", "master key", "stop"];

impl Tally {
    pub fn count(&mut self, what: &str, state: &'static str) {
        *self.counts.entry((what.to_owned(), state)).or_default() += 1;
        self.kills_and_stops += usize::from(what != "refused start");
    }

    pub fn power_failed(&mut self, loss: &Loss, state: &'static str) {
        self.power_failures += 1;
        let what = match &loss.point {
            Some((call, when, class)) => {
                let when = ["before", "during", "after"][when.parse::<usize>().unwrap_or_default().min(2)];
                format!("power: {when} {call} of {class}")
            }
            None => "power: after the end".to_owned(),
        };
        *self.counts.entry((what, state)).or_default() += 1;
        self.faults += loss.faults;
        self.log_restarts += loss.log_restarts;
        for (sum, found) in [(&mut self.pending, &loss.pending), (&mut self.undone, &loss.undone)] {
            for (class, count) in found {
                *sum.entry(class).or_default() += count;
            }
        }
        for (class, _) in loss.undone.iter().filter(|(_, count)| **count > 0) {
            *self.losses.entry(class).or_default() += 1;
        }
    }

    pub fn add(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        for (sum, found) in
            [(&mut self.pending, other.pending), (&mut self.undone, other.undone), (&mut self.losses, other.losses)]
        {
            for (class, count) in found {
                *sum.entry(class).or_default() += count;
            }
        }
        self.power_failures += other.power_failures;
        self.kills_and_stops += other.kills_and_stops;
        self.faults += other.faults;
        self.log_restarts += other.log_restarts;
    }

    /// How often something happened in a state; any if it is empty.
    pub fn of(&self, what: &str, state: &str) -> usize {
        let matches = |key: &(String, &str)| key.0.contains(what) && (state.is_empty() || key.1 == state);
        self.counts.iter().filter(|(key, _)| matches(key)).map(|(_, count)| count).sum()
    }

    /// The tables of `docs/proof.md`.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let header = STATES.join(" | ");
        let _ = writeln!(text, "| what | {header} |\n|---|{}", "---:|".repeat(STATES.len()));
        let mut whats: Vec<&String> = self.counts.keys().map(|(what, _)| what).collect();
        whats.dedup();
        for what in whats {
            let cell = |state: &&'static str| match self.counts.get(&(what.clone(), *state)) {
                Some(count) => count.to_string(),
                None => String::new(),
            };
            let cells: Vec<String> = STATES.iter().map(cell).collect();
            let _ = writeln!(text, "| {what} | {} |", cells.join(" | "));
        }
        let _ = writeln!(
            text,
            "\n| class | changes not flushed | sectors or names undone | power failures that undid some |"
        );
        let _ = writeln!(text, "|---|---:|---:|---:|");
        for (class, pending) in &self.pending {
            let of = |sums: &BTreeMap<&str, usize>| sums.get(class).copied().unwrap_or_default();
            let _ = writeln!(text, "| {class} | {pending} | {} | {} |", of(&self.undone), of(&self.losses));
        }
        let Self { power_failures, kills_and_stops, faults, log_restarts, .. } = self;
        let _ = writeln!(
            text,
            "\n{power_failures} power failures, {kills_and_stops} kills and stops, {faults} failed calls, {log_restarts} \
             restarts of the log."
        );
        text
    }
}
