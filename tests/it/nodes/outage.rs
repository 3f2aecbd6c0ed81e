//! A database that is gone or refuses. Publishers get 503 with `Retry-After`, and everything resumes by itself when it
//! is back.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio_postgres::Client;

use super::way::Way;
use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::cluster::{Cluster, Shutdown};
use crate::support::process::{Serving, create_key, path_text};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::wait::{eventually, within};

/// One server on its own database, with one endpoint.
struct Node {
    _server: Serving,
    /// The arguments for further servers on the same store.
    database: Vec<String>,
    caller: Caller,
    receiver: Receiver,
    cluster: Cluster,
    /// The relay to the database.
    way: Way,
    directory: TempDir,
}

impl Node {
    /// Returns `None` when PostgreSQL is not installed.
    async fn start(settings: &[&str]) -> Option<Self> {
        // Only the server crashes here, not the machine, so `fsync` is not needed.
        let cluster = Cluster::start(&[&["fsync = off"], settings].concat()).await?;
        let way = Way::to((Ipv4Addr::LOCALHOST, cluster.port()).into()).await;
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("shared.key");
        std::fs::write(&key_file, "0f".repeat(32)).unwrap();
        let url = cluster.url().replace(&cluster.port().to_string(), &way.port().to_string());
        let database = ["--database-url", &url, "--master-key-file", path_text(&key_file)];
        let scopes = ["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"];
        let key = create_key(&directory.path().join("command"), &[&database[..], &scopes].concat()).await;
        let settings = ["--allow-target", "127.0.0.0/8", "--retry-schedule", "1s,1s,1s,1s,1s,1s,1s,1s"];
        let server = Serving::start(&directory.path().join("data"), &[&database[..], &settings].concat()).await;
        let (caller, receiver) = (server.caller().key(&text(&key, "key")), Receiver::start().await);
        let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"]});
        caller.post("/v1/webhook-endpoints", body).await.data(200);
        let database = ["--database-url", &cluster.url(), "--master-key-file", path_text(&key_file)];
        let database = database.map(str::to_owned).to_vec();
        Some(Self { _server: server, database, caller, receiver, cluster, way, directory })
    }

    /// Starts another server on the same database, without the relay.
    async fn another(&self) -> (Serving, Caller) {
        let arguments: Vec<&str> = self.database.iter().map(String::as_str).collect();
        let server = Serving::start(&self.directory.path().join("another"), &arguments).await;
        let caller = self.caller.at(server.caller().address());
        (server, caller)
    }

    async fn publish(&self) -> u16 {
        let reply = self.caller.post("/v1/events", json!({"type": "post.created", "data": {}})).await;
        if reply.status != 202 {
            let error = reply.error(503, "service_unavailable");
            assert!(reply.header("retry-after").is_some(), "{error}");
        }
        reply.status
    }

    async fn health(&self) -> u16 {
        self.caller.get("/v1/health").await.status
    }

    /// Waits until the health route answers `status`.
    async fn notices(&self, status: u16) {
        let noticed = || async { (self.health().await == status).then_some(()) };
        eventually(&format!("a health of {status}"), noticed).await;
    }
}

/// Ends all sessions of the node.
async fn cut(client: &Client) {
    let cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'postrider'";
    client.query(cut, &[]).await.unwrap();
}

#[tokio::test]
async fn without_its_database_a_node_answers_503_and_then_recovers() {
    let Some(node) = Node::start(&[]).await else { return };
    node.receiver.then(Behaviour::status(500));
    assert_eq!(node.publish().await, 202);
    node.receiver.wait_for(1).await;
    node.cluster.stop(Shutdown::Fast).await;
    for _ in 0..3 {
        assert_eq!((node.publish().await, node.health().await), (503, 503));
    }
    node.cluster.resume().await;
    // The node resumes by itself, without a request.
    node.receiver.wait_for(2).await;
    node.notices(200).await;
    assert_eq!(node.publish().await, 202);
    node.receiver.wait_for(3).await;
}

