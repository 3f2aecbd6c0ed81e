//! The final check of strict order: first arrivals are in order, and an endpoint had one delivery at a time.

use std::collections::{HashMap, HashSet};

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::id::DeliveryId;
use tokio_postgres::Client;

use super::load::{Endpoint, STRICT_TAKES};
use crate::support::app::text;
use crate::support::cluster::Cluster;
use crate::support::receiver::Received;

/// An attempt in the log. Times are in milliseconds.
struct Attempt {
    delivery_key: i64,
    number: i32,
    is_abandoned: bool,
    started_at: i64,
    duration: i64,
}

/// Checks that each strict endpoint got every publisher's events in the order of acceptance and one at a time. Only an
/// attempt whose claim was taken over may have overlapped another. Returns the number of deliveries checked.
pub async fn check(cluster: &Cluster, endpoints: &[Endpoint]) -> usize {
    let client = cluster.client().await;
    let mut deliveries = 0;
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_strict()) {
        let attempts = read(&client, endpoint.name).await;
        check_log(endpoint.name, &attempts);
        let is_abandoned = |attempt: &&Attempt| attempt.is_abandoned;
        let abandoned = attempts.iter().filter(is_abandoned).map(|attempt| (attempt.delivery_key, attempt.number));
        let abandoned: HashSet<(i64, i32)> = abandoned.collect();
        let received = endpoint.received();
        check_first_arrivals(endpoint.name, &received);
        let kept: Vec<&Received> =
            received.iter().filter(|request| !abandoned.contains(&attempt_of(request))).collect();
        deliveries += check_one_at_a_time(endpoint.name, &kept);
    }
    deliveries
}

/// Checks the attempts that the nodes logged.
fn check_log(endpoint: &str, attempts: &[Attempt]) {
    let held: Vec<&Attempt> = attempts.iter().filter(|attempt| !attempt.is_abandoned).collect();
    for pair in held.windows(2) {
        let over = pair[0].started_at + pair[0].duration;
        let (before, next) = (pair[0].delivery_key, pair[1].delivery_key);
        assert!(over <= pair[1].started_at, "{endpoint}: {next} began while {before} was under way");
    }
}

/// Events are accepted in the order of their numbers: a publisher waits for each answer, and a batch keeps its order.
fn check_first_arrivals(endpoint: &str, received: &[Received]) {
    let (mut seen, mut last) = (HashSet::new(), HashMap::new());
    for request in received {
        let order = text(&request.json()["data"], "order");
        if !seen.insert(order.clone()) {
            continue;
        }
        let (publisher, number) = order.split_once('-').expect("a publisher and a number");
        let number: usize = number.parse().unwrap();
        let before = last.insert(publisher.to_owned(), number);
        assert!(before < Some(number), "{endpoint}: {order} arrived after {before:?} of the same publisher");
    }
}

/// Checks the requests of the receiver: an event repeats until it is delivered, but not after the next event, and no
/// request comes before the answer to the one before.
fn check_one_at_a_time(endpoint: &str, received: &[&Received]) -> usize {
    let mut over = HashSet::new();
    for pair in received.windows(2) {
        let [before, next] = [pair[0], pair[1]].map(|request| attempt_of(request).0);
        assert!(pair[0].at + STRICT_TAKES <= pair[1].at, "{endpoint}: {next} came before {before} was answered");
        if before != next {
            over.insert(before);
            assert!(!over.contains(&next), "{endpoint}: {next} came again after {before}");
        }
    }
    over.len()
}

fn attempt_of(request: &Received) -> (i64, i32) {
    let id: DeliveryId = request.header("scripe-delivery-id").unwrap().parse().unwrap();
    (id.key().as_i64(), request.header("scripe-delivery-attempt").unwrap().parse().unwrap())
}

async fn read(client: &Client, endpoint: &str) -> Vec<Attempt> {
    let sql = "SELECT delivery_key, number, outcome, started_at, duration_ms FROM attempts
               WHERE delivery_key IN (SELECT deliveries.key FROM deliveries
                                      JOIN endpoints ON endpoints.key = deliveries.endpoint_key WHERE endpoints.name = $1)
               ORDER BY started_at, number";
    let rows = client.query(sql, &[&endpoint]).await.unwrap();
    rows.iter()
        .map(|row| Attempt {
            delivery_key: row.get(0),
            number: row.get(1),
            is_abandoned: i64::from(row.get::<_, i16>(2)) == AttemptOutcome::Abandoned.code(),
            started_at: row.get(3),
            duration: row.get(4),
        })
        .collect()
}
