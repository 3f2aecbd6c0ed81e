//! The queue: lanes, claims, and what follows an attempt.
//!
//! A lane is one endpoint's rows in `due`. `lanes.next_at` is a lower bound on when the lane has something due. So a
//! claim looks only at lanes that may have something due. It costs the same whatever the backlog, and whatever one
//! endpoint's share of it. Lanes are served in the order of `next_at`: the lane that has been ready longest comes
//! first, and moves behind the others when not all can be served.
//!
//! A claim sets `due_at` to the end of its lease. When its holder dies, the row falls due by itself. The next claim
//! finds the lost token and records the attempt as abandoned.
//!
//! | table | written by |
//! |---|---|
//! | `due` | `enqueue.rs`, `due.rs`, `lease.rs`, `outcome.rs`, `order.rs`, `unsent.rs` |
//! | `lanes` | `lane.rs` |
//! | `ordered_lanes` | `order.rs` |
//! | `endpoint_health` | `endpoint_health.rs` |

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::id::DeliveryId;
use postrider_store::{ClaimSink, ClaimToken, Claimed, LaneQuota, OutcomeRecord, Queue, Recorded, StoreError};

use crate::SqliteStore;
use crate::machinery::writer::JobSize;

pub mod due;
pub mod endpoint_health;
pub mod enqueue;
pub mod lane;
pub mod lease;
pub mod operational_event;
pub mod order;
pub mod outcome;
#[cfg(test)]
mod tests;
pub mod unsent;

#[async_trait]
impl Queue for SqliteStore {
    fn attach(&self, sink: Weak<dyn ClaimSink>) {
        if let Some(writer) = &self.writer {
            writer.attach(sink);
        }
    }

    async fn claim_due(&self, limit: usize, lease: Duration, quota: Arc<dyn LaneQuota>) -> Result<Claimed, StoreError> {
        if self.disk.is_stopped() {
            return Ok(Claimed { claims: Vec::new(), next_due_in: None });
        }
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| due::claim(tx, limit, lease, &quota)).await
    }

    async fn give_back_if_claimed(&self, claims: Vec<(DeliveryId, ClaimToken)>) -> Result<(), StoreError> {
        self.write(JobSize { rows: claims.len(), bytes: 0 }, move |tx| due::give_back(tx, &claims)).await
    }

    async fn record_outcomes_if_claimed(&self, outcomes: Vec<OutcomeRecord>) -> Result<Vec<Recorded>, StoreError> {
        let size = JobSize { rows: outcomes.len(), bytes: outcomes.len() * 1024 };
        let can_wait = outcome::can_wait(&outcomes);
        self.writer()?.write(size, can_wait, move |tx| outcome::record_all(tx, &outcomes)).await
    }
}
