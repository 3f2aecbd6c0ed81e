//! Several nodes on one PostgreSQL under faults of every kind. Acknowledged events arrive, in order where strict order
//! is set. The log has every attempt. No endpoint gets more concurrent calls than its limit.

mod cap;
mod claims;
mod fleet;
mod load;
mod log;
mod master_key;
mod order;
mod outage;
mod pooler;
mod rate_limit;
mod session;
mod way;

use std::sync::Arc;
use std::time::Instant;

use crate::support::cluster::{Cluster, Shutdown};
use crate::support::postgres::say;

use cap::Flood;
use fleet::{Fleet, NODES};
use load::{Door, Endpoint, Load};

/// The faults for the nodes and their database, and how often each occurs. The seed decides the order.
const TROUBLES: [(Trouble, usize); 4] = [
    (Trouble::Kill, 7),
    (Trouble::Cut, 6),
    (Trouble::Restart(Shutdown::Immediate), 2),
    (Trouble::Restart(Shutdown::Fast), 1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Kills a node with SIGKILL and starts it again.
    Kill,
    /// Ends some of the nodes' connections with `pg_terminate_backend`.
    Cut,
    Restart(Shutdown),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_lose_nothing_under_kills_cuts_and_restarts() {
    let Some(cluster) = Cluster::start(&[]).await else { return };
    let (cluster, began) = (Arc::new(cluster), Instant::now());
    let mut chance = Chance::seeded();
    say(format_args!("nodes: the seed is {}", chance.seed));
    let endpoints = Endpoint::start_all(&mut chance).await;
    let mut fleet = Fleet::start(&cluster, &endpoints).await;
    let watching = claims::watch(&cluster);
    let load = Load::start(&fleet, &mut chance);
    let flood = Flood::start(&cluster, Door::to(&fleet, &mut chance));

    load.wait_for_more(50).await;
    let paused = fleet.pause_one_that_has_claims(&mut chance).await;
    let mut troubles: Vec<Trouble> = TROUBLES.iter().flat_map(|(trouble, times)| vec![*trouble; *times]).collect();
    chance.shuffle(&mut troubles);
    for trouble in &troubles {
        load.wait_for_more(chance.between(5, 50)).await;
        match trouble {
            Trouble::Kill => fleet.kill_one(&mut chance).await,
            Trouble::Cut => fleet.cut_connections().await,
            Trouble::Restart(how) => fleet.restart_database(*how).await,
        }
    }
    cap::wait_until_reached(&fleet, &endpoints).await;
    // The leases of the frozen node expire, and the other nodes make its attempts.
    fleet.wait_until_taken_over(&paused).await;
    fleet.let_go_on(&paused).await;
    load.wait_for_more(100).await;
    fleet.publish_at(&paused).await;
    cap::wait_until_reached(&fleet, &endpoints).await;

    let (at_the_cap, at_most) = cap::check(&fleet, &endpoints);
    let mut published = load.finish().await;
    published.append(flood.finish().await);
    log::wait_until_nothing_is_due(&cluster).await;
    let claims = watching.finish().await;
    let log = log::check(&cluster, &published, &endpoints).await;
    let in_order = order::check(&cluster, &endpoints).await;
    say(format_args!(
        "nodes: seed {}: {} events acknowledged ({} publishes without an answer, {} answered 503), {} deliveries, {} attempts ({} \
         abandoned), {} arrivals ({} of them repeated); {} kills, 1 stop ({} outcomes refused in all), {} connections cut, {} \
         restarts of the database; {in_order} deliveries in strict order; at most {} live claims of an endpoint ({} of one process), seen in {} looks, and {at_the_cap} \
         requests under way once the nodes had settled, {at_most} before; {:.0} s",
        chance.seed,
        published.acknowledged.len(),
        published.unanswered,
        published.unavailable,
        log.deliveries,
        log.attempts,
        log.abandoned,
        log.arrivals,
        log.repeated,
        fleet.kills,
        fleet.outcomes_refused(),
        fleet.cuts,
        troubles.iter().filter(|trouble| matches!(trouble, Trouble::Restart(_))).count(),
        claims.most_of_endpoint,
        claims.most_of_process,
        claims.looks,
        began.elapsed().as_secs_f32(),
    ));
    assert!(log.abandoned > 0, "{NODES} nodes of which some were killed left no attempt behind");
    assert!(claims.looks > 50 && in_order > 50);
}

/// A seeded random generator. Set `POSTRIDER_TEST_SEED` to the seed of an earlier run to repeat its choices, as far as
/// the clock allows.
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    #[expect(clippy::disallowed_methods, reason = "the tests have no settings but a few variables")]
    fn seeded() -> Self {
        let given = std::env::var("POSTRIDER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let drawn = || u64::from(std::process::id()) << 20 ^ u64::from(free_bits());
        let seed = given.unwrap_or_else(drawn);
        Self { seed, state: seed }
    }

    /// A separate generator for a task, derived from the seed.
    fn fork(&mut self) -> Self {
        let seed = self.next();
        Self { seed, state: seed }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// Bits that differ from run to run.
fn free_bits() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    u32::try_from(RandomState::new().hash_one(0) & 0xf_ffff).unwrap()
}
