//! The request counters: one for each workspace and rate bucket. All keys of a workspace share them.
//!
//! The counters belong to this process. Where several nodes share a store, they exchange their counts
//! ([`postrider_domain::shared_rate`]): about once a second in the background, and at once when a workspace has used
//! what a node may admit without an exchange. A request waits only for the latter.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use postrider_domain::error_chain::Chain;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::rate_limit::{Rate, RateBucket, RateLimits};
use postrider_domain::shared_rate::{Admission, CountsByAge, CountsToStore, Peers, SharedWindow};
use postrider_domain::time::{Clock, Timestamp};
use postrider_store::{RateCounts, SharedRates};

use crate::lock::lock;

pub struct RateLimiter {
    limits: RateLimits,
    management: Windows,
    publishing: Windows,
    peers: Mutex<Peers>,
    /// Asks for an exchange before the next one is due.
    asked: Notify,
    /// Counts the exchanges, failed ones too.
    exchanges: watch::Sender<u64>,
}

#[derive(Default)]
struct Windows(Mutex<Workspaces>);

#[derive(Default)]
struct Workspaces {
    windows: HashMap<RowKey, SharedWindow>,
    /// At this many windows, idle ones are removed.
    forget_at: usize,
}

impl RateLimiter {
    /// `nodes` is `None` for a store that no other node can share.
    pub fn new(limits: RateLimits, nodes: Option<u32>) -> Self {
        let peers = nodes.map_or(Peers::None, |nodes| Peers::Reachable { nodes });
        Self {
            limits,
            management: Windows::default(),
            publishing: Windows::default(),
            peers: Mutex::new(peers),
            asked: Notify::new(),
            exchanges: watch::Sender::new(0),
        }
    }

    /// Counts a request. `None` when the bucket has no limit.
    ///
    /// # Errors
    /// When the workspace has reached the limit.
    pub async fn take(
        &self,
        workspace_key: RowKey,
        bucket: RateBucket,
        clock: &dyn Clock,
    ) -> Option<Result<Rate, Rate>> {
        let limit = self.limits.of(bucket)?;
        let windows = self.windows(bucket);
        // Each exchange lets a few of the waiting requests go on, until the window is full and the others are refused.
        loop {
            let peers = *lock(&self.peers);
            match windows.take(workspace_key, limit, peers, clock.now()) {
                (Admission::Admitted(rate), is_unacquainted) => {
                    if is_unacquainted && matches!(peers, Peers::Reachable { .. }) {
                        self.asked.notify_one();
                    }
                    return Some(Ok(rate));
                }
                (Admission::Refused(rate), _) => return Some(Err(rate)),
                (Admission::ExchangeFirst, _) => {
                    let mut exchanges = self.exchanges.subscribe();
                    self.asked.notify_one();
                    if tokio::time::timeout(limits::RATE_EXCHANGE_WAIT, exchanges.changed()).await.is_err() {
                        break;
                    }
                }
            }
        }
        let peers = unreachable(*lock(&self.peers));
        match windows.take(workspace_key, limit, peers, clock.now()).0 {
            Admission::Admitted(rate) => Some(Ok(rate)),
            Admission::Refused(rate) => Some(Err(rate)),
            Admission::ExchangeFirst => None,
        }
    }

    /// Exchanges counts with the other nodes. Never returns. `node` identifies this process among them.
    pub async fn keep_exchanging(&self, store: &dyn SharedRates, node: i64, clock: &dyn Clock) {
        while let Some(nodes) = store.nodes_that_share() {
            self.exchange(store, node, nodes, clock).await;
            self.exchanges.send_modify(|exchanges| *exchanges += 1);
            let next = clock.now().plus(limits::RATE_EXCHANGE_INTERVAL);
            tokio::select! {
                () = self.asked.notified() => {}
                () = clock.sleep_until(next) => {}
            }
        }
        std::future::pending().await
    }

