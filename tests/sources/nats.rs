//! NATS JetStream: a real `nats-server`, which each test starts on a port and in a directory of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer, stream};
use postrider::config::Settings;
use postrider_domain::source::{FieldRule, SourceKind, SourceState, SourceTerms};
use postrider_source::{Connection, NatsSettings, SourceSettings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::desk::{NAME, accepted, accepted_when, parked_when, source, source_when, terms};
use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::postgres::skip;
use crate::support::process::{Serving, create_key};
use crate::support::receiver::Receiver;
use crate::support::verify::verify_as_integrator;
use crate::support::wait::{bounded, eventually, eventually_within};

const STREAM: &str = "EVENTS";
const CONSUMER: &str = "postrider";

/// A server of NATS. Killed when dropped.
struct Broker {
    port: u16,
    directory: TempDir,
    server: Option<Child>,
}

impl Broker {
    /// `None`, with a message, where there is no `nats-server`.
    async fn start() -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut broker = Self { port: free.port(), directory: tempfile::tempdir().unwrap(), server: None };
        broker.go_on().await.then_some(broker)
    }

    /// Starts it with what it had before. Returns whether there is one.
    async fn go_on(&mut self) -> bool {
        let (port, directory) = (self.port.to_string(), self.directory.path().to_str().unwrap());
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd", directory]).kill_on_drop(true);
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(server) => self.server = Some(server),
            Err(error) => {
                skip(&format!("sources on NATS: nats-server does not start ({error})"));
                return false;
            }
        }
        eventually("a server of NATS", || async { self.try_client().await.ok().map(|_| ()) }).await;
        true
    }

    async fn stop(&mut self) {
        bounded("the end of NATS", self.server.take().unwrap().kill()).await.unwrap();
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    async fn try_client(&self) -> Result<jetstream::Context, async_nats::ConnectError> {
        async_nats::connect(self.url()).await.map(jetstream::new)
    }

    async fn client(&self) -> jetstream::Context {
        self.try_client().await.unwrap()
    }

    async fn publish(&self, messages: &[(&str, String)]) {
        let context = self.client().await;
        for (id, body) in messages {
            let mut headers = HeaderMap::new();
            if !id.is_empty() {
                headers.insert("Nats-Msg-Id", *id);
            }
            let sent = context.publish_with_headers("events.posts", headers, body.clone().into()).await.unwrap();
            bounded("an acknowledgement of NATS", sent.into_future()).await.unwrap();
        }
    }

    /// Messages that the consumer has given and that are not acknowledged, and those that it has not given yet.
    async fn left(&self) -> (usize, u64) {
        let stream = self.client().await.get_stream(STREAM).await.unwrap();
        let info = stream.consumer_info(CONSUMER).await.unwrap();
        (info.num_ack_pending, info.num_pending)
    }

    async fn emptied(&self) {
        eventually("a consumer with nothing left", || async { (self.left().await == (0, 0)).then_some(()) }).await;
    }

    /// Makes the stream and the consumer, which gives a message again after a second.
    async fn make_impatient_consumer(&self) {
        let config =
            stream::Config { name: STREAM.into(), subjects: vec!["events.>".into()], ..stream::Config::default() };
        let made = self.client().await.create_stream(config).await.unwrap();
        let config = consumer::pull::Config {
            durable_name: Some(CONSUMER.into()),
            ack_wait: std::time::Duration::from_secs(1),
            ..consumer::pull::Config::default()
        };
        made.create_consumer(config).await.unwrap();
    }

    fn source(&self, change: impl FnOnce(&mut SourceTerms)) -> SourceSettings {
        let mut terms = terms(SourceKind::Nats, FieldRule::Header("Nats-Msg-Id".to_owned()));
        change(&mut terms);
        let connection = Connection::Nats(NatsSettings {
            urls: vec![self.url()],
            user: None,
            password_file: None,
            token_file: None,
            ca_file: None,
            stream: STREAM.to_owned(),
            consumer: CONSUMER.to_owned(),
            declared: Some(vec!["events.>".to_owned()]),
            max_in_flight: terms.max_in_flight,
            max_bytes_in_flight: terms.max_bytes_in_flight,
        });
        SourceSettings { terms, connection }
    }

    async fn app(&self, change: impl FnOnce(&mut Settings)) -> App {
        let source = self.source(|_| {});
        let set_up = App::set_up().await.allow("127.0.0.0/8").real_time();
        let set_up = set_up.change(|settings| settings.sources = vec![source]);
        let app = set_up.change(change).start().await;
        source_when(app.caller(), SourceState::Running).await;
        app
    }
}

fn event(n: impl Into<Value>) -> String {
    json!({"type": "post.created", "data": {"n": n.into()}}).to_string()
}

