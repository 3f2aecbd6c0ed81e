//! Random interleavings of all operations on deliveries, checked against a small model.
//!
//! In any order of operations each delivery ends once, its attempts are numbered 1, 2, 3 … without a gap, and only the
//! holder of a claim can write. A failure prints the seed that repeats it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::id::DeliveryId;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::{Claim, Recorded};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::fixture::{Fixture, outline};

const STEPS: usize = 120;

/// The claim limit of the final drain: more deliveries than any walk leaves.
const EVERYTHING: usize = 10_000;

macro_rules! seeds {
    ($($name:ident = $seed:literal),+ $(,)?) => {
        on_each_backend! { $($name),+ }

        $(
            async fn $name(at: Fixture) {
                walk(at, $seed).await;
            }
        )+
    };
}

seeds! {
    a_random_walk_keeps_the_promises_1 = 1,
    a_random_walk_keeps_the_promises_2 = 2,
    a_random_walk_keeps_the_promises_3 = 3,
    a_random_walk_keeps_the_promises_4 = 4,
    a_random_walk_keeps_the_promises_5 = 5,
    a_random_walk_keeps_the_promises_6 = 6,
}

/// The model of one delivery.
#[derive(Default)]
struct Expected {
    attempts: Vec<(u32, AttemptOutcome)>,
    due_at: Timestamp,
    step: u32,
    holder: Option<Holder>,
    ended: Option<DeliveryStatus>,
}

struct Holder {
    claim: Claim,
    lease_ends_at: Timestamp,
    /// The process that held the claim is dead, so the store may take it over early.
    is_gone: bool,
}

struct Walk {
    at: Fixture,
    rng: StdRng,
    seed: u64,
    deliveries: BTreeMap<DeliveryId, Expected>,
    /// Every claim so far, so that lost ones can try to write.
    claims: Vec<Claim>,
}

async fn walk(at: Fixture, seed: u64) {
    at.endpoints(3).await;
    let rng = StdRng::seed_from_u64(seed);
    let mut walk = Walk { at, rng, seed, deliveries: BTreeMap::new(), claims: Vec::new() };
    for _ in 0..STEPS {
        match walk.rng.random_range(0..20) {
            0..=3 => walk.accept().await,
            4..=8 => walk.claim().await,
            9..=10 => walk.give_back().await,
            11..=16 => walk.record().await,
            17..=18 => walk.wait(),
            _ => walk.restart().await,
        }
    }
    walk.drain().await;
    walk.check_log().await;
}

impl Walk {
    async fn accept(&mut self) {
        let count = self.rng.random_range(1..4);
        let receipts = self.at.publish(count).await;
        assert!(receipts.iter().all(|receipt| receipt.deliveries == 3), "seed {}", self.seed);
        let events: HashSet<_> = receipts.iter().map(|receipt| receipt.id).collect();
        let due_at = self.at.clock_now();
        for delivery in self.at.deliveries().await {
            if events.contains(&delivery.event_id) {
                self.deliveries.insert(delivery.id, Expected { due_at, ..Expected::default() });
            }
        }
    }

    async fn claim(&mut self) {
        let limit = self.rng.random_range(1..8);
        let claims = self.at.claim(limit).await.claims;
        assert!(claims.len() <= limit, "seed {}", self.seed);
        for claim in claims {
            self.check_claim(claim);
        }
    }

    fn check_claim(&mut self, claim: Claim) {
        let (seed, now) = (self.seed, self.at.clock_now());
        let expected = self.deliveries.get_mut(&claim.delivery_id).expect("the delivery was accepted");
        assert_eq!(expected.ended, None, "seed {seed}: an ended delivery was claimed");
        if let Some(lost) = expected.holder.take() {
            assert!(lost.is_gone || lost.lease_ends_at <= now, "seed {seed}: claimed under a live lease");
            expected.attempts.push((lost.claim.attempt, AttemptOutcome::Abandoned));
        } else {
            assert!(expected.due_at <= now, "seed {seed}: claimed before it was due");
        }
        assert_eq!(claim.attempt as usize, expected.attempts.len() + 1, "seed {seed}: a gap in the numbers");
        assert_eq!(claim.step, expected.step, "seed {seed}");
        let holder = Holder { claim: claim.clone(), lease_ends_at: now.plus(limits::LEASE), is_gone: false };
        expected.holder = Some(holder);
        self.claims.push(claim);
    }

