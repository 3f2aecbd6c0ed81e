//! RabbitMQ: a real broker, with a name, ports and a directory of its own. It takes seconds to start, so one test has
//! it, and each scenario its queue.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection as Client, ConnectionProperties};
use postrider_domain::source::{FieldRule, SourceKind, SourceState, SourceTerms};
use postrider_source::{Connection, RabbitmqSettings, SourceSettings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::desk::{NAME, accepted, accepted_when, parked_when, source, source_when, terms};
use crate::support::app::{App, text};
use crate::support::postgres::skip;
use crate::support::wait::{bounded, eventually, eventually_within};

/// The scripts of the Debian package, which do not change the user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// An Erlang node on a busy machine.
const START_WAIT: Duration = Duration::from_secs(240);

struct Broker {
    port: u16,
    dist_port: u16,
    directory: TempDir,
    server: Option<Child>,
}

impl Broker {
    async fn start() -> Option<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let mut broker = Self { port: free(), dist_port: free(), directory, server: None };
        broker.go_on().await.then_some(broker)
    }

    async fn go_on(&mut self) -> bool {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(SERVER);
        command
            .env("HOME", self.directory.path())
            .env("RABBITMQ_NODENAME", format!("postrider{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", at("db"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", at("none"))
            .env("RABBITMQ_CONFIG_FILE", at("none"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match command.spawn() {
            Ok(server) => self.server = Some(server),
            Err(error) => {
                skip(&format!("sources on RabbitMQ: {SERVER} does not start ({error})"));
                return false;
            }
        }
        let answers = || async { self.try_client().await.ok().map(|_| ()) };
        eventually_within(START_WAIT, answers, || "a broker that answers".to_owned()).await;
        true
    }

    /// The script has started the broker as its child, which does not end with it.
    async fn stop(&mut self) {
        let pid = std::fs::read_to_string(self.directory.path().join("pid")).unwrap();
        let killed = Command::new("kill").args(["-KILL", pid.trim()]).status().await.unwrap();
        assert!(killed.success());
        bounded("the end of RabbitMQ", self.server.take().unwrap().wait()).await.unwrap();
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    async fn try_client(&self) -> Result<Client, lapin::Error> {
        Client::connect(&self.url(), ConnectionProperties::default()).await
    }

    fn source(&self, queue: &str, change: impl FnOnce(&mut SourceTerms)) -> SourceSettings {
        let mut terms = terms(SourceKind::Rabbitmq, FieldRule::MessageId);
        change(&mut terms);
        let connection = Connection::Rabbitmq(RabbitmqSettings {
            uri: self.url().parse().unwrap(),
            user: None,
            password_file: None,
            ca_file: None,
            queue: queue.to_owned(),
            is_declared: false,
            max_in_flight: terms.max_in_flight,
            max_bytes_in_flight: terms.max_bytes_in_flight,
        });
        SourceSettings { terms, connection }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.server.is_some()
            && let Ok(pid) = std::fs::read_to_string(self.directory.path().join("pid"))
        {
            let _ = std::process::Command::new("kill").args(["-KILL", pid.trim()]).status();
        }
    }
}

/// A queue, and a channel to publish into it.
struct Queue {
    name: String,
    channel: Channel,
    // Its channel ends with it.
    _client: Client,
}

impl Queue {
    async fn of(broker: &Broker, name: &str) -> Self {
        let client = broker.try_client().await.unwrap();
        let channel = client.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
        Self { name: name.to_owned(), channel, _client: client }
    }

    async fn publish(&self, id: &str, body: &str) {
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if !id.is_empty() {
            properties = properties.with_message_id(id.into());
        }
        let options = BasicPublishOptions::default();
        let key = self.name.as_str().into();
        let sent = self.channel.basic_publish("".into(), key, options, body.as_bytes(), properties).await.unwrap();
        bounded("a confirm of RabbitMQ", sent).await.unwrap();
    }

    /// Messages that wait. Those that were given to a consumer do not count.
    async fn ready(&self) -> u32 {
        let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(self.name.as_str().into(), options, FieldTable::default()).await;
        queue.unwrap().message_count()
    }
}

fn event(n: impl Into<Value>) -> String {
    json!({"type": "post.created", "data": {"n": n.into()}}).to_string()
}

async fn app(source: SourceSettings) -> App {
    let app = App::set_up().await.change(|settings| settings.sources = vec![source]).start().await;
    source_when(app.caller(), SourceState::Running).await;
    app
}

#[tokio::test]
async fn a_queue_of_rabbitmq_is_a_source() {
    let Some(mut broker) = Broker::start().await else { return };
    poison_is_parked_and_acknowledged(&broker).await;
    a_full_store_rejects_nothing(&broker).await;
    at_most_the_prefetch_is_taken(&broker).await;
    a_deleted_queue_is_noticed(&broker).await;
    the_broker_may_be_away(&mut broker).await;
}

/// Others reject what they cannot read, whereupon it is gone without a dead-letter exchange, or put it back for ever.
async fn poison_is_parked_and_acknowledged(broker: &Broker) {
    let queue = Queue::of(broker, "poison").await;
    queue.publish("1", &event(1)).await;
    queue.publish("2", "no JSON").await;
    queue.publish("", &event(3)).await;
    queue.publish("4", &event(4)).await;
    let mut app = app(broker.source("poison", |_| {})).await;
    let parked = parked_when(app.caller(), 2).await;
    let reasons: Vec<String> = parked.iter().rev().map(|message| text(message, "reason")).collect();
    assert_eq!(reasons, ["not_json", "no_id"]);
    assert_eq!((text(&parked[1], "subject"), text(&parked[1], "messageId")), ("poison".into(), "2".into()));
    let found = accepted_when(app.caller(), 2).await;
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [format!("{NAME}_1"), format!("{NAME}_4")]);
    // What is not acknowledged comes back when the consumer goes.
    app.stop().await;
    assert_eq!(queue.ready().await, 0);
}

/// Others reject a message when their database has a fault.
async fn a_full_store_rejects_nothing(broker: &Broker) {
    const MESSAGES: usize = 40;
    let queue = Queue::of(broker, "full").await;
    let text_of = "x".repeat(64 * 1024);
    for n in 0..MESSAGES {
        let body = json!({"type": "post.created", "data": {"text": text_of}}).to_string();
        queue.publish(&n.to_string(), &body).await;
    }
    let source_settings = broker.source("full", |_| {});
    let set_up = App::set_up().await.change(|settings| {
        settings.sources = vec![source_settings];
        settings.workspace_max_bytes = Some(postrider_domain::limits::WORKSPACE_BYTES_MIN);
    });
    let mut app = set_up.start().await;
    eventually("a source that says that the workspace is full", || async {
        let found = source(app.caller()).await;
        found["error"].as_str().is_some_and(|error| error.contains("limit of")).then_some(())
    })
    .await;
    app.stop().await;
    app = app.change_settings(|settings| settings.workspace_max_bytes = None);
    app.start_again().await;
    assert_eq!(accepted_when(app.caller(), MESSAGES).await.len(), MESSAGES);
    parked_when(app.caller(), 0).await;
}

/// Others set no prefetch, so that the broker sends the whole queue into their memory.
async fn at_most_the_prefetch_is_taken(broker: &Broker) {
    let queue = Queue::of(broker, "prefetch").await;
    for n in 0..30 {
        queue.publish(&n.to_string(), "no JSON").await;
    }
    // Nothing of it is settled, since nothing more may be parked.
    let source_settings = broker.source("prefetch", |terms| (terms.max_in_flight, terms.parked_max) = (10, 1));
    let mut app = App::set_up().await.change(|settings| settings.sources = vec![source_settings]).start().await;
    source_when(app.caller(), SourceState::ParkedFull).await;
    assert!(queue.ready().await >= 19, "one is parked and ten are taken: {} are left", queue.ready().await);
    app.stop().await;
    eventually("all but the parked one, back in the queue", || async { (queue.ready().await == 29).then_some(()) })
        .await;
}

/// The broker cancels the consumer of a deleted queue. Others do not notice, and wait for ever.
async fn a_deleted_queue_is_noticed(broker: &Broker) {
    let queue = Queue::of(broker, "deleted").await;
    let app = app(broker.source("deleted", |_| {})).await;
    queue.channel.queue_delete("deleted".into(), QueueDeleteOptions::default()).await.unwrap();
    source_when(app.caller(), SourceState::Retrying).await;
    let queue = Queue::of(broker, "deleted").await;
    queue.publish("1", &event(1)).await;
    accepted_when(app.caller(), 1).await;
    source_when(app.caller(), SourceState::Running).await;
}

async fn the_broker_may_be_away(broker: &mut Broker) {
    let queue = Queue::of(broker, "away").await;
    let app = app(broker.source("away", |_| {})).await;
    for n in 0..20 {
        queue.publish(&n.to_string(), &event(n)).await;
    }
    broker.stop().await;
    source_when(app.caller(), SourceState::Retrying).await;
    assert!(broker.go_on().await);
    let queue = Queue::of(broker, "away").await;
    queue.publish("last", &event("last")).await;
    let all = || async { (accepted(app.caller()).await.len() == 21).then_some(()) };
    eventually_within(START_WAIT, all, || "every message that was confirmed".to_owned()).await;
    let found = accepted(app.caller()).await;
    assert!(found.values().all(|count| *count == 1), "{found:?}");
}