#[tokio::test]
async fn a_message_of_nats_becomes_a_signed_delivery() {
    let Some(broker) = Broker::start().await else { return };
    let app = broker.app(|_| {}).await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    broker.publish(&[("1", event(1))]).await;
    let received = receiver.wait_for(1).await.remove(0);
    verify_as_integrator(&endpoint.secret, &received).unwrap();
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(body["data"], json!({"n": 1}));
    assert_eq!(accepted(app.caller()).await.into_keys().collect::<Vec<_>>(), [format!("{NAME}_1")]);
    broker.emptied().await;
}

/// Others put back what is no JSON until a limit, or read it again in a loop, or acknowledge it and forget it.
#[tokio::test]
async fn poison_in_a_batch_of_nats_is_parked() {
    let Some(broker) = Broker::start().await else { return };
    let app = broker.app(|_| {}).await;
    let wrong = json!({"type": "post.created"}).to_string();
    let batch = [
        ("1", event(1)),
        ("2", "no JSON".to_owned()),
        ("3", wrong),
        ("", event(4)),
        ("5", json!({"type": "no.type", "data": {}}).to_string()),
        ("6", event(6)),
    ];
    broker.publish(&batch).await;
    let parked = parked_when(app.caller(), 4).await;
    let reasons: Vec<String> = parked.iter().rev().map(|message| text(message, "reason")).collect();
    assert_eq!(reasons, ["not_json", "wrong_shape", "no_id", "unknown_type"]);
    assert_eq!((text(&parked[3], "subject"), text(&parked[3], "sequence")), ("events.posts".into(), "2".into()));
    accepted_when(app.caller(), 2).await;
    broker.emptied().await;
    assert_eq!(source(app.caller()).await["repeated"], 0, "nothing came again");
}

/// Others end after a minute without their broker, and nobody starts them again.
#[tokio::test]
async fn nats_may_be_away_and_come_back() {
    let Some(mut broker) = Broker::start().await else { return };
    let app = broker.app(|_| {}).await;
    for round in 0..3 {
        broker.stop().await;
        source_when(app.caller(), SourceState::Retrying).await;
        assert!(broker.go_on().await);
        broker.publish(&[(&round.to_string(), event(round))]).await;
        let all = || async { (accepted(app.caller()).await.len() > round).then_some(()) };
        // The waits between two tries grow up to half a minute.
        let patience = std::time::Duration::from_secs(150);
        eventually_within(patience, all, || "what was published after the outage".to_owned()).await;
    }
    source_when(app.caller(), SourceState::Running).await;
}

#[tokio::test]
async fn a_restart_of_nats_in_a_backlog_loses_nothing() {
    const MESSAGES: usize = 2_000;
    let Some(mut broker) = Broker::start().await else { return };
    broker.make_impatient_consumer().await;
    let app = broker.app(|_| {}).await;
    let context = broker.client().await;
    let mut sent = Vec::new();
    for n in 0..MESSAGES {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", n.to_string().as_str());
        sent.push(context.publish_with_headers("events.posts", headers, event(n).into()).await.unwrap());
    }
    for sent in sent {
        bounded("an acknowledgement of NATS", sent.into_future()).await.unwrap();
    }
    eventually("the first accepted messages", || async {
        source(app.caller()).await["accepted"].as_u64().filter(|accepted| *accepted > 0)
    })
    .await;
    broker.stop().await;
    assert!(broker.go_on().await);
    eventually("the whole backlog", || async { (source(app.caller()).await["accepted"] == MESSAGES).then_some(()) })
        .await;
    broker.emptied().await;
    let found = accepted(app.caller()).await;
    assert!(found.len() == MESSAGES && found.values().all(|count| *count == 1), "{}", found.len());
}

