//! What nodes that meet in one endpoint's lane do to each other: those that hand over into it go side by side, and whoever looks
//! into it meanwhile must not lose what they are about to put there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::limits;
use postrider_store::{Claim, ClaimSink, Lane, LaneQuota, Recorded};
use tokio_postgres::Client;

use super::fixture::{Fixture, outline};
use super::postgres::PostgresBackend;

/// An engine that has room for everything and does nothing with it.
#[derive(Default)]
struct Taken(Mutex<Vec<Claim>>);

impl LaneQuota for Taken {
    fn quota(&self, _lane: Lane) -> usize {
        usize::MAX
    }
}

impl ClaimSink for Taken {
    fn take_over(&self, claims: Vec<Claim>, _lease_left: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(claims);
    }

    fn wake(&self) {}
}

impl Taken {
    fn next(&self) -> Claim {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().expect("a delivery that was handed over")
    }
}

/// A store with one endpoint that hands over, and another node's connection to its database.
async fn handing_over() -> Option<(Fixture, Arc<Taken>, Client)> {
    let backend = PostgresBackend::new().await?;
    let other = backend.client().await;
    let at = Fixture::new(backend).await;
    let taken = Arc::new(Taken::default());
    let hand_over: Arc<dyn ClaimSink> = taken.clone();
    at.store().attach(Arc::downgrade(&hand_over));
    at.endpoint().await;
    Some((at, taken, other))
}

#[tokio::test]
async fn what_is_handed_over_waits_for_nobody_who_has_its_lane() {
    let Some((at, taken, other)) = handing_over().await else { return };
    at.publish(1).await;
    taken.next();
    other.batch_execute("BEGIN; SELECT 1 FROM lanes FOR NO KEY UPDATE").await.unwrap();
    at.publish(1).await;
    taken.next();
    other.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn a_lane_into_which_something_is_being_handed_over_stays_and_is_looked_at_in_time() {
    let Some((at, taken, other)) = handing_over().await else { return };
    at.publish(1).await;
    let late = taken.next();
    // As if its transaction had not got that far yet.
    let aside = "CREATE TEMPORARY TABLE aside AS SELECT * FROM due; DELETE FROM due";
    other.batch_execute(aside).await.unwrap();
    at.publish(1).await;
    let first = taken.next();
    let handed_over = "BEGIN; INSERT INTO due SELECT * FROM aside; SELECT 1 FROM lanes FOR KEY SHARE";
    other.batch_execute(handed_over).await.unwrap();
    at.record(at.delivered(&first)).await;
    at.advance(limits::LEASE);
    let looked = at.claim(10).await;
    assert!(looked.claims.is_empty(), "nothing that is committed is due");
    assert_eq!(
        looked.next_due_in,
        Some(limits::LEASE / 2),
        "the lane did not go, and has its turn before the lease runs out"
    );
    other.batch_execute("COMMIT").await.unwrap();
    at.advance(limits::LEASE / 2);
    let again = at.claim_one().await;
    assert_eq!((again.delivery_id, again.attempt), (late.delivery_id, 2));
    at.record(at.delivered(&again)).await;
    let (_, attempts) = at.delivery(late.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned), (2, AttemptOutcome::Delivered)]);
    at.advance(limits::LEASE);
    assert_eq!(at.claim(10).await.next_due_in, None, "an empty lane into which nobody hands over goes");
}

#[tokio::test]
async fn what_waited_for_the_claim_that_emptied_its_lane_is_handed_over_after_all() {
    let Some((at, taken, other)) = handing_over().await else { return };
    at.publish(1).await;
    at.record(at.delivered(&taken.next())).await;
    // Something older seems to be due, and a claim is about to find that nothing is.
    other.batch_execute("UPDATE lanes SET next_at = 0").await.unwrap();
    other.batch_execute("BEGIN; UPDATE lanes SET next_at = 9000000000000").await.unwrap();
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
    let claim = async {
        while other.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
        other.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(at.publish(1), claim);
    let handed = taken.next();
    assert!(at.claim(10).await.claims.is_empty());
    at.advance(limits::LEASE);
    let again = at.claim_one().await;
    assert_eq!(
        (again.delivery_id, again.attempt),
        (handed.delivery_id, 2),
        "its lane has its turn when the lease is over"
    );
    assert_eq!(at.record(at.delivered(&handed)).await, Recorded::ClaimLost);
}
