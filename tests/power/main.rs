//! Power failures, on the real binary: a preloaded library records what no flush covered, a random part of it is taken
//! back, and everything acknowledged must be there at the next start. `docs/proof.md` says what is simulated.
//!
//! A world follows from its seed. `POSTRIDER_POWER_SEEDS=17..18 cargo test --test power nothing_acknowledged` repeats
//! one; a longer range is a campaign, whose tables are in `target/tmp/power.md` afterwards.

mod chance;
mod disk;
mod faults;
mod ledger;
mod server;
mod tally;
mod upgrade;
mod workload;
mod world;

#[expect(dead_code, reason = "these tests use a part of what the integration tests need")]
#[path = "../it/support/mod.rs"]
mod support;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use tally::Tally;
use world::Options;

/// One world of each kind.
const SEEDS: Range<u64> = 0..7;
/// Rounds from which on the table of a campaign must be full.
const CAMPAIGN: usize = 300;

#[expect(clippy::disallowed_methods, reason = "the tests have no settings but a few variables")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seeds() -> Range<u64> {
    let Some(given) = variable("POSTRIDER_POWER_SEEDS") else { return SEEDS };
    let ends = given.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    ends.unwrap_or_else(|| panic!("POSTRIDER_POWER_SEEDS={given} is no range such as 0..100"))
}

fn jobs() -> usize {
    variable("POSTRIDER_POWER_JOBS").map_or(2, |jobs| jobs.parse().expect("a number of worlds at once"))
}

/// Runs a world to its end, or to the promise that it breaks.
async fn outcome(options: Options) -> Result<Tally, String> {
    match tokio::spawn(world::run(options)).await {
        Ok(outcome) => outcome,
        Err(panic) => Err(format!("a panic: {panic}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_failures_lose_nothing_acknowledged() {
    let (began, places) = (Instant::now(), Arc::new(Semaphore::new(jobs())));
    let (mut worlds, mut tally, mut broken) = (JoinSet::new(), Tally::default(), Vec::new());
    let count = seeds().count();
    for seed in seeds() {
        let places = Arc::clone(&places);
        worlds.spawn(async move {
            let _place = places.acquire_owned().await.expect("never closed");
            let options = Options::of(seed);
            (options, outcome(options).await)
        });
    }
    while let Some(ended) = worlds.join_next().await {
        match ended.expect("a world that does not panic") {
            (_, Ok(of_world)) => tally.add(of_world),
            (options, Err(violation)) => {
                let seed = options.seed;
                let repeat = format!("POSTRIDER_POWER_SEEDS={seed}..{} cargo test --test power nothing_ack", seed + 1);
                println!("BROKEN: {violation}\n  {options:?}\n  {repeat}");
                broken.push(seed);
            }
        }
    }
    let report = tally.report();
    println!("{count} worlds in {:.0} s\n\n{report}", began.elapsed().as_secs_f32());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("power.md");
    std::fs::write(path, &report).expect("a report");
    assert!(broken.is_empty(), "promises were broken in the worlds of the seeds {broken:?}");
    assert!(tally.power_failures >= count, "{report}");
    if tally.power_failures >= CAMPAIGN {
        check_coverage(&tally);
    }
}

/// A campaign that never met a state proves nothing about it.
fn check_coverage(tally: &Tally) {
    for state in tally::STATES {
        assert!(tally.of("power", state) > 0, "the power never failed in the state {state}");
    }
    for point in [
        "before sync of log",
        "during sync of log",
        "after sync of log",
        "write of log",
        "truncate of database",
        "write of database",
        "sync of database",
        "sync of directory",
        "create of directory",
        "sync of key file",
        "sync of journal",
        "unlink of log",
        "after the end",
    ] {
        assert!(tally.of(point, "") > 0, "the power never failed {point}");
    }
    assert!(tally.faults > 0, "no call failed");
    assert!(tally.log_restarts > 0, "the log never started again in its file");
}

/// Whether some world within a few seeds notices that flushes of such paths do nothing.
async fn is_caught(lie: &'static str) -> String {
    let mut worlds = JoinSet::new();
    for seed in [0, 1, 2, 7, 8, 9] {
        worlds.spawn(outcome(Options { lie: Some(lie), ..Options::of(seed) }));
        if worlds.len() == 2
            && let Some(Ok(Err(violation))) = worlds.join_next().await
        {
            return violation;
        }
    }
    while let Some(ended) = worlds.join_next().await {
        if let Ok(Err(violation)) = ended {
            return violation;
        }
    }
    panic!("nobody noticed that flushes of {lie:?} do nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_flushed_is_noticed() {
    println!("{}", is_caught("-wal").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_flushed_is_noticed() {
    println!("{}", is_caught(".db").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_not_flushed_is_noticed() {
    println!("{}", is_caught("master.key.new").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_flushed_is_noticed() {
    println!("{}", is_caught("/").await);
}