#[tokio::test]
async fn a_deleted_consumer_is_noticed() {
    let Some(broker) = Broker::start().await else { return };
    let app = broker.app(|_| {}).await;
    let stream = broker.client().await.get_stream(STREAM).await.unwrap();
    stream.delete_consumer(CONSUMER).await.unwrap();
    // It is declared anew, by the settings of this source.
    eventually("the consumer", || async { stream.consumer_info(CONSUMER).await.ok() }).await;
    broker.publish(&[("1", event(1))]).await;
    accepted_when(app.caller(), 1).await;
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_waited_for() {
    let Some(broker) = Broker::start().await else { return };
    let mut source = broker.source(|_| {});
    let Connection::Nats(nats) = &mut source.connection else { unreachable!("a source of NATS") };
    nats.declared = None;
    let app = App::set_up().await.change(|settings| settings.sources = vec![source]).start().await;
    let retrying = eventually("an error about the stream", || async {
        let found = crate::desk::source(app.caller()).await;
        found["error"].as_str().is_some_and(|error| error.contains("stream")).then_some(found)
    });
    assert!(text(&retrying.await, "error").contains("declare = true"));
    let context = broker.client().await;
    let config = stream::Config { name: STREAM.into(), subjects: vec!["events.>".into()], ..stream::Config::default() };
    let made = context.create_stream(config).await.unwrap();
    let config = consumer::pull::Config { durable_name: Some(CONSUMER.into()), ..consumer::pull::Config::default() };
    made.create_consumer(config).await.unwrap();
    broker.publish(&[("1", event(1))]).await;
    accepted_when(app.caller(), 1).await;
}

/// Messages that were accepted and not acknowledged when the server died come again, and are known.
#[tokio::test]
async fn a_kill_while_nats_delivers_repeats_nothing() {
    const MESSAGES: usize = 300;
    let Some(broker) = Broker::start().await else { return };
    broker.make_impatient_consumer().await;
    let directory = tempfile::tempdir().unwrap();
    let (data, file) = (directory.path().join("data"), directory.path().join("postrider.toml"));
    let settings = format!(
        "[[source]]\nname = \"{NAME}\"\nkind = \"nats\"\nworkspace = \"Acme\"\nurl = \"{}\"\nstream = \"{STREAM}\"\n\
         consumer = \"{CONSUMER}\"\ndeclare = true\nsubjects = [\"events.>\"]\nid = \"sequence\"\nmax_in_flight = 20\n",
        broker.url()
    );
    std::fs::write(&file, settings).unwrap();
    let key = text(&create_key(&data, &["--workspace", "Acme", "--scope", "events:read"]).await, "key");
    let arguments = ["--config", file.to_str().unwrap()];
    let mut server = Serving::start(&data, &arguments).await;
    source_when(&server.caller().key(&key), SourceState::Running).await;
    let messages: Vec<(&str, String)> = (0..MESSAGES).map(|n| ("", event(n))).collect();
    for part in messages.chunks(MESSAGES / 5) {
        broker.publish(part).await;
        server.kill().await;
        server = Serving::start(&data, &arguments).await;
    }
    let caller = server.caller().key(&key);
    let found = accepted_when(&caller, MESSAGES).await;
    assert!(found.len() == MESSAGES && found.values().all(|count| *count == 1), "{}", found.len());
    server.kill().await;
}

#[tokio::test]
async fn a_node_takes_what_another_leaves() {
    let Some(broker) = Broker::start().await else { return };
    let first = broker.app(|_| {}).await;
    let mut second = broker.app(|_| {}).await;
    // Each has a store of its own here, so that it shows who took what.
    second.stop().await;
    let messages: Vec<(String, String)> = (0..50).map(|n| (n.to_string(), event(n))).collect();
    let messages: Vec<(&str, String)> = messages.iter().map(|(id, body)| (id.as_str(), body.clone())).collect();
    broker.publish(&messages).await;
    accepted_when(first.caller(), 50).await;
    broker.emptied().await;
}

#[tokio::test]
async fn rules_read_the_event_from_subject_and_headers() {
    let Some(broker) = Broker::start().await else { return };
    let source = broker.source(|terms| {
        terms.rules.id = FieldRule::Hash;
        terms.rules.event_type = FieldRule::Subject;
        terms.rules.data = FieldRule::Pointer(String::new());
        terms.rules.project = FieldRule::Header("Project".to_owned());
    });
    let mut source = source;
    let Connection::Nats(nats) = &mut source.connection else { unreachable!("a source of NATS") };
    nats.declared = Some(vec!["post.>".to_owned()]);
    let app = App::set_up().await.change(|settings| settings.sources = vec![source]).start().await;
    source_when(app.caller(), SourceState::Running).await;
    let context = broker.client().await;
    let mut headers = HeaderMap::new();
    headers.insert("project", "proj_1");
    for _ in 0..2 {
        let body = json!({"externalId": "not ours", "n": 1}).to_string();
        let sent = context.publish_with_headers("post.created", headers.clone(), body.into()).await.unwrap();
        bounded("an acknowledgement of NATS", sent.into_future()).await.unwrap();
    }
    eventually("the second message, which is the same event", || async {
        (crate::desk::source(app.caller()).await["repeated"] == 1).then_some(())
    })
    .await;
    let listed: Value = app.get("/v1/events").await.json();
    let event = &listed["data"][0];
    assert_eq!((text(event, "type"), text(event, "projectId")), ("post.created".into(), "proj_1".into()));
    let other = app.caller_of("Other", ALL_SCOPES).await;
    assert!(accepted(&other).await.is_empty());
}
