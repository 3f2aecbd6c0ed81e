//! The cost of queue operations, in steps of SQLite's virtual machine: the same on any machine. And the deliveries of a
//! deleted endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::endpoint_health::Signal;
use postrider_domain::id::{KeySequence, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::payload::PayloadState;
use postrider_domain::time::Timestamp;
use postrider_store::queue::claim_ledger::ClaimLedger;
use postrider_store::stats::Rollups;
use postrider_store::{AfterAttempt, Claim, Lane, LaneQuota, OutcomeRecord, Recorded};

use super::due::claim;
use super::endpoint_health::HealthCache;
use super::lane::LaneCache;
use super::outcome::record;
use super::unsent::expire_waiting;
use crate::machinery::schema;
use crate::machinery::writer::{SharedKeySequence, WriteTx};
use crate::publish::matching::MatchingCache;
use crate::stored_bytes::StoredBytesBook;

const START: Timestamp = Timestamp::from_millis(1_000_000_000_000);

struct Unlimited;

impl LaneQuota for Unlimited {
    fn quota(&self, _lane: Lane) -> usize {
        usize::MAX
    }
}

struct TestQueue {
    connection: rusqlite::Connection,
    matching: MatchingCache,
    lanes: LaneCache,
    health: HealthCache,
    claims: ClaimLedger,
    keys: Arc<SharedKeySequence>,
    now: Timestamp,
    /// Steps of SQLite's virtual machine so far.
    steps: Arc<AtomicU64>,
    _directory: tempfile::TempDir,
}

impl TestQueue {
    /// A queue in which endpoint 1 has `backlog` deliveries due, and each of `idle` other endpoints has one due in an
    /// hour.
    fn new(backlog: u32, idle: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = schema::connect(&schema::database_path(directory.path())).unwrap();
        schema::migrate(&mut connection).unwrap();
        let now = START.millis();
        let rows = format!(
            "BEGIN;
             INSERT INTO workspaces (key, id, name) VALUES (1, 'org_0000000000000000', 'w');
             INSERT INTO events (key, workspace_key, mode, type, deliveries, envelope)
                 VALUES (1, 1, 0, 'post.created', 1, x'7b7d');
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= {idle})
             INSERT INTO endpoints (key, id, workspace_key, name, url, events, is_active, secret_version,
                                    secret_last4, updated_at)
                 SELECT i, 'whe_' || substr('0000000000000000' || i, -16), 1, 'n', 'https://example.com/',
                        'post.created', 1, 1, '0000', 0 FROM n;
             INSERT INTO lanes (lane_key, workspace_key, next_at)
                 SELECT key, 1, iif(key = 1, {now}, {now} + 3600000) FROM endpoints;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {backlog} + {idle})
             INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version)
                 SELECT i, max(1, i - {backlog} + 1), 1, iif(i <= {backlog}, {now} - 1000 + i % 1000,
                        {now} + 3600000), 0, 0, 1 FROM n;
             INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, cause)
                 SELECT delivery_key, 1, lane_key, event_key, 0, 0, 0 FROM due;
             COMMIT;"
        );
        connection.execute_batch(&rows).unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).unwrap();
        Self {
            connection,
            matching: MatchingCache::default(),
            lanes: LaneCache::default(),
            health: HealthCache::default(),
            claims: ClaimLedger::default(),
            keys: Arc::new(SharedKeySequence::new(KeySequence::new(1))),
            now: START,
            steps,
            _directory: directory,
        }
    }

    fn run<T>(&mut self, effect: impl FnOnce(&mut WriteTx<'_>) -> Result<T, rusqlite::Error>) -> T {
        let mut tx = WriteTx {
            connection: &self.connection,
            matching: &mut self.matching,
            lanes: &mut self.lanes,
            health: &mut self.health,
            claims: &mut self.claims,
            stored: &mut StoredBytesBook::default(),
            rollups: &mut Rollups::default(),
            tag: StoreTag::from_u32(1),
            now: self.now,
            keys: &self.keys,
            operations: None,
        };
        effect(&mut tx).unwrap()
    }

    fn claim(&mut self, limit: usize) -> Vec<Claim> {
        let quota: Arc<dyn LaneQuota> = Arc::new(Unlimited);
        self.run(|tx| claim(tx, limit, limits::LEASE, &quota)).claims
    }

    /// Puts the backlog of endpoint 1 in strict order.
    fn put_in_order(&mut self) {
        self.run(|tx| {
            tx.connection.execute_batch(
                "UPDATE endpoints SET ordering = 1 WHERE key = 1;
                 INSERT INTO ordered_lanes (lane_key, last_sequence) SELECT 1, MAX(delivery_key) FROM due;
                 UPDATE due SET sequence = delivery_key, due_at = iif(delivery_key = 1, due_at, 9223372036854775807)
                     WHERE lane_key = 1;",
            )
        });
    }

    fn deliver(&mut self, claim: &Claim) -> Recorded {
        let attempt = Attempt {
            number: claim.attempt,
            started_at: self.now,
            duration_ms: 1,
            outcome: AttemptOutcome::Delivered,
            request: None,
            request_headers: Vec::new(),
            remote_address: None,
            response_status: Some(200),
            response_headers: Vec::new(),
            response_body: None,
            error: None,
            next_attempt_at: None,
            phases: None,
            payload: PayloadState::Kept,
        };
        let outcome = OutcomeRecord {
            delivery_id: claim.delivery_id,
            token: claim.token,
            attempt,
            mode: claim.mode,
            cause: claim.cause,
            after: AfterAttempt::Finish { status: DeliveryStatus::Delivered, reason: None },
            endpoint: Arc::clone(&claim.endpoint),
            signal: Signal::Success,
            disable: None,
        };
        self.run(|tx| record(tx, &outcome))
    }

    fn steps(&mut self, effect: impl FnOnce(&mut Self)) -> u64 {
        let before = self.steps.load(Ordering::Relaxed);
        effect(self);
        self.steps.load(Ordering::Relaxed) - before
    }

    fn steps_of_a_claim(&mut self) -> u64 {
        self.steps(|queue| assert_eq!(queue.claim(10).len(), 10))
    }

    /// The deliveries 1, 2, 3 … as (status, attempts, attempts in the log).
    fn ends(&mut self) -> Vec<(i64, u32, u32)> {
        self.run(|tx| {
            tx.connection
                .prepare(
                    "SELECT status, attempts, (SELECT COUNT(*) FROM attempts WHERE delivery_key = key)
                     FROM deliveries ORDER BY key",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })
    }
}

#[test]
fn a_claim_costs_the_same_whatever_the_backlog() {
    let short = TestQueue::new(20, 5).steps_of_a_claim();
    let long = TestQueue::new(30_000, 5).steps_of_a_claim();
    assert!(short > 100, "the steps were counted: {short}");
    assert!(long <= short + short / 20, "{short} steps with 20 deliveries due, {long} with 30,000");
}

#[test]
fn a_claim_costs_the_same_however_many_lanes_have_nothing_due() {
    let short = TestQueue::new(20, 5).steps_of_a_claim();
    let long = TestQueue::new(20, 5_000).steps_of_a_claim();
    assert!(long <= short + short / 20, "{short} steps beside 5 idle lanes, {long} beside 5,000");
}

#[test]
fn an_empty_claim_costs_the_same_however_many_lanes_there_are() {
    let costs = |idle| {
        let mut queue = TestQueue::new(0, idle);
        queue.claim(10);
        let claim = queue.steps(|queue| assert!(queue.claim(10).is_empty()));
        let expire = queue.steps(|queue| assert_eq!(queue.run(|tx| expire_waiting(tx, 10)), 0));
        (claim, expire)
    };
    let (claim, expire) = costs(5_000);
    assert!(claim < 100 && expire < 200, "{claim} steps to find nothing due, {expire} to find nothing expired");
    assert_eq!((claim, expire), costs(5));
}

#[test]
fn a_strict_order_costs_the_same_whatever_is_behind_the_head() {
    let steps_of_a_delivery = |backlog| {
        let mut queue = TestQueue::new(backlog, 5);
        queue.put_in_order();
        queue.steps(|queue| {
            let head = queue.claim(10).remove(0);
            assert_eq!(queue.deliver(&head), Recorded::Done);
            assert_eq!(queue.claim(10).len(), 1);
        })
    };
    let (short, long) = (steps_of_a_delivery(20), steps_of_a_delivery(30_000));
    assert!(long <= short + short / 20, "{short} steps with 20 in order, {long} with 30,000");
}

#[test]
fn a_claim_costs_the_same_beside_lanes_whose_order_stopped() {
    let mut queue = TestQueue::new(20, 5);
    let short = queue.steps_of_a_claim();
    let rows = "INSERT INTO ordered_lanes (lane_key, last_sequence) SELECT i * 1000, 1 FROM
                    (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n);
                INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version, sequence)
                    SELECT lane_key, lane_key, 1, 9223372036854775807, 0, 0, 1, 1 FROM ordered_lanes;
                INSERT INTO lanes (lane_key, workspace_key, next_at)
                    SELECT lane_key, 1, 9223372036854775807 FROM ordered_lanes;";
    let mut queue = TestQueue::new(20, 5);
    queue.run(|tx| tx.connection.execute_batch(rows));
    let long = queue.steps_of_a_claim();
    assert!(long <= short + short / 20, "{short} steps alone, {long} beside 5,000 lanes whose order is stopped");
}

#[test]
fn a_deleted_endpoint_cancels_all_but_deliveries_under_way() {
    let mut queue = TestQueue::new(2, 0);
    let under_way = queue.claim(1).remove(0);
    queue.run(|tx| tx.connection.execute_batch("UPDATE endpoints SET deleted_at = 1"));
    queue.matching.clear();
    assert!(queue.claim(10).is_empty());
    let (pending, cancelled) = (DeliveryStatus::Pending.code(), DeliveryStatus::Cancelled.code());
    assert_eq!(under_way.delivery_id.key(), RowKey::from_i64(1));
    assert_eq!(queue.ends(), [(pending, 0, 0), (cancelled, 0, 0)]);
    queue.now = queue.now.plus(limits::LEASE);
    assert!(queue.claim(10).is_empty());
    assert_eq!(queue.ends(), [(cancelled, 1, 1), (cancelled, 0, 0)], "the lost attempt is in the log");
}
