//! The request limit of a workspace on several nodes that share a store.
//!
//! Each node counts its own requests exactly and knows the others' from the last exchange: it stores its counts and
//! then reads theirs. A request needs no exchange. But a node that has admitted its `allowance` since its last
//! exchange makes another one before it admits more. So the sum is bounded by counts, whatever an exchange takes.
//!
//! **The bound.** Take the requests admitted in some 60 s, and the node whose exchange was the last one that still led
//! to an admission. It saw all that the nodes had stored until then, and its sum was below the limit. Each other node
//! had at most its allowance that was not stored yet, since it admitted nothing after a later exchange. So all together
//! admit less than `limit + (nodes - 1) * allowance`, which is 1.1 times the limit. While a node joins, the others do
//! not count with it yet; that adds at most one more allowance each.
//!
//! **Without the store** nobody can exchange. Then each node admits its allowance in a minute and refuses the rest, so
//! the bound holds. Little is lost: without the store, no key can be looked up and nothing can be published either.

use std::num::NonZeroU32;
use std::time::Duration;

use super::limits;
use super::rate_limit::{Rate, SlidingWindow};
use super::time::Timestamp;

/// The other nodes, as a node sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// No other node can share the store.
    None,
    /// The store is shared. `nodes` counts this one too.
    Reachable { nodes: u32 },
    /// As `Reachable`, but the last exchange failed.
    Unreachable { nodes: u32 },
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted(Rate),
    Refused(Rate),
    /// Exchange counts, then ask again. Nothing was counted.
    ExchangeFirst,
}

/// Requests by their age in whole seconds, rounded down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountsByAge(Vec<(u32, u32)>);

/// The counts of one node that are to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsToStore {
    pub counts: CountsByAge,
    /// How many of them are not stored yet. Goes back to [`SharedWindow::complete_exchange`].
    pub unconfirmed: u32,
}

/// The requests of one workspace in one bucket during the last 60 s, at this node and at the others.
#[derive(Debug, Default)]
pub struct SharedWindow {
    own: SlidingWindow,
    /// When requests of other nodes leave the window, and how many. In order.
    others: Vec<(Timestamp, u32)>,
    /// Own requests that are not known to be stored.
    unconfirmed: u32,
    exchanged_at: Option<Timestamp>,
}

/// How many requests a node may admit between two exchanges: a twentieth of the limit with two nodes, and so on.
///
/// At least one, so a limit below five times the number of nodes can be exceeded by more than a fifth.
fn allowance(limit: NonZeroU32, nodes: u32) -> u32 {
    (limit.get() / limits::RATE_ALLOWANCE_PART / sharing(nodes)).max(1)
}

/// A node that is alone counts with another one, which can join at any time.
fn sharing(nodes: u32) -> u32 {
    nodes.max(2)
}

impl SharedWindow {
    /// Admits one request, refuses it, or asks for an exchange.
    pub fn take(&mut self, limit: NonZeroU32, peers: Peers, now: Timestamp) -> Admission {
        let (own, others) = (self.own.count(now), self.count_others(now));
        if own.saturating_add(others) >= limit.get() {
            return Admission::Refused(self.rate(limit, now));
        }
        match peers {
            Peers::None => {}
            Peers::Reachable { nodes } if self.unconfirmed >= allowance(limit, nodes) => {
                return Admission::ExchangeFirst;
            }
            Peers::Unreachable { nodes } if self.unconfirmed.min(own) >= allowance(limit, nodes) => {
                return Admission::Refused(self.rate(limit, now));
            }
            Peers::Reachable { .. } | Peers::Unreachable { .. } => {}
        }
        self.own.admit(limit, now);
        if peers != Peers::None {
            self.unconfirmed += 1;
        }
        Admission::Admitted(self.rate(limit, now))
    }

    /// Whether no request counts any more.
    pub fn is_idle(&mut self, now: Timestamp) -> bool {
        self.own.is_idle(now) && self.count_others(now) == 0
    }

    /// Whether the node knows nothing about this workspace yet, or what it knows is outdated.
    pub fn is_unacquainted(&self, now: Timestamp) -> bool {
        self.exchanged_at.is_none_or(|at| now < at || now.since(at) >= limits::RATE_WINDOW)
    }

    /// The counts to store, if an exchange is due: soon the allowance is spent, or the last one was long ago.
    pub fn counts_to_store(&mut self, limit: NonZeroU32, peers: Peers, now: Timestamp) -> Option<CountsToStore> {
        let (Peers::Reachable { nodes } | Peers::Unreachable { nodes }) = peers else { return None };
        // After an outage some of them are too old to count.
        self.unconfirmed = self.unconfirmed.min(self.own.count(now));
        let is_old = self.exchanged_at.is_none_or(|at| now < at || now.since(at) >= limits::RATE_EXCHANGE_AGE);
        let is_due = self.unconfirmed > 0 && (is_old || self.unconfirmed >= allowance(limit, nodes).div_ceil(2));
        is_due.then(|| CountsToStore { counts: self.own.by_age(now), unconfirmed: self.unconfirmed })
    }

