//! Four real servers on one database, and the faults that a test causes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::Chance;
use super::load::Endpoint;
use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::cluster::{Cluster, Shutdown};
use crate::support::process::{Serving, create_key, path_text};
use crate::support::wait::{eventually, eventually_within};

pub const NODES: usize = 4;
/// Many short retries, so that a receiver that fails now and then never exhausts the schedule.
const SCHEDULE: &str = "20ms,20ms,50ms,100ms,200ms,500ms,1s,1s,1s,1s";
/// The lease of a claim, and time for other nodes to take it over.
const LEASE_AND_MORE: Duration = Duration::from_secs(100);

pub struct Fleet {
    cluster: Arc<Cluster>,
    directory: TempDir,
    key: String,
    nodes: Vec<Node>,
    /// The address of each node, for the publishers.
    pub addresses: Arc<Mutex<Vec<SocketAddr>>>,
    /// The times at which nodes joined, left or lost the database.
    pub changes: Vec<Instant>,
    paused: Option<usize>,
    pub kills: usize,
    pub cuts: u64,
    refused: usize,
}

struct Node {
    server: Serving,
    /// The number of the node in its row keys.
    number: i64,
}

/// A frozen node.
pub struct Paused {
    at: usize,
    number: i64,
}

impl Fleet {
    /// Starts the nodes and creates the endpoints.
    pub async fn start(cluster: &Arc<Cluster>, endpoints: &[Endpoint]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("shared.key"), "0f".repeat(32)).unwrap();
        let mut fleet = Self {
            cluster: Arc::clone(cluster),
            directory,
            key: String::new(),
            nodes: Vec::new(),
            addresses: Arc::default(),
            changes: Vec::new(),
            paused: None,
            kills: 0,
            cuts: 0,
            refused: 0,
        };
        let mut arguments = fleet.arguments();
        arguments
            .extend(["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"].map(String::from));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fleet.key = text(&create_key(&fleet.directory.path().join("command"), &arguments).await, "key");
        for at in 0..NODES {
            let node = fleet.start_node(at).await;
            fleet.addresses.lock().unwrap().push(node.server.caller().address());
            fleet.nodes.push(node);
        }
        fleet.note_change();
        for endpoint in endpoints {
            let ordering = if endpoint.is_strict() { "strict" } else { "none" };
            let body = json!({
                "name": endpoint.name,
                "url": endpoint.url(),
                "events": endpoint.events,
                "ordering": ordering,
            });
            fleet.caller(0).post("/v1/webhook-endpoints", body).await.data(200);
        }
        fleet
    }

    pub fn caller(&self, at: usize) -> Caller {
        self.nodes[at].server.caller().key(&self.key)
    }

    /// Freezes one node that has claims.
    pub async fn pause_one_that_has_claims(&mut self, chance: &mut Chance) -> Paused {
        let at = chance.below(NODES);
        let Node { server, number } = &self.nodes[at];
        let client = self.cluster.client().await;
        let stop = || async {
            server.pause().await;
            if live_claims(&client, *number).await > 0 {
                return Some(());
            }
            server.go_on().await;
            None
        };
        eventually("a moment at which a node has claims", stop).await;
        let number = *number;
        self.note_change();
        self.paused = Some(at);
        Paused { at, number }
    }

    /// Returns when its leases have expired and other nodes have taken over all its claims.
    pub async fn wait_until_taken_over(&self, paused: &Paused) {
        let client = self.cluster.client().await;
        let taken_over = || async {
            let sql = "SELECT COUNT(*) FROM due WHERE claim_token IS NOT NULL AND (claim_token >> 12) & 511 = $1";
            let left: i64 = client.query_one(sql, &[&paused.number]).await.unwrap().get(0);
            (left == 0).then_some(())
        };
        let explain = || "the claims of the paused node to be taken over".to_owned();
        eventually_within(LEASE_AND_MORE, taken_over, explain).await;
    }

    pub async fn let_go_on(&mut self, paused: &Paused) {
        self.note_change();
        self.nodes[paused.at].server.go_on().await;
        self.note_change();
        self.paused = None;
    }

    /// Checks that the node works normally.
    pub async fn publish_at(&self, paused: &Paused) {
        let caller = self.caller(paused.at);
        let body = json!({"type": "post.created", "data": {"order": "paused"}, "externalId": "paused"});
        caller.post("/v1/events", body).await.data(202);
        assert_eq!(caller.get("/v1/health").await.status, 200);
    }

    pub async fn kill_one(&mut self, chance: &mut Chance) {
        let mut at = chance.below(NODES);
        if Some(at) == self.paused {
            at = (at + 1) % NODES;
        }
        let node = self.nodes.remove(at);
        self.refused += refused_by(&node);
        self.note_change();
        node.server.kill().await;
        let node = self.start_node(at).await;
        self.note_change();
        self.addresses.lock().unwrap()[at] = node.server.caller().address();
        self.nodes.insert(at, node);
        self.kills += 1;
    }

    pub async fn restart_database(&mut self, how: Shutdown) {
        self.note_change();
        self.cluster.restart(how).await;
        self.note_change();
    }

    fn note_change(&mut self) {
        self.changes.push(Instant::now());
    }

    /// Ends about half of the connections of all nodes, even in the middle of a transaction.
    pub async fn cut_connections(&mut self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postrider' AND random() < 0.5";
        self.cuts += self.cluster.client().await.execute(sql, &[]).await.unwrap();
    }

    /// The number of outcomes that came too late.
    pub fn outcomes_refused(&self) -> usize {
        self.refused + self.nodes.iter().map(refused_by).sum::<usize>()
    }

    fn arguments(&self) -> Vec<String> {
        let key_file = path_text(&self.directory.path().join("shared.key")).to_owned();
        ["--database-url", &self.cluster.url(), "--master-key-file", &key_file].map(String::from).to_vec()
    }

    /// Every second node gets notifications over a direct connection. The others only poll.
    async fn start_node(&self, at: usize) -> Node {
        let mut arguments = self.arguments();
        arguments.extend(["--allow-target", "127.0.0.0/8", "--retry-schedule", SCHEDULE].map(String::from));
        if at.is_multiple_of(2) {
            arguments.extend(["--database-direct-url".to_owned(), self.cluster.url()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = Serving::start(&self.directory.path().join(at.to_string()), &arguments).await;
        let last = "SELECT number::bigint FROM nodes ORDER BY number DESC LIMIT 1";
        let number = self.cluster.client().await.query_one(last, &[]).await.unwrap().get(0);
        Node { server, number }
    }
}

async fn live_claims(client: &tokio_postgres::Client, number: i64) -> i64 {
    let sql = "SELECT COUNT(*) FROM due WHERE claim_token IS NOT NULL AND (claim_token >> 12) & 511 = $1
               AND due_at > extract(epoch FROM clock_timestamp()) * 1000";
    client.query_one(sql, &[&number]).await.unwrap().get(0)
}

fn refused_by(node: &Node) -> usize {
    let log = node.server.log();
    let lines = log.iter().filter(|line| line.contains("outcomes came after their claims had been taken over"));
    let outcomes = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["outcomes"].as_u64().and_then(|outcomes| usize::try_from(outcomes).ok()).unwrap_or(1)
    };
    lines.map(outcomes).sum()
}
