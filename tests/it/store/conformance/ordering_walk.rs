//! Random walks over endpoints with strict order, checked against a model that is a plain queue.
//!
//! In any order of operations only the head of an endpoint's queue is claimed, and as soon as it may be. A failed head
//! blocks the rest until it is skipped or retried. A failure prints the seed that repeats it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use postrider_domain::endpoint::Endpoint;
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::id::{DeliveryId, RowKey};
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::{Claim, Recorded};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::fixture::Fixture;

const STEPS: usize = 200;

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
    a_random_walk_in_strict_order_keeps_the_promises_1 = 1,
    a_random_walk_in_strict_order_keeps_the_promises_2 = 2,
    a_random_walk_in_strict_order_keeps_the_promises_3 = 3,
    a_random_walk_in_strict_order_keeps_the_promises_4 = 4,
    a_random_walk_in_strict_order_keeps_the_promises_5 = 5,
    a_random_walk_in_strict_order_keeps_the_promises_6 = 6,
    a_random_walk_in_strict_order_keeps_the_promises_7 = 7,
    a_random_walk_in_strict_order_keeps_the_promises_8 = 8,
}

/// The model of one endpoint.
struct Expected {
    endpoint: Endpoint,
    is_on: bool,
    is_strict: bool,
    /// The undelivered deliveries in order.
    queue: VecDeque<DeliveryId>,
    /// The instant at which the head may be claimed, or at which its lease ends.
    head_due_at: Timestamp,
    holder: Option<Claim>,
    stopped_at: Option<DeliveryId>,
}

struct Walk {
    at: Fixture,
    rng: StdRng,
    seed: u64,
    endpoints: BTreeMap<RowKey, Expected>,
    /// Every claim so far, so that lost ones can try to write.
    claims: Vec<Claim>,
}

async fn walk(at: Fixture, seed: u64) {
    let mut endpoints = BTreeMap::new();
    for _ in 0..3 {
        let endpoint = at.strict_endpoint().await;
        let (queue, head_due_at) = (VecDeque::new(), Timestamp::default());
        let expected =
            Expected { endpoint, is_on: true, is_strict: true, queue, head_due_at, holder: None, stopped_at: None };
        endpoints.insert(expected.endpoint.key, expected);
    }
    let mut walk = Walk { at, rng: StdRng::seed_from_u64(seed), seed, endpoints, claims: Vec::new() };
    for _ in 0..STEPS {
        match walk.rng.random_range(0..30) {
            0..=5 => walk.accept().await,
            6..=12 => walk.claim().await,
            13 => walk.give_back().await,
            14..=20 => walk.record().await,
            21..=22 => walk.at.advance(Duration::from_millis(walk.rng.random_range(1..90_000))),
            23..=25 => walk.decide().await,
            26..=27 => walk.switch().await,
            28 => walk.expire().await,
            _ => walk.restart().await,
        }
    }
    walk.drain().await;
}

impl Walk {
    fn any_endpoint(&mut self) -> &mut Expected {
        let number = self.rng.random_range(0..self.endpoints.len());
        self.endpoints.values_mut().nth(number).expect("the number is in range")
    }

    async fn accept(&mut self) {
        // The model knows no endpoint without strict order, so nothing is published while there is one.
        if self.endpoints.values().any(|expected| !expected.is_strict) {
            return;
        }
        let count = self.rng.random_range(1..4);
        let receipts = self.at.publish(count).await;
        assert!(receipts.iter().all(|receipt| receipt.deliveries == 3), "seed {}", self.seed);
        let now = self.at.clock_now();
        let mut accepted = self.at.deliveries().await;
        accepted.retain(|delivery| receipts.iter().any(|receipt| receipt.id == delivery.event_id));
        accepted.reverse();
        for delivery in accepted {
            let mut endpoints = self.endpoints.values_mut();
            let expected =
                endpoints.find(|known| known.endpoint.id == delivery.endpoint_id).expect("the model has the endpoint");
            if expected.queue.is_empty() {
                expected.head_due_at = now;
            }
            expected.queue.push_back(delivery.id);
        }
    }

    async fn claim(&mut self) {
        let (seed, now) = (self.seed, self.at.clock_now());
        let can_go = |expected: &Expected| {
            expected.is_on && expected.stopped_at.is_none() && !expected.queue.is_empty() && expected.head_due_at <= now
        };
        let ready: Vec<RowKey> =
            self.endpoints.iter().filter(|(_, expected)| can_go(expected)).map(|(key, _)| *key).collect();
        let claims = self.at.claim(100).await.claims;
        let mut claimed: Vec<RowKey> = claims.iter().map(|claim| claim.lane.endpoint_key).collect();
        claimed.sort();
        assert_eq!(claimed, ready, "seed {seed}: one claim per ready endpoint, and no other");
        for claim in claims {
            let expected = self.endpoints.get_mut(&claim.lane.endpoint_key).expect("the model has the endpoint");
            assert_eq!(Some(&claim.delivery_id), expected.queue.front(), "seed {seed}: overtaken");
            expected.head_due_at = now.plus(limits::LEASE);
            expected.holder = Some(claim.clone());
            self.claims.push(claim);
        }
    }