    async fn exchange(&self, store: &dyn SharedRates, node: i64, nodes: u32, clock: &dyn Clock) {
        let peers = *lock(&self.peers);
        let due = self.counts_to_store(peers, clock.now());
        let stored = due.iter().map(|(workspace, bucket, due)| RateCounts {
            workspace: *workspace,
            bucket: *bucket,
            counts: due.counts.clone(),
            age: Duration::ZERO,
        });
        if due.is_empty() {
            // Whether the store answers shows when there is something to exchange.
            *lock(&self.peers) = match peers {
                Peers::Unreachable { .. } => Peers::Unreachable { nodes },
                _ => Peers::Reachable { nodes },
            };
            return;
        }
        let mut exchange = store.exchange_rates(node, stored.collect());
        let exchanged = match tokio::time::timeout(limits::RATE_EXCHANGE_WAIT, &mut exchange).await {
            Ok(exchanged) => exchanged,
            // Requests go on without it. The next exchange waits for its end: it must not overwrite newer counts.
            Err(_) => {
                self.lose_store(peers, nodes, "the store does not answer in time");
                self.exchanges.send_modify(|exchanges| *exchanges += 1);
                exchange.await
            }
        };
        match exchanged.map_err(|error| Chain(&error).to_string()) {
            Ok(others) => {
                self.complete(&due, others, clock.now());
                *lock(&self.peers) = Peers::Reachable { nodes };
            }
            Err(error) => {
                let before = *lock(&self.peers);
                self.lose_store(before, nodes, &error);
            }
        }
    }

    fn lose_store(&self, before: Peers, nodes: u32, error: &str) {
        if matches!(before, Peers::Reachable { .. }) {
            tracing::warn!(
                error,
                "cannot exchange request counts with the other nodes; each admits a small part of the rate limits"
            );
        }
        *lock(&self.peers) = Peers::Unreachable { nodes };
    }

    fn counts_to_store(&self, peers: Peers, now: Timestamp) -> Vec<(RowKey, RateBucket, CountsToStore)> {
        let mut due = Vec::new();
        for bucket in RateBucket::ALL {
            let Some(limit) = self.limits.of(bucket) else { continue };
            for (workspace, window) in &mut lock(&self.windows(bucket).0).windows {
                if let Some(counts) = window.counts_to_store(limit, peers, now) {
                    due.push((*workspace, bucket, counts));
                }
            }
        }
        due
    }

    fn complete(&self, due: &[(RowKey, RateBucket, CountsToStore)], others: Vec<RateCounts>, now: Timestamp) {
        let mut by_window: HashMap<(RowKey, RateBucket), Vec<(Duration, CountsByAge)>> = HashMap::new();
        for RateCounts { workspace, bucket, counts, age } in others {
            by_window.entry((workspace, bucket)).or_default().push((age, counts));
        }
        for (workspace, bucket, CountsToStore { unconfirmed, .. }) in due {
            let others = by_window.remove(&(*workspace, *bucket)).unwrap_or_default();
            if let Some(window) = lock(&self.windows(*bucket).0).windows.get_mut(workspace) {
                window.complete_exchange(*unconfirmed, &others, now);
            }
        }
    }

    fn windows(&self, bucket: RateBucket) -> &Windows {
        match bucket {
            RateBucket::Management => &self.management,
            RateBucket::Publishing => &self.publishing,
        }
    }
}

const fn unreachable(peers: Peers) -> Peers {
    match peers {
        Peers::Reachable { nodes } => Peers::Unreachable { nodes },
        other => other,
    }
}

impl Windows {
    /// Also returns whether this node should learn the others' counts of the workspace.
    fn take(&self, workspace_key: RowKey, limit: NonZeroU32, peers: Peers, now: Timestamp) -> (Admission, bool) {
        let mut workspaces = lock(&self.0);
        if workspaces.windows.len() >= workspaces.forget_at {
            workspaces.windows.retain(|_, window| !window.is_idle(now));
            workspaces.forget_at = limits::RATE_WORKSPACES.max(2 * workspaces.windows.len());
        }
        let window = workspaces.windows.entry(workspace_key).or_default();
        (window.take(limit, peers, now), window.is_unacquainted(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_share_no_window_and_idle_windows_are_removed() {
        let windows = Windows::default();
        let one = NonZeroU32::MIN;
        let start = Timestamp::from_millis(1_778_846_400_000);
        let take = |key, now| windows.take(RowKey::from_i64(key), one, Peers::None, now).0;
        for key in 0..50_000 {
            let now = start.plus(Duration::from_millis(u64::try_from(key).unwrap() * 60));
            assert!(matches!(take(key, now), Admission::Admitted(_)));
        }
        assert!(matches!(take(49_999, start.plus(Duration::from_secs(3_000))), Admission::Refused(_)));
        // 1,000 workspaces are busy at any time.
        assert!(lock(&windows.0).windows.len() < 4 * limits::RATE_WORKSPACES);
    }
}
