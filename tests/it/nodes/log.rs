//! The final check of the log and the receivers.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use tokio_postgres::Client;

use super::load::{Endpoint, Published};
use crate::support::app::text;
use crate::support::cluster::Cluster;
use crate::support::wait::eventually_within;

/// The longest wait for a lease that was lost at the end to expire, and for the attempts after it.
const LONGEST: Duration = Duration::from_secs(120);

/// The numbers counted by the check.
pub struct Log {
    pub deliveries: usize,
    pub attempts: usize,
    pub abandoned: usize,
    pub arrivals: usize,
    pub repeated: usize,
}

/// A delivery in the log, and its attempts.
struct Delivery {
    endpoint: String,
    external_id: String,
    status: i16,
    attempts: i32,
    numbers: Vec<i32>,
    outcomes: Vec<i16>,
}

pub async fn wait_until_nothing_is_due(cluster: &Cluster) {
    let client = cluster.client().await;
    let over = || async {
        let left: i64 = client.query_one("SELECT COUNT(*) FROM due", &[]).await.unwrap().get(0);
        (left == 0).then_some(())
    };
    eventually_within(LONGEST, over, || "the last delivery".to_owned()).await;
}

/// Checks that each acknowledged event has one delivery for each subscribed endpoint and has arrived there, and that no
/// attempt number is missing or used twice.
pub async fn check(cluster: &Cluster, published: &Published, endpoints: &[Endpoint]) -> Log {
    let deliveries = read(&cluster.client().await).await;
    let mut log = Log { deliveries: deliveries.len(), attempts: 0, abandoned: 0, arrivals: 0, repeated: 0 };
    let mut made = HashSet::new();
    for delivery in &deliveries {
        check_attempts(delivery);
        log.attempts += delivery.numbers.len();
        let is_abandoned = |code: &&i16| i64::from(**code) == AttemptOutcome::Abandoned.code();
        log.abandoned += delivery.outcomes.iter().filter(is_abandoned).count();
        let (endpoint, external_id) = (&delivery.endpoint, &delivery.external_id);
        assert!(made.insert((endpoint.as_str(), external_id.as_str())), "{external_id} goes to {endpoint} twice");
    }
    for endpoint in endpoints {
        let arrived = arrivals(endpoint, &mut log);
        for (external_id, (event, event_type)) in &published.acknowledged {
            let wanted = endpoint.events.contains(event_type);
            assert_eq!(
                made.contains(&(endpoint.name, external_id.as_str())),
                wanted,
                "{external_id} at {}",
                endpoint.name
            );
            assert_eq!(arrived.get(external_id), wanted.then_some(event), "{external_id} at {}", endpoint.name);
        }
    }
    log
}

fn check_attempts(delivery: &Delivery) {
    let Delivery { endpoint, external_id, status, attempts, numbers, outcomes } = delivery;
    let gapless: Vec<i32> = (1..=*attempts).collect();
    assert_eq!(numbers, &gapless, "attempts of {external_id} at {endpoint}: {outcomes:?}");
    let delivered = AttemptOutcome::Delivered.code();
    assert_eq!(outcomes.last().map(|code| i64::from(*code)), Some(delivered), "{external_id} at {endpoint}");
    assert_eq!(*status, 1, "{external_id} at {endpoint}: {outcomes:?}");
}

/// The event's id with which each `externalId` arrived. Checks that no attempt was made twice.
fn arrivals(endpoint: &Endpoint, log: &mut Log) -> BTreeMap<String, String> {
    let mut arrived = BTreeMap::new();
    let mut attempts = HashSet::new();
    for request in endpoint.received() {
        let envelope = request.json();
        let (order, event) = (text(&envelope["data"], "order"), text(&envelope, "id"));
        log.arrivals += 1;
        if let Some(before) = arrived.insert(order.clone(), event.clone()) {
            assert_eq!(before, event, "{order} came as two events");
            log.repeated += 1;
        }
        let names = ["scripe-delivery-id", "scripe-delivery-attempt"];
        let attempt = names.map(|name| request.header(name).map(str::to_owned));
        assert!(attempts.insert(attempt.clone()), "{attempt:?} was made twice");
    }
    arrived
}

async fn read(client: &Client) -> Vec<Delivery> {
    let sql = "SELECT endpoints.name, events.external_id, deliveries.status, deliveries.attempts,
                      array_agg(attempts.number ORDER BY attempts.number), array_agg(attempts.outcome ORDER BY attempts.number)
               FROM deliveries
               JOIN events ON events.key = deliveries.event_key
               JOIN endpoints ON endpoints.key = deliveries.endpoint_key
               LEFT JOIN attempts ON attempts.delivery_key = deliveries.key
               WHERE deliveries.cause = 0
               GROUP BY deliveries.key, deliveries.status, deliveries.attempts, endpoints.name, events.external_id";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| Delivery {
            endpoint: row.get(0),
            external_id: row.get(1),
            status: row.get(2),
            attempts: row.get(3),
            numbers: row.get::<_, Vec<Option<i32>>>(4).into_iter().flatten().collect(),
            outcomes: row.get::<_, Vec<Option<i16>>>(5).into_iter().flatten().collect(),
        })
        .collect()
}