#[tokio::test]
async fn a_read_only_database_accepts_no_publish() {
    let Some(node) = Node::start(&[]).await else { return };
    assert_eq!(node.publish().await, 202);
    let client = node.cluster.client().await;
    let set = async |value| {
        let sql = format!(
            "SET default_transaction_read_only = off; ALTER DATABASE postgres SET default_transaction_read_only = {value}"
        );
        client.batch_execute(&sql).await.unwrap();
        cut(&client).await;
    };
    set("on").await;
    assert_eq!((node.publish().await, node.health().await), (503, 503));
    set("off").await;
    node.notices(200).await;
    assert_eq!(node.publish().await, 202);
    node.receiver.wait_for(2).await;
}

#[tokio::test]
async fn a_database_with_too_many_clients_delays_no_request() {
    let Some(node) = Node::start(&["max_connections = 10"]).await else { return };
    let first = node.cluster.client().await;
    let mut taken = Vec::new();
    // The node closes no connection by itself, so its connections are ended until others hold them all.
    loop {
        cut(&first).await;
        match node.cluster.try_client().await {
            Ok(client) => taken.push(client),
            Err(_) => break,
        }
    }
    let publishes = futures_util::future::join_all((0..20).map(|_| node.publish()));
    assert!(publishes.await.contains(&503));
    drop(taken);
    node.notices(200).await;
    let accepted = || async { (node.publish().await == 202).then_some(()) };
    eventually("an event that is accepted", accepted).await;
    // The database allows fewer connections than the node would open. Still, every concurrent publish gets an answer.
    futures_util::future::join_all((0..40).map(|_| node.publish())).await;
    eventually("an event that is accepted", accepted).await;
}

#[tokio::test]
async fn a_lost_commit_is_not_acknowledged_despite_a_reused_xid() {
    // Only commits write the log to disk.
    let Some(node) = Node::start(&["wal_writer_delay = '10s'"]).await else { return };
    node.way.catch_next_commit();
    let body = Bytes::from(json!({"type": "post.created", "data": {"is": "lost"}, "externalId": "lost"}).to_string());
    let publishing = node.caller.try_send(Method::POST, "/v1/events", body);
    let crashing = async {
        node.way.caught().await;
        node.cluster.restart(Shutdown::Immediate).await;
        let client = node.cluster.client().await;
        for _ in 0..50 {
            client.query("SELECT pg_current_xact_id()", &[]).await.unwrap();
        }
        node.way.cut();
        client
    };
    let answered = within(Duration::from_secs(90), join(publishing, crashing), || "an answer".to_owned()).await;
    let (reply, client) = (answered.0.unwrap(), answered.1);
    let kept: i64 =
        client.query_one("SELECT COUNT(*) FROM events WHERE external_id = 'lost'", &[]).await.unwrap().get(0);
    assert_eq!(kept, 0, "the commit never reached the database");
    reply.error(503, "service_unavailable");
    node.notices(200).await;
    assert_eq!(node.publish().await, 202);
}

#[tokio::test]
async fn a_stalled_transaction_of_a_node_does_not_delay_the_others() {
    let Some(node) = Node::start(&[]).await else { return };
    let (_server, other) = node.another().await;
    let event = json!({"type": "post.created", "data": {}});
    node.way.catch_next_commit();
    let standing = node.caller.try_send(Method::POST, "/v1/events", Bytes::from(event.to_string()));
    let going_on = async {
        node.way.caught().await;
        // To the same endpoint, whose queue the stalled transaction has locked.
        other.post("/v1/events", event.clone()).await.data(202);
        node.way.cut();
    };
    let (reply, ()) = within(Duration::from_secs(60), join(standing, going_on), || "an answer".to_owned()).await;
    reply.unwrap().error(503, "service_unavailable");
}
