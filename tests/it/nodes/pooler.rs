//! A node that reaches its database only through PgBouncer in transaction mode, where each transaction may run on
//! another connection. Everything works, and no acknowledged event is lost when the pooler dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::cluster::Cluster;
use crate::support::pgbouncer::{CONNECTIONS, PgBouncer};
use crate::support::process::{Serving, create_key, path_text};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::verify::verify_as_integrator;
use crate::support::wait::{bounded_or, eventually, eventually_within};

const PUBLISHERS: usize = 12;
/// The longest wait for the lease of a claim that no node knows of to expire, and for the attempts after it.
const LONGEST: Duration = Duration::from_secs(120);

/// One server with one endpoint. It reaches the database only through the pooler.
struct Pooled {
    _server: Serving,
    caller: Caller,
    receiver: Receiver,
    secret: String,
    pooler: PgBouncer,
    _cluster: Cluster,
    _directory: TempDir,
}

impl Pooled {
    /// Returns `None` when PostgreSQL or PgBouncer is not installed.
    async fn start() -> Option<Self> {
        let cluster = Cluster::start(&["fsync = off"]).await?;
        let pooler = PgBouncer::before(&cluster).await?;
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("shared.key");
        std::fs::write(&key_file, "0f".repeat(32)).unwrap();
        let url = pooler.url();
        let database = ["--database-url", &url, "--master-key-file", path_text(&key_file)];
        let scopes = ["webhooks:manage", "webhooks:read", "events:write"].map(|scope| ["--scope", scope]).concat();
        let arguments = [&database[..], &["--workspace", "Acme"], &scopes].concat();
        let key = create_key(&directory.path().join("command"), &arguments).await;
        let settings = ["--allow-target", "127.0.0.1", "--retry-schedule", "20ms,50ms,100ms,200ms,500ms,1s,1s"];
        let server = Serving::start(&directory.path().join("data"), &[&database[..], &settings].concat()).await;
        let (caller, receiver) = (server.caller().key(&text(&key, "key")), Receiver::start().await);
        let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"]});
        let secret = text(&caller.post("/v1/webhook-endpoints", body).await.data(200), "secret");
        Some(Self { _server: server, caller, receiver, secret, pooler, _cluster: cluster, _directory: directory })
    }

    fn publish_from_all_sides(&self) -> Publishing {
        let (counts, over) = (Arc::new(watch::Sender::new(Counts::default())), CancellationToken::new());
        let mut publishers = JoinSet::new();
        for number in 0..PUBLISHERS {
            publishers.spawn(publish(self.caller.clone(), number, Arc::clone(&counts), over.clone()));
        }
        Publishing { counts, over, publishers }
    }

    async fn wait_until_nothing_is_pending(&self) {
        let pending = "/v1/webhook-deliveries?status=pending&limit=1";
        let done = || async { self.caller.get(pending).await.data(200).as_array().unwrap().is_empty().then_some(()) };
        eventually("the last delivery", done).await;
    }

    /// The highest attempt of each event that arrived. Checks every signature.
    fn arrived(&self) -> BTreeMap<String, u32> {
        let mut arrived = BTreeMap::new();
        for request in self.receiver.received() {
            verify_as_integrator(&self.secret, &request).unwrap();
            let attempt: u32 = request.header("scripe-delivery-attempt").unwrap().parse().unwrap();
            let highest = arrived.entry(text(&request.json(), "id")).or_insert(attempt);
            *highest = attempt.max(*highest);
        }
        arrived
    }
}

/// The answers to publishes.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    acknowledged: usize,
    unavailable: usize,
}

struct Publishing {
    counts: Arc<watch::Sender<Counts>>,
    over: CancellationToken,
    publishers: JoinSet<BTreeSet<String>>,
}

impl Publishing {
    fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    async fn wait_until(&self, what: &str, condition: impl Fn(&Counts) -> bool) {
        let mut changes = self.counts.subscribe();
        let explain = || format!("{what}; there are {:?}", self.counts());
        bounded_or(changes.wait_for(condition), explain).await.unwrap();
    }

    async fn wait_for_more(&self, more: usize) {
        let goal = self.counts().acknowledged + more;
        self.wait_until(&format!("{goal} acknowledged events"), |counts| counts.acknowledged >= goal).await;
    }

    /// Stops publishing. Returns the ids of all acknowledged events.
    async fn finish(self) -> BTreeSet<String> {
        self.over.cancel();
        bounded_or(self.publishers.join_all(), || "the last answers".to_owned()).await.into_iter().flatten().collect()
    }
}

/// Publishes one event after another. Does not repeat an unacknowledged publish.
async fn publish(
    caller: Caller,
    number: usize,
    counts: Arc<watch::Sender<Counts>>,
    over: CancellationToken,
) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for sent in 0.. {
        if over.is_cancelled() {
            break;
        }
        let body = json!({"type": "post.created", "data": {"order": format!("{number}-{sent}")}}).to_string();
        let reply = caller.send(Method::POST, "/v1/events", Bytes::from(body)).await;
        if reply.status == 202 {
            acknowledged.insert(text(&reply.data(202), "id"));
            counts.send_modify(|counts| counts.acknowledged += 1);
        } else {
            reply.error(503, "service_unavailable");
            counts.send_modify(|counts| counts.unavailable += 1);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_transaction_pooler_events_arrive_signed_and_retried() {
    let Some(pooled) = Pooled::start().await else { return };
    // The first attempt of about every fifth event fails.
    pooled.receiver.decide(|request| {
        let is_first = request.header("scripe-delivery-attempt") == Some("1");
        let is_unlucky = request.body.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 5 == 0;
        Behaviour::status(if is_first && is_unlucky { 500 } else { 200 })
    });
    let publishing = pooled.publish_from_all_sides();
    publishing.wait_for_more(200).await;
    // Read requests use the pooler too.
    join_all((0..40).map(|_| async { pooled.caller.get("/v1/webhook-deliveries").await.data(200) })).await;
    let (clients, servers) = pooled.pooler.shares().await;
    assert!(servers <= CONNECTIONS && clients > servers, "{clients} connections to the pooler, {servers} beyond it");
    publishing.wait_for_more(200).await;
    assert_eq!(publishing.counts().unavailable, 0);
    let acknowledged = publishing.finish().await;
    pooled.wait_until_nothing_is_pending().await;
    let arrived = pooled.arrived();
    assert_eq!(arrived.keys().collect::<Vec<_>>(), acknowledged.iter().collect::<Vec<_>>());
    assert!(arrived.values().any(|attempts| *attempts == 2), "some failed at first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_crash_loses_no_acknowledged_event() {
    let Some(mut pooled) = Pooled::start().await else { return };
    let publishing = pooled.publish_from_all_sides();
    for _ in 0..3 {
        publishing.wait_for_more(100).await;
        pooled.pooler.kill().await;
        let refused = publishing.counts().unavailable;
        // By then every publish in flight has had its answer.
        publishing.wait_until("answers of 503", |counts| counts.unavailable > refused + 2 * PUBLISHERS).await;
        pooled.pooler.resume().await;
    }
    publishing.wait_for_more(100).await;
    let acknowledged = publishing.finish().await;
    let arrived = || async {
        let arrived = pooled.arrived();
        acknowledged.iter().all(|event| arrived.contains_key(event)).then_some(())
    };
    eventually_within(LONGEST, arrived, || "every acknowledged event".to_owned()).await;
}
