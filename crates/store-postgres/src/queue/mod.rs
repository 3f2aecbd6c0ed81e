//! The queue: the rows of `due`, their lanes, and what follows an attempt.
//!
//! | file | what it does |
//! |---|---|
//! | `enqueue.rs` | adds deliveries to the log and to the queue |
//! | `due.rs` | claims rows, returns claims, counts |
//! | `lease.rs` | leases deliveries of listeners to consumers |
//! | `outcome.rs` | records attempts |
//! | `unsent.rs` | ends deliveries without an attempt: cancelled or expired |
//! | `lane.rs` | keeps `lanes`: when each endpoint may have something due |
//! | `order.rs` | keeps strict order |
//! | `endpoint_health.rs` | keeps the failures of each endpoint |
//! | `operational_event.rs` | reports to the operator |

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::id::DeliveryId;
use postrider_store::{ClaimSink, ClaimToken, Claimed, LaneQuota, OutcomeRecord, Queue, Recorded, StoreError};

use crate::PostgresStore;
use crate::machinery::transaction::effect;

pub mod due;
pub mod endpoint_health;
pub mod enqueue;
pub mod lane;
pub mod lease;
pub mod operational_event;
pub mod order;
pub mod outcome;
pub mod unsent;

#[async_trait]
impl Queue for PostgresStore {
    fn attach(&self, sink: Weak<dyn ClaimSink>) {
        if self.database.sink.set(sink).is_err() {
            tracing::error!("an engine is already attached to this store; the second one receives no claims");
        }
    }

    fn nodes(&self) -> usize {
        self.database.nodes.load(Ordering::Relaxed)
    }

    async fn claim_due(&self, limit: usize, lease: Duration, quota: Arc<dyn LaneQuota>) -> Result<Claimed, StoreError> {
        if self.disk.is_stopped() {
            return Ok(Claimed { claims: Vec::new(), next_due_in: None });
        }
        self.write(effect!(|tx, quota| due::claim(tx, limit, lease, &quota))).await
    }

    async fn give_back_if_claimed(&self, claims: Vec<(DeliveryId, ClaimToken)>) -> Result<(), StoreError> {
        self.write(effect!(|tx, claims| due::give_back(tx, &claims))).await
    }

    async fn record_outcomes_if_claimed(&self, outcomes: Vec<OutcomeRecord>) -> Result<Vec<Recorded>, StoreError> {
        let outcomes = Arc::new(outcomes);
        self.write(effect!(|tx, outcomes| outcome::record(tx, &outcomes))).await
    }
}