    /// Takes over what an exchange has found. `confirmed` was stored before the others' counts were read; each of
    /// these is as old as the time that has passed since its node stored it.
    pub fn complete_exchange(&mut self, confirmed: u32, others: &[(Duration, CountsByAge)], now: Timestamp) {
        self.unconfirmed = self.unconfirmed.saturating_sub(confirmed);
        self.exchanged_at = Some(now);
        self.others.clear();
        for (passed, CountsByAge(counts)) in others {
            // A request that is 3.9 s old was counted as 3 s old, so it counts longer, never shorter.
            let leaves = |age: u32| now.plus(limits::RATE_WINDOW).minus(Duration::from_secs(age.into()) + *passed);
            self.others.extend(counts.iter().map(|(age, count)| (leaves(*age), *count)));
        }
        self.others.sort_unstable();
    }

    fn count_others(&mut self, now: Timestamp) -> u32 {
        // A clock that was set back would let old entries count for that long.
        let latest = now.plus(2 * limits::RATE_WINDOW);
        self.others.retain(|(leaves, _)| *leaves > now && *leaves <= latest);
        self.others.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn rate(&self, limit: NonZeroU32, now: Timestamp) -> Rate {
        let others: u32 = self.others.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count));
        let rate = self.own.rate(limit, now);
        let of_others = self.others.first().map(|(leaves, _)| leaves.since(now));
        let of_own = Some(rate.reset).filter(|reset| !reset.is_zero());
        let reset = of_own.into_iter().chain(of_others).min().unwrap_or_default();
        Rate { remaining: rate.remaining.saturating_sub(others), reset, ..rate }
    }
}

impl CountsByAge {
    /// `ages` in whole seconds, in any order.
    pub fn collect(ages: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut counts: Vec<(u32, u32)> = Vec::new();
        for (age, count) in ages {
            match counts.last_mut() {
                Some((last, sum)) if *last == age => *sum = sum.saturating_add(count),
                _ => counts.push((age, count)),
            }
        }
        Self(counts)
    }