    /// A random claim, and whether it still holds.
    fn any_claim(&mut self) -> Option<(Claim, bool)> {
        let from = if self.rng.random_range(0..4) == 0 { 0 } else { self.claims.len().saturating_sub(4) };
        let claim = self.claims.get(self.rng.random_range(from..self.claims.len().max(from + 1)))?.clone();
        let holder = self.endpoints[&claim.lane.endpoint_key].holder.as_ref();
        let holds = holder.is_some_and(|holder| holder.token == claim.token);
        Some((claim, holds))
    }

    fn known(&mut self, claim: &Claim) -> &mut Expected {
        self.endpoints.get_mut(&claim.lane.endpoint_key).expect("the model has the endpoint")
    }

    async fn give_back(&mut self) {
        let Some((claim, holds)) = self.any_claim() else { return };
        self.at.give_back(&claim).await;
        if holds {
            let now = self.at.clock_now();
            let expected = self.known(&claim);
            (expected.holder, expected.head_due_at) = (None, now);
        }
    }

    async fn record(&mut self) {
        let Some((claim, holds)) = self.any_claim() else { return };
        let wait = Duration::from_secs(self.rng.random_range(0..120));
        let what = self.rng.random_range(0..4);
        let outcome = match what {
            0 => self.at.failed(&claim),
            1 => self.at.retry(&claim, wait),
            _ => self.at.delivered(&claim),
        };
        let recorded = self.at.record(outcome).await;
        assert_eq!(recorded == Recorded::Done, holds, "seed {}: {claim:?}", self.seed);
        if !holds {
            return;
        }
        let now = self.at.clock_now();
        let expected = self.known(&claim);
        expected.holder = None;
        if what == 1 {
            expected.head_due_at = now.plus(wait);
            return;
        }
        expected.queue.pop_front();
        expected.head_due_at = now;
        if what == 0 && expected.is_strict {
            expected.stopped_at = Some(claim.delivery_id);
        }
    }

    /// Skips or retries the delivery at which an endpoint's order has stopped.
    async fn decide(&mut self) {
        let retries = self.rng.random_range(0..2) == 0;
        let now = self.at.clock_now();
        let expected = self.any_endpoint();
        let Some(failed) = expected.stopped_at else { return };
        if retries && !expected.is_on {
            return;
        }
        expected.stopped_at = None;
        expected.head_due_at = now;
        let key = expected.endpoint.key;
        if retries {
            let again = self.at.retry_by_hand(failed).await.id;
            self.endpoints.get_mut(&key).expect("the model has the endpoint").queue.push_front(again);
        } else {
            self.at.skip(failed).await;
        }
    }

    async fn switch(&mut self) {
        let changes_order = self.rng.random_range(0..4) == 0;
        let expected = self.any_endpoint();
        let endpoint = expected.endpoint.clone();
        if changes_order {
            expected.is_strict = !expected.is_strict;
            expected.stopped_at = expected.stopped_at.filter(|_| expected.is_strict);
            let order = if expected.is_strict { DeliveryOrder::Strict } else { DeliveryOrder::None };
            self.at.set_order(&endpoint, order).await;
        } else {
            expected.is_on = !expected.is_on;
            let is_on = expected.is_on;
            self.at.switch(&endpoint, is_on).await;
        }
    }

    /// No delivery of a walk is old enough to expire.
    async fn expire(&mut self) {
        assert_eq!(self.at.store().expire_waiting(100).await.unwrap(), 0, "seed {}", self.seed);
    }

    /// SQLite frees the claims of the previous process at once, PostgreSQL after their lease. So all leases end first.
    async fn restart(&mut self) {
        self.at.reopen().await;
        self.at.advance(limits::LEASE);
    }

    /// Skips every blocking delivery. Then every queue must empty from its head.
    async fn drain(&mut self) {
        let endpoints: Vec<Endpoint> = self.endpoints.values().map(|expected| expected.endpoint.clone()).collect();
        for endpoint in &endpoints {
            self.at.switch(endpoint, true).await;
            let expected = self.endpoints.get_mut(&endpoint.key).expect("the model has the endpoint");
            expected.is_on = true;
            if let Some(failed) = expected.stopped_at.take() {
                self.at.skip(failed).await;
            }
        }
        self.at.advance(Duration::from_secs(3600));
        while self.endpoints.values().any(|expected| !expected.queue.is_empty()) {
            self.claim().await;
            for key in endpoints.iter().map(|endpoint| endpoint.key) {
                let now = self.at.clock_now();
                let expected = self.endpoints.get_mut(&key).expect("the model has the endpoint");
                if let Some(claim) = expected.holder.take() {
                    expected.queue.pop_front();
                    expected.head_due_at = now;
                    assert_eq!(self.at.record(self.at.delivered(&claim)).await, Recorded::Done, "seed {}", self.seed);
                }
            }
        }
        self.at.advance(limits::LEASE);
        self.at.claim(100).await;
        let idle = self.at.claim(100).await;
        assert_eq!((idle.claims.len(), idle.next_due_in), (0, None), "seed {}", self.seed);
    }
}