    /// A random claim, and whether it still holds.
    fn any_claim(&mut self) -> Option<(Claim, bool)> {
        // Prefers recent claims, so that most still hold.
        let from = if self.rng.random_range(0..4) == 0 { 0 } else { self.claims.len().saturating_sub(8) };
        let claim = self.claims.get(self.rng.random_range(from..self.claims.len().max(from + 1)))?.clone();
        let holder = self.deliveries[&claim.delivery_id].holder.as_ref();
        let holds = holder.is_some_and(|holder| holder.claim.token == claim.token);
        Some((claim, holds))
    }

    async fn give_back(&mut self) {
        let Some((claim, holds)) = self.any_claim() else { return };
        self.at.give_back(&claim).await;
        if holds {
            let expected = self.deliveries.get_mut(&claim.delivery_id).expect("the delivery was claimed");
            (expected.holder, expected.due_at) = (None, self.at.clock_now());
        }
    }

    async fn record(&mut self) {
        let Some((claim, holds)) = self.any_claim() else { return };
        let wait = Duration::from_secs(self.rng.random_range(0..120));
        let (outcome, ended) = match self.rng.random_range(0..4) {
            0 => (self.at.delivered(&claim), Some(DeliveryStatus::Delivered)),
            1 => (self.at.failed(&claim), Some(DeliveryStatus::Failed)),
            _ => (self.at.retry(&claim, wait), None),
        };
        let attempt = (claim.attempt, outcome.attempt.outcome);
        let recorded = self.at.record(outcome).await;
        assert_eq!(recorded == Recorded::Done, holds, "seed {}: {claim:?}", self.seed);
        if holds {
            let due_at = self.at.clock_now().plus(wait);
            let expected = self.deliveries.get_mut(&claim.delivery_id).expect("the delivery was claimed");
            expected.attempts.push(attempt);
            (expected.holder, expected.ended, expected.due_at) = (None, ended, due_at);
            expected.step += u32::from(ended.is_none());
        }
    }

    fn wait(&mut self) {
        let wait = Duration::from_millis(self.rng.random_range(1..90_000));
        self.at.advance(wait);
    }

    async fn restart(&mut self) {
        self.at.reopen().await;
        for expected in self.deliveries.values_mut() {
            if let Some(holder) = &mut expected.holder {
                holder.is_gone = true;
            }
        }
    }

    /// Waits for every lease and every retry. Then one claim must return every unfinished delivery.
    async fn drain(&mut self) {
        self.at.advance(Duration::from_secs(3600));
        let unfinished = self.deliveries.values().filter(|expected| expected.ended.is_none()).count();
        let claims = self.at.claim(EVERYTHING).await.claims;
        assert_eq!(claims.len(), unfinished, "seed {}: a delivery was lost or duplicated", self.seed);
        for claim in claims {
            self.check_claim(claim.clone());
            assert_eq!(self.at.record(self.at.delivered(&claim)).await, Recorded::Done, "seed {}", self.seed);
            let expected = self.deliveries.get_mut(&claim.delivery_id).expect("the delivery was claimed");
            expected.attempts.push((claim.attempt, AttemptOutcome::Delivered));
            (expected.holder, expected.ended) = (None, Some(DeliveryStatus::Delivered));
        }
        self.at.advance(Duration::from_secs(3600));
        self.at.claim(EVERYTHING).await;
        let idle = self.at.claim(EVERYTHING).await;
        assert_eq!((idle.claims.len(), idle.next_due_in), (0, None), "seed {}", self.seed);
    }

    async fn check_log(&self) {
        for (id, expected) in &self.deliveries {
            let (delivery, attempts) = self.at.delivery(*id).await;
            assert_eq!(Some(delivery.status), expected.ended, "seed {}: {id}", self.seed);
            assert_eq!(outline(&attempts), expected.attempts, "seed {}: {id}", self.seed);
            assert_eq!(delivery.attempt_count as usize, attempts.len(), "seed {}: {id}", self.seed);
            assert!((1..).zip(&attempts).all(|(number, attempt)| number == attempt.number), "seed {}", self.seed);
        }
    }
}
