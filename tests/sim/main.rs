//! The real engine, service and SQLite store under a seeded scheduler: one thread, paused time, a simulated disk and
//! simulated receivers. `docs/proof.md` says what is simulated.
//!
//! A world follows from its seed: `POSTRIDER_SIM_SEEDS=17..18 cargo test --test sim worlds` repeats one. A longer range
//! is a campaign.

mod actors;
#[expect(dead_code, reason = "the worlds of power failures draw in more ways")]
#[path = "../power/chance.rs"]
mod chance;
mod clock;
mod disk;
mod entropy;
mod jobs;
mod ledger;
mod model;
mod options;
mod pages;
mod receivers;
mod recovery;
mod script;
mod sim;
mod tally;

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use options::Options;
use script::Step;
use sim::Outcome;
use tally::{FAULTS, Tally};

/// In every run of the tests.
const SEEDS: Range<u64> = 0..40;
/// With `POSTRIDER_SIM_FRESH`, for as long as this, seeds that no run had before.
const FRESH: Duration = Duration::from_secs(25);
/// The longest search for a shorter script.
const SHRINKING: Duration = Duration::from_secs(60);
/// Worlds from which on the table must be full.
const CAMPAIGN: u64 = 1000;

#[expect(clippy::disallowed_methods, reason = "the tests have no settings but a few variables")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seeds() -> Option<Range<u64>> {
    let given = variable("POSTRIDER_SIM_SEEDS")?;
    let ends = given.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    Some(ends.unwrap_or_else(|| panic!("POSTRIDER_SIM_SEEDS={given} is no range such as 0..100")))
}

fn jobs() -> u64 {
    variable("POSTRIDER_SIM_JOBS").map_or(2, |jobs| jobs.parse().expect("a number of processes"))
}

fn world(seed: u64) -> Outcome {
    let options = Options::of(seed);
    let script = script::script(&options);
    sim::run(&options, &script, variable("POSTRIDER_SIM_TRACE").is_some())
}

/// Prints a broken promise: what, the options, a script that is as short as possible, and how to repeat it.
fn report(seed: u64, outcome: &Outcome) {
    let options = Options::of(seed);
    let violation = outcome.violation.as_deref().unwrap_or_default();
    println!("BROKEN: {violation}\n{}", outcome.last_lines);
    let (script, last) = shrink(&options, script::script(&options));
    println!("{options:?}\nthe shortest script that breaks a promise has {} steps:", script.len());
    script.iter().for_each(|step| println!("  {step:?}"));
    println!("{}BROKEN: {}", last.last_lines, last.violation.unwrap_or_default());
    println!("POSTRIDER_SIM_SEEDS={seed}..{} cargo test --test sim worlds -- --nocapture", seed + 1);
}

/// Leaves steps out while a promise is still broken.
fn shrink(options: &Options, mut script: Vec<Step>) -> (Vec<Step>, Outcome) {
    let began = Instant::now();
    let mut last = sim::run(options, &script, false);
    let mut length = script.len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        while from < script.len() && began.elapsed() < SHRINKING {
            let mut shorter = script.clone();
            shorter.drain(from..(from + length).min(script.len()));
            let outcome = sim::run(options, &shorter, false);
            if outcome.violation.is_some() {
                (script, last) = (shorter, outcome);
            } else {
                from += length;
            }
        }
        length /= 2;
    }
    (script, last)
}

/// Runs the worlds of these seeds in this process.
fn run_here(seeds: impl Iterator<Item = u64>, tally: &mut Tally) -> Vec<u64> {
    let mut broken = Vec::new();
    for seed in seeds {
        let outcome = world(seed);
        tally.add(&outcome.tally);
        if outcome.violation.is_some() {
            report(seed, &outcome);
            broken.push(seed);
        }
    }
    broken
}

/// Runs the worlds of these seeds in several processes, because SQLite's generator is the process's.
fn run_in_processes(seeds: &Range<u64>, tally: &mut Tally) -> Vec<u64> {
    let part = (seeds.end - seeds.start).div_ceil(jobs()).max(1);
    let parts = (0..jobs()).map(|job| (seeds.start + job * part)..(seeds.start + (job + 1) * part).min(seeds.end));
    let children: Vec<_> = parts
        .filter(|part| !part.is_empty())
        .map(|part| {
            let mut command = Command::new(std::env::current_exe().expect("a binary"));
            command.args(["--exact", "worlds_keep_every_promise", "--nocapture"]);
            command.env("POSTRIDER_SIM_SEEDS", format!("{}..{}", part.start, part.end));
            command.env("POSTRIDER_SIM_CHILD", "1").stdout(Stdio::piped());
            command.spawn().expect("a process")
        })
        .collect();
    let mut broken = Vec::new();
    for mut child in children {
        for line in BufReader::new(child.stdout.take().expect("an output")).lines() {
            let line = line.expect("text");
            match (Tally::from_line(&line), line.strip_prefix("SEED ")) {
                (Some(of_child), _) => tally.add(&of_child),
                (None, Some(seed)) => broken.push(seed.parse().expect("a seed")),
                (None, None) => println!("{line}"),
            }
        }
        let status = child.wait().expect("a process");
        assert!(status.success() || !broken.is_empty(), "a process ended with {status}");
    }
    broken
}

/// Runs seeds that nobody has run before. What they find is new, and must not stop somebody else's change.
fn run_fresh(tally: &mut Tally) -> Vec<u64> {
    let began = Instant::now();
    let random = postrider_crypto::Random::default();
    let from = u64::from(u32::from_le_bytes(random.bytes()));
    println!("fresh seeds from {from}");
    run_here((from..).take_while(|_| began.elapsed() < FRESH), tally)
}

#[test]
fn worlds_keep_every_promise() {
    let began = Instant::now();
    let mut tally = Tally::default();
    if variable("POSTRIDER_SIM_CHILD").is_some() {
        let broken = run_here(seeds().expect("seeds"), &mut tally);
        println!("\n{}", tally.to_line());
        broken.iter().for_each(|seed| println!("SEED {seed}"));
        return;
    }
    let broken = match seeds() {
        Some(seeds) if seeds.end - seeds.start == 1 => run_here(seeds, &mut tally),
        Some(seeds) => run_in_processes(&seeds, &mut tally),
        None => {
            let mut broken = run_in_processes(&SEEDS, &mut tally);
            if variable("POSTRIDER_SIM_FRESH").is_some() {
                broken.extend(run_fresh(&mut tally));
            }
            broken
        }
    };
    let report = tally.report();
    println!("{report}\n{:.0} s", began.elapsed().as_secs_f32());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("sim.md");
    std::fs::write(path, &report).expect("a report");
    assert!(broken.is_empty(), "promises were broken in the worlds of the seeds {broken:?}");
    if tally.worlds >= CAMPAIGN {
        for fault in FAULTS {
            assert!(tally.of(fault) > 0, "{fault} never happened");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3, 4] {
        let [first, second] = [world(seed), world(seed)];
        assert!(first.hash == second.hash, "{}\n\nversus\n\n{}", first.last_lines, second.last_lines);
    }
    assert_ne!(world(1).hash, world(2).hash);
}