    /// `age:count` for each second, separated by spaces.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|(age, count)| format!("{age}:{count}")).collect::<Vec<_>>().join(" ")
    }

    /// `None` when the text is not one that [`Self::to_text`] makes.
    pub fn from_text(text: &str) -> Option<Self> {
        let pair = |pair: &str| {
            let (age, count) = pair.split_once(':')?;
            Some((age.parse().ok()?, count.parse().ok()?))
        };
        text.split_ascii_whitespace().map(pair).collect::<Option<Vec<_>>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_778_846_400_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(START + millis)
    }

    fn limit(requests: u32) -> NonZeroU32 {
        NonZeroU32::new(requests).unwrap()
    }

    /// Nodes that share a store, which keeps the counts of each with their time.
    struct Nodes {
        limit: NonZeroU32,
        windows: Vec<SharedWindow>,
        stored: Vec<Option<(Timestamp, CountsByAge)>>,
        /// Counts that a node has stored and not read the others' for yet.
        under_way: Vec<Option<u32>>,
        is_up: bool,
        admitted: Vec<Timestamp>,
        refused: usize,
    }

    impl Nodes {
        fn new(nodes: usize, limit: NonZeroU32) -> Self {
            Self {
                limit,
                windows: (0..nodes).map(|_| SharedWindow::default()).collect(),
                stored: vec![None; nodes],
                under_way: vec![None; nodes],
                is_up: true,
                admitted: Vec::new(),
                refused: 0,
            }
        }

        fn peers(&self) -> Peers {
            let nodes = u32::try_from(self.windows.len()).unwrap();
            if self.is_up { Peers::Reachable { nodes } } else { Peers::Unreachable { nodes } }
        }

        /// The first half of an exchange. Requests come before the second.
        fn store(&mut self, node: usize, now: Timestamp) {
            let peers = self.peers();
            if self.is_up
                && self.under_way[node].is_none()
                && let Some(report) = self.windows[node].counts_to_store(self.limit, peers, now)
            {
                self.stored[node] = Some((now, report.counts));
                self.under_way[node] = Some(report.unconfirmed);
            }
        }

        fn read(&mut self, node: usize, now: Timestamp) {
            if self.is_up
                && let Some(confirmed) = self.under_way[node].take()
            {
                let others = (0..self.stored.len()).filter(|other| *other != node);
                let others: Vec<_> = others
                    .filter_map(|other| self.stored[other].as_ref())
                    .map(|(at, counts)| (now.since(*at), counts.clone()))
                    .collect();
                self.windows[node].complete_exchange(confirmed, &others, now);
            }
        }

        fn request(&mut self, node: usize, now: Timestamp) {
            let peers = self.peers();
            let mut admission = self.windows[node].take(self.limit, peers, now);
            if admission == Admission::ExchangeFirst {
                self.read(node, now);
                self.store(node, now);
                self.read(node, now);
                admission = self.windows[node].take(self.limit, peers, now);
            }
            match admission {
                Admission::Admitted(_) => self.admitted.push(now),
                Admission::Refused(_) => self.refused += 1,
                Admission::ExchangeFirst => panic!("an exchange that changed nothing"),
            }
        }

        fn most_in_a_minute(&self) -> usize {
            let ends = self.admitted.iter().enumerate().map(|(first, start)| {
                let end = start.plus(limits::RATE_WINDOW);
                self.admitted.partition_point(|at| *at < end) - first
            });
            ends.max().unwrap_or_default()
        }
    }

    #[test]
    fn one_node_admits_the_whole_limit_and_not_one_more() {
        for (mut nodes, requests) in [(Nodes::new(1, limit(100)), 150), (Nodes::new(4, limit(100)), 150)] {
            for _ in 0..requests {
                nodes.request(0, at(0));
            }
            assert_eq!((nodes.admitted.len(), nodes.refused), (100, 50));
        }
    }

    #[test]
    fn a_burst_at_all_nodes_at_once_stays_near_the_limit() {
        for count in 2..=4 {
            let mut nodes = Nodes::new(count, limit(1_200));
            for _ in 0..1_200 {
                (0..count).for_each(|node| nodes.request(node, at(0)));
            }
            let admitted = nodes.admitted.len();
            assert!((1_200..=1_320).contains(&admitted), "{count} nodes admitted {admitted}");
        }
    }

    #[test]
    fn a_request_counts_at_other_nodes_until_it_is_a_minute_old() {
        let mut nodes = Nodes::new(2, limit(100));
        (0..100).for_each(|_| nodes.request(0, at(0)));
        nodes.store(0, at(10));
        nodes.read(0, at(10));
        nodes.request(1, at(20));
        nodes.store(1, at(20));
        nodes.read(1, at(20));
        let peers = nodes.peers();
        let Admission::Refused(rate) = nodes.windows[1].take(limit(100), peers, at(30)) else {
            panic!("a full window")
        };
        assert_eq!((rate.limit, rate.remaining), (100, 0));
        assert!(rate.reset > Duration::from_secs(58) && rate.reset <= Duration::from_secs(61), "{:?}", rate.reset);
        assert!(matches!(nodes.windows[1].take(limit(100), peers, at(61_100)), Admission::Admitted(_)));
    }

    #[test]
    fn without_the_store_each_node_admits_its_allowance() {
        let mut nodes = Nodes::new(4, limit(1_200));
        (0..1_200).for_each(|_| nodes.request(0, at(0)));
        nodes.is_up = false;
        for millis in [1_000, 62_000] {
            let before = nodes.admitted.len();
            for _ in 0..1_200 {
                (0..4).for_each(|node| nodes.request(node, at(millis)));
            }
            let admitted = nodes.admitted.len() - before;
            assert!((90..=120).contains(&admitted), "30 of each node that has any left, not {admitted}");
        }
        nodes.is_up = true;
        for node in 0..4 {
            (0..1_200).for_each(|_| nodes.request(node, at(63_000)));
        }
        assert!((1_200..=1_320).contains(&nodes.most_in_a_minute()), "{}", nodes.most_in_a_minute());
    }

    #[test]
    fn counts_are_read_back_from_their_text() {
        let counts = CountsByAge::collect([(5, 1), (5, 2), (0, 7)].into_iter());
        assert_eq!(counts.to_text(), "5:3 0:7");
        assert_eq!(CountsByAge::from_text("5:3 0:7"), Some(counts));
        assert_eq!(CountsByAge::from_text(""), Some(CountsByAge::default()));
        assert_eq!((CountsByAge::from_text("5"), CountsByAge::from_text("a:1")), (None, None));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Burst { node: usize, requests: usize },
        Store { node: usize },
        Read { node: usize },
        Wait { millis: i64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_usize, 1..150_usize).prop_map(|(node, requests)| Step::Burst { node, requests }),
            2 => (0..4_usize).prop_map(|node| Step::Store { node }),
            2 => (0..4_usize).prop_map(|node| Step::Read { node }),
            2 => (1..20_000_i64).prop_map(|millis| Step::Wait { millis }),
        ]
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_a_fifth_above_the_limit(
            count in 2..=4_usize,
            requests in 20..400_u32,
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let mut nodes = Nodes::new(count, limit(requests));
            let mut millis = 0;
            for step in steps {
                match step {
                    Step::Burst { node, requests } => {
                        (0..requests).for_each(|_| nodes.request(node % count, at(millis)));
                    }
                    Step::Store { node } => nodes.store(node % count, at(millis)),
                    Step::Read { node } => nodes.read(node % count, at(millis)),
                    Step::Wait { millis: more } => millis += more,
                }
            }
            let most = nodes.most_in_a_minute();
            prop_assert!(most * 5 <= usize::try_from(requests).unwrap() * 6, "{most} of {requests}");
        }
    }
}
