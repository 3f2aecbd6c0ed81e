//! The token bucket that spreads the deliveries of an endpoint with a rate limit evenly over time.
//!
//! It holds a tenth of a second's worth of tokens, at least one. So a high rate does not need a claim for each
//! delivery, and no second gets more than the rate and a tenth of it. It reads no clock: `now` is an argument. Its
//! counts are integers, so that rounding never adds a delivery.

use std::time::Duration;

use super::endpoint_options::DeliveryRate;
use super::time::Timestamp;

/// One node's share of an endpoint's rate, in thousandths of a delivery a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRate(u64);

/// Tokens for the deliveries to one endpoint. One token is one delivery.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: NodeRate,
    micro_tokens: u64,
    filled_at: Timestamp,
}

/// Tokens are counted in millionths: in one millisecond a rate of `n` thousandths of a delivery a second adds `n` of
/// them.
const WHOLE_TOKEN: u64 = 1_000_000;

impl NodeRate {
    /// Divides the rate among `nodes`. No node gets less than one delivery in 1,000 seconds.
    pub fn of(rate: DeliveryRate, nodes: usize) -> Self {
        let nodes = u64::try_from(nodes.max(1)).unwrap_or(u64::MAX);
        Self((u64::from(rate.per_second()) * 1_000 / nodes).max(1))
    }
}

impl TokenBucket {
    pub fn full(rate: NodeRate, now: Timestamp) -> Self {
        let mut bucket = Self { rate, micro_tokens: 0, filled_at: now };
        bucket.micro_tokens = bucket.capacity();
        bucket
    }

    pub fn rate(&self) -> NodeRate {
        self.rate
    }

    /// Adds what the time since the last call brought. Returns the whole tokens.
    pub fn refill(&mut self, now: Timestamp) -> usize {
        let elapsed_ms = u64::try_from(now.since(self.filled_at).as_millis()).unwrap_or(u64::MAX);
        let added = elapsed_ms.saturating_mul(self.rate.0);
        self.micro_tokens = self.micro_tokens.saturating_add(added).min(self.capacity());
        self.filled_at = now;
        usize::try_from(self.micro_tokens / WHOLE_TOKEN).unwrap_or(usize::MAX)
    }

    /// Takes one token, or what is left of it.
    pub fn take(&mut self) {
        self.micro_tokens = self.micro_tokens.saturating_sub(WHOLE_TOKEN);
    }

    /// Returns a token whose delivery was not sent.
    pub fn give_back(&mut self) {
        self.micro_tokens += WHOLE_TOKEN;
    }

    /// When the bucket has one whole token more, if none is taken until then. Counted from the last refill.
    pub fn next_token_at(&self) -> Timestamp {
        let missing = WHOLE_TOKEN - self.micro_tokens % WHOLE_TOKEN;
        self.filled_at.plus(Duration::from_millis(missing.div_ceil(self.rate.0)))
    }

    fn capacity(&self) -> u64 {
        (self.rate.0 * WHOLE_TOKEN / 1_000 / 10).max(WHOLE_TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(per_second: u64, nodes: usize) -> TokenBucket {
        let rate = DeliveryRate::parse(per_second).unwrap();
        TokenBucket::full(NodeRate::of(rate, nodes), at(0))
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_full_bucket_holds_a_tenth_of_a_second_or_one_token() {
        assert_eq!(full(100, 1).refill(at(0)), 10);
        assert_eq!(full(1, 1).refill(at(0)), 1);
        assert_eq!(full(100, 1).refill(at(60_000)), 10, "idle time saves nothing up");
    }

    #[test]
    fn several_nodes_divide_a_rate_and_none_gets_nothing() {
        assert_eq!(full(100, 4).refill(at(0)), 2);
        let mut bucket = full(1, 1_000_000);
        bucket.take();
        assert_eq!((bucket.next_token_at(), bucket.refill(at(1_000_000))), (at(1_000_000), 1));
    }

    #[test]
    fn the_next_token_comes_exactly_when_the_bucket_says() {
        let mut bucket = full(3, 1);
        bucket.take();
        assert_eq!(bucket.next_token_at(), at(334));
        assert_eq!((bucket.refill(at(333)), bucket.refill(at(334))), (0, 1));
    }

    #[test]
    fn a_token_given_back_can_be_taken_again() {
        let mut bucket = full(1, 1);
        bucket.take();
        assert_eq!(bucket.refill(at(0)), 0);
        bucket.give_back();
        assert_eq!(bucket.refill(at(0)), 1);
    }

    proptest! {
        #[test]
        fn a_bucket_never_lets_more_go_than_its_rate(
            per_second in 1_u64..=1_000,
            waits_ms in proptest::collection::vec(0_i64..200, 1..200),
        ) {
            let mut bucket = full(per_second, 1);
            let (mut now, mut taken) = (0, 0);
            for wait in waits_ms {
                now += wait;
                for _ in 0..bucket.refill(at(now)) {
                    bucket.take();
                    taken += 1;
                }
                let burst_milli = (per_second * 100).max(1_000);
                let allowed_milli = burst_milli + u64::try_from(now).unwrap() * per_second;
                prop_assert!(taken * 1_000 <= allowed_milli, "{taken} after {now} ms at {per_second} a second");
            }
        }
    }
}
