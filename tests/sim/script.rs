//! The script of a world: what happens, in which order, after which waits. It is made from the seed before the world
//! begins, so that a shorter script can be run in its place.
//!
//! A number that names an event or an endpoint counts modulo those that exist, so a script without some of its steps is
//! a script too.

use crate::chance::Chance;
use crate::options::{Feature, Options};

#[derive(Clone, Debug)]
pub struct Step {
    pub after_ms: u64,
    /// The next step waits until this one has an answer.
    pub waits: bool,
    pub act: Act,
}

#[derive(Clone, Debug)]
pub enum Act {
    Publish {
        owner: usize,
        events: Vec<NewEvent>,
    },
    Create {
        owner: usize,
        config: Config,
        rate: Option<u64>,
    },
    Patch {
        endpoint: usize,
        events: u16,
        project: Option<u8>,
    },
    Activate {
        endpoint: usize,
        active: bool,
    },
    Delete {
        endpoint: usize,
    },
    Rotate {
        endpoint: usize,
        overlap_s: u64,
        revoke: bool,
    },
    TestEvent {
        endpoint: usize,
    },
    Retry {
        event: usize,
        endpoint: usize,
    },
    Replay {
        endpoint: usize,
    },
    /// Skips what blocks a strict order.
    Skip {
        owner: usize,
    },
    EraseEvent {
        event: usize,
        finish: bool,
    },
    EraseProject {
        owner: usize,
        project: u8,
        finish: bool,
    },
    /// The receiver of an endpoint behaves in another way from now on.
    Receiver {
        endpoint: usize,
        behaviour: Behaviour,
    },
    SlowFlush {
        slowest_ms: u64,
    },
    FlushError {
        after: u32,
    },
    /// Nothing happens for a while.
    Quiet {
        seconds: u64,
    },
    Power,
    Kill,
    Stop,
}

#[derive(Clone, Debug)]
pub struct NewEvent {
    pub kind: u8,
    pub project: Option<u8>,
    /// Names an earlier event with an `externalId` when there is one, and `repeats`.
    pub external: Option<usize>,
    pub repeats: bool,
    /// Bytes of filler in `data`.
    pub filler: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A bit for each name of the catalogue.
    pub events: u16,
    pub project: Option<u8>,
    pub active: bool,
    pub strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    Works,
    /// About every second request fails with 400, 404, 429, 500 or 503.
    Flaky,
    Down,
    Gone,
    RetryAfter(u16),
    Timeout,
    /// The connection closes after the request arrived.
    Reset,
    /// No connection.
    Refused,
    Slow,
}

pub const KINDS: usize = 9;
const PROJECTS: usize = 3;

/// The owners of a world: workspaces and modes. Every second one is of test mode.
pub fn owners(options: &Options) -> usize {
    if options.has(Feature::TestMode) { 4 } else { 2 }
}

/// Test mode stands behind live mode, so that a world without it has the others' numbers.
pub const fn is_test(owner: usize) -> bool {
    owner >= 2
}

pub fn script(options: &Options) -> Vec<Step> {
    let mut chance = Chance::of(options.seed ^ 0x5c41_97e5);
    let mut steps: Vec<Step> = (0..2 + chance.below(5))
        .map(|_| Step { after_ms: 0, waits: true, act: create(options, &mut chance) })
        .collect();
    while steps.len() < options.steps {
        let after_ms = chance.below(options.pause_ms + 1) as u64;
        if let Some(act) = draw(options, &mut chance) {
            steps.push(Step { after_ms, waits: chance.one_in(3), act });
        }
    }
    steps
}

fn create(options: &Options, chance: &mut Chance) -> Act {
    let events = if !chance.one_in(4) { (1 << KINDS) - 1 } else { some_events(chance) };
    let project = project(options, chance);
    let strict = options.has(Feature::Strict) && chance.one_in(2);
    let rate = (options.has(Feature::Rate) && chance.one_in(3)).then(|| chance.pick(&[1, 5, 50]));
    let owner = chance.below(owners(options));
    Act::Create { owner, config: Config { events, project, active: true, strict }, rate }
}

fn some_events(chance: &mut Chance) -> u16 {
    let drawn = u16::try_from(chance.below(1 << KINDS)).expect("nine bits");
    drawn | 1 << chance.below(KINDS)
}

