//! The concurrency cap of an endpoint. All nodes together call a slow endpoint with a constant backlog up to the cap,
//! and not above it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_domain::limits;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::load::{CAPPED, CAPPED_TAKES, CAPPED_TYPE, Door, Endpoint, Published, pause};
use crate::support::app::text;
use crate::support::cluster::Cluster;
use crate::support::wait::eventually_within;

const CAP: usize = limits::SLOTS_PER_ENDPOINT;
/// Counts as reaching the cap, because a commit lies between an answer and the next request.
const REACHED: usize = CAP * 3 / 4;
/// Events that wait besides those in flight. Enough to notice two nodes that each use the whole cap.
const WAITING: i64 = 2 * CAP as i64;
const BATCH: usize = 48;
/// For this long after a node joins or leaves, the shares may add up to more than the cap (docs/postgresql.md).
const APPROXIMATE: Duration = Duration::from_secs(10);
/// The shortest observation after that.
const LOOKED_ON: Duration = Duration::from_secs(3);
/// The longest wait for nodes to notice one another and to grow to their share of the cap again.
const LONGEST: Duration = Duration::from_secs(60);

/// Publishes only for the capped endpoint, so that events always wait for it.
pub struct Flood {
    over: CancellationToken,
    publishing: JoinHandle<Published>,
}

impl Flood {
    pub fn start(cluster: &Arc<Cluster>, door: Door) -> Self {
        let over = CancellationToken::new();
        Self { publishing: tokio::spawn(keep_some_waiting(Arc::clone(cluster), door, over.clone())), over }
    }

    pub async fn finish(self) -> Published {
        self.over.cancel();
        self.publishing.await.unwrap()
    }
}

/// Waits until the current nodes have divided the cap among themselves and have used it.
pub async fn wait_until_reached(fleet: &Fleet, endpoints: &[Endpoint]) {
    let settled = *fleet.changes.last().expect("all have come") + APPROXIMATE;
    let seen = || most_at_once(&calls(endpoints), &(settled..Instant::now()));
    let reached = || async {
        let is_reached = Instant::now() >= settled + LOOKED_ON && seen() >= REACHED;
        is_reached.then_some(())
    };
    let explain =
        || format!("an endpoint that is called by {REACHED} at once, of the {CAP} that may; {} were the most", seen());
    eventually_within(LONGEST, reached, explain).await;
}

/// Checks that calls exceeded the cap only while nodes joined or left. Returns the most concurrent calls in settled
/// spans, and at any time.
pub fn check(fleet: &Fleet, endpoints: &[Endpoint]) -> (usize, usize) {
    let (calls, now) = (calls(endpoints), Instant::now());
    let (mut reached, mut most) = (0, 0);
    for span in settled_spans(&fleet.changes, now) {
        let at_once = most_at_once(&calls, &span);
        assert!(at_once <= CAP, "{at_once} were under way at once to one endpoint, long after any node came or went");
        reached += usize::from(at_once >= REACHED);
        most = most.max(at_once);
    }
    assert!(reached >= 2, "the cap was reached only {reached} times");
    (most, most_at_once(&calls, &(fleet.changes[0]..now)))
}

/// The spans in which the shares of the cap are exact, because each node knows all others.
fn settled_spans(changes: &[Instant], until: Instant) -> Vec<Range<Instant>> {
    let ends = changes.iter().skip(1).copied().chain([until]);
    let spans = changes.iter().zip(ends).map(|(change, end)| *change + APPROXIMATE..end);
    spans.filter(|span| !span.is_empty()).collect()
}

/// The most concurrent calls at any moment of the span. A call is in flight for the time of an answer.
fn most_at_once(calls: &[Instant], span: &Range<Instant>) -> usize {
    let (mut most, mut first) = (0, 0);
    for (last, call) in calls.iter().enumerate() {
        while calls[first] + CAPPED_TAKES <= *call {
            first += 1;
        }
        if span.contains(call) {
            most = most.max(last - first + 1);
        }
    }
    most
}

fn calls(endpoints: &[Endpoint]) -> Vec<Instant> {
    let capped = endpoints.iter().find(|endpoint| endpoint.name == CAPPED).expect("the endpoint that is capped");
    capped.calls()
}

async fn keep_some_waiting(cluster: Arc<Cluster>, mut door: Door, over: CancellationToken) -> Published {
    let (mut client, mut published) = (None, Published::default());
    for batch in 0.. {
        while !few_wait(&cluster, &mut client).await {
            if over.is_cancelled() {
                return published;
            }
            pause(&over).await;
        }
        let ids: Vec<String> = (0..BATCH).map(|number| format!("flood-{}", batch * BATCH + number)).collect();
        let event = |id: &String| json!({"type": CAPPED_TYPE, "data": {"order": id}, "externalId": id});
        let body = json!({"events": ids.iter().map(event).collect::<Vec<_>>()}).to_string();
        let receipts = loop {
            match door.post("/v1/events/batch", &body).await {
                Some(Value::Array(receipts)) => break receipts,
                Some(other) => panic!("no list of receipts: {other}"),
                None if over.is_cancelled() => return published,
                None => pause(&over).await,
            }
        };
        let events = receipts.iter().map(|receipt| (text(receipt, "id"), CAPPED_TYPE));
        published.acknowledged.extend(ids.into_iter().zip(events));
    }
    published
}

/// Whether few events wait. Deliveries that a killed node had claimed do not count.
async fn few_wait(cluster: &Cluster, client: &mut Option<Client>) -> bool {
    if client.is_none() {
        *client = cluster.try_client().await.ok();
    }
    let Some(connected) = client else { return false };
    let waiting: Result<i64, Error> = async {
        let sql = "SELECT COUNT(*) FROM due JOIN endpoints ON endpoints.key = due.lane_key
                   WHERE endpoints.name = $1 AND due.claim_token IS NULL";
        Ok(connected.query_one(sql, &[&CAPPED]).await?.get(0))
    }
    .await;
    // While the database restarts, no query works.
    if waiting.is_err() {
        *client = None;
    }
    waiting.is_ok_and(|waiting| waiting < WAITING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_until_answered_and_only_in_settled_spans() {
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        let takes = u64::try_from(CAPPED_TAKES.as_millis()).unwrap();
        let calls = [at(0), at(1), at(takes), at(takes + 1), at(2 * takes)];
        assert_eq!(most_at_once(&calls, &(at(0)..at(2))), 2);
        assert_eq!(most_at_once(&calls, &(at(2)..at(9 * takes))), 2, "the first is answered as the third comes");
        assert_eq!(most_at_once(&calls, &(at(2 * takes)..at(9 * takes))), 2);
        assert_eq!(most_at_once(&calls, &(at(8 * takes)..at(9 * takes))), 0);
        let changes = [at(0), at(15_000), at(20_000)];
        assert_eq!(settled_spans(&changes, at(40_000)), [at(10_000)..at(15_000), at(30_000)..at(40_000)]);
    }
}
