//! Concurrent use of one lane on PostgreSQL.
//!
//! Transactions that hand deliveries over into a lane do not wait for each other. A node that claims from the lane
//! meanwhile must not lose the deliveries that are not committed yet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::limits;
use postrider_store::{Claim, ClaimSink, Lane, LaneQuota, Recorded};
use tokio_postgres::Client;

use super::fixture::{Fixture, outline};
use super::postgres::PostgresBackend;

/// A sink with an unlimited quota. It keeps the claims it gets.
#[derive(Default)]
struct TestSink(Mutex<Vec<Claim>>);

impl LaneQuota for TestSink {
    fn quota(&self, _lane: Lane) -> usize {
        usize::MAX
    }
}

impl ClaimSink for TestSink {
    fn take_over(&self, claims: Vec<Claim>, _lease_left: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(claims);
    }

    fn wake(&self) {}
}

impl TestSink {
    fn next(&self) -> Claim {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().expect("a delivery was handed over")
    }
}

/// A store with one endpoint and an attached sink, and a connection to its database.
async fn with_sink() -> Option<(Fixture, Arc<TestSink>, Client)> {
    let backend = PostgresBackend::new().await?;
    let other = backend.client().await;
    let at = Fixture::new(backend).await;
    let sink = Arc::new(TestSink::default());
    let attached: Arc<dyn ClaimSink> = sink.clone();
    at.store().attach(Arc::downgrade(&attached));
    at.endpoint().await;
    Some((at, sink, other))
}

#[tokio::test]
async fn a_handover_does_not_wait_for_a_lock_on_its_lane() {
    let Some((at, sink, other)) = with_sink().await else { return };
    at.publish(1).await;
    sink.next();
    other.batch_execute("BEGIN; SELECT 1 FROM lanes FOR NO KEY UPDATE").await.unwrap();
    at.publish(1).await;
    sink.next();
    other.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn a_lane_with_a_handover_in_flight_is_kept_and_checked_in_time() {
    let Some((at, sink, other)) = with_sink().await else { return };
    at.publish(1).await;
    let late = sink.next();
    // Hides the row of the first delivery, as if its transaction had not committed yet.
    let aside = "CREATE TEMPORARY TABLE aside AS SELECT * FROM due; DELETE FROM due";
    other.batch_execute(aside).await.unwrap();
    at.publish(1).await;
    let first = sink.next();
    let handed_over = "BEGIN; INSERT INTO due SELECT * FROM aside; SELECT 1 FROM lanes FOR KEY SHARE";
    other.batch_execute(handed_over).await.unwrap();
    at.record(at.delivered(&first)).await;
    at.advance(limits::LEASE);
    let claimed = at.claim(10).await;
    assert!(claimed.claims.is_empty(), "no committed delivery is due");
    assert_eq!(claimed.next_due_in, Some(limits::LEASE / 2), "the lane stays and is checked before the lease ends");
    other.batch_execute("COMMIT").await.unwrap();
    at.advance(limits::LEASE / 2);
    let again = at.claim_one().await;
    assert_eq!((again.delivery_id, again.attempt), (late.delivery_id, 2));
    at.record(at.delivered(&again)).await;
    let (_, attempts) = at.delivery(late.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned), (2, AttemptOutcome::Delivered)]);
    at.advance(limits::LEASE);
    assert_eq!(at.claim(10).await.next_due_in, None, "an empty lane without a handover is removed");
}

#[tokio::test]
async fn a_handover_proceeds_after_a_claim_that_emptied_its_lane() {
    let Some((at, sink, other)) = with_sink().await else { return };
    at.publish(1).await;
    at.record(at.delivered(&sink.next())).await;
    // The lane says that it is due, so the handover must check it. A concurrent claim then finds nothing due.
    other.batch_execute("UPDATE lanes SET next_at = 0").await.unwrap();
    other.batch_execute("BEGIN; UPDATE lanes SET next_at = 9000000000000").await.unwrap();
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
    let claim = async {
        while other.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
        other.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(at.publish(1), claim);
    let handed = sink.next();
    assert!(at.claim(10).await.claims.is_empty());
    at.advance(limits::LEASE);
    let again = at.claim_one().await;
    assert_eq!((again.delivery_id, again.attempt), (handed.delivery_id, 2), "its lane is due when the lease ends");
    assert_eq!(at.record(at.delivered(&handed)).await, Recorded::ClaimLost);
}