fn project(options: &Options, chance: &mut Chance) -> Option<u8> {
    let drawn = u8::try_from(chance.below(PROJECTS)).expect("few projects");
    (options.has(Feature::Project) && chance.one_in(3)).then_some(drawn)
}

fn new_event(options: &Options, chance: &mut Chance) -> NewEvent {
    let is_named = options.has(Feature::Dedupe) && chance.one_in(2);
    NewEvent {
        kind: u8::try_from(chance.below(KINDS)).expect("few names"),
        project: project(options, chance),
        external: is_named.then(|| chance.below(1000)),
        repeats: is_named && chance.one_in(2),
        filler: chance.pick(&[0, 0, 40, 3000]),
    }
}

/// `None` for something that this world does not do.
fn draw(options: &Options, chance: &mut Chance) -> Option<Act> {
    let any = chance.below(1000);
    let endpoint = any;
    let owner = chance.below(owners(options));
    let act = match chance.below(100) {
        0..42 => {
            let batch = options.has(Feature::Batch) && chance.one_in(4);
            let count = if batch { 2 + chance.below(12) } else { 1 };
            Act::Publish { owner, events: (0..count).map(|_| new_event(options, chance)).collect() }
        }
        42..46 => create(options, chance),
        46..49 if options.has(Feature::Patch) => {
            Act::Patch { endpoint, events: some_events(chance), project: project(options, chance) }
        }
        49..53 if options.has(Feature::Disable) => Act::Activate { endpoint, active: chance.one_in(2) },
        53..55 if options.has(Feature::Delete) => Act::Delete { endpoint },
        55..59 if options.has(Feature::Rotate) => {
            let overlap_s = if options.has(Feature::Overlap) { chance.pick(&[0, 10, 600]) } else { 0 };
            Act::Rotate { endpoint, overlap_s, revoke: options.has(Feature::Revoke) && chance.one_in(3) }
        }
        59..62 if options.has(Feature::TestEvent) => Act::TestEvent { endpoint },
        62..66 if options.has(Feature::Retry) => Act::Retry { event: chance.below(1000), endpoint },
        66..69 if options.has(Feature::Replay) => Act::Replay { endpoint },
        69..71 if options.has(Feature::Strict) => Act::Skip { owner },
        71..74 if options.has(Feature::Erase) => {
            let finish = chance.one_in(3);
            if options.has(Feature::Project) && chance.one_in(4) {
                let project = u8::try_from(chance.below(PROJECTS)).expect("few projects");
                Act::EraseProject { owner, project, finish }
            } else {
                Act::EraseEvent { event: any, finish }
            }
        }
        74..84 => Act::Receiver { endpoint, behaviour: behaviour(options, chance)? },
        84..86 if options.has(Feature::SlowFlush) => Act::SlowFlush { slowest_ms: chance.pick(&[0, 50, 400]) },
        86..87 if options.has(Feature::FlushError) => {
            Act::FlushError { after: u32::try_from(chance.below(6)).expect("few") }
        }
        87..92 => Act::Quiet { seconds: chance.pick(&[1, 5, 20, 70]) },
        92..94 if options.has(Feature::Power) => Act::Power,
        94..95 if options.has(Feature::Kill) => Act::Kill,
        95..96 if options.has(Feature::Stop) => Act::Stop,
        _ => return None,
    };
    Some(act)
}

fn behaviour(options: &Options, chance: &mut Chance) -> Option<Behaviour> {
    Some(match chance.below(9) {
        0 | 1 => Behaviour::Works,
        2 if options.has(Feature::Errors) => Behaviour::Flaky,
        3 if options.has(Feature::Errors) => Behaviour::Down,
        4 if options.has(Feature::Gone) => Behaviour::Gone,
        5 if options.has(Feature::RetryAfter) => Behaviour::RetryAfter(chance.pick(&[0, 1, 20, 120])),
        6 if options.has(Feature::Timeouts) => Behaviour::Timeout,
        7 if options.has(Feature::Resets) => chance.pick(&[Behaviour::Reset, Behaviour::Refused]),
        8 if options.has(Feature::Slow) => Behaviour::Slow,
        _ => return None,
    })
}
