//! The app under test: the real server on a real store, in its own directory and with real sockets. The test moves its
//! clock and sets the answers of its DNS server.
//!
//! ```ignore
//! let app = App::start().await;                              // only public addresses; manual clock
//! let app = App::to_loopback().await;                        // also the receivers of the tests
//! let app = App::set_up().await.on(&database).start().await; // on PostgreSQL
//! let app = App::set_up().await.real_time().change(|settings| …).start().await;
//! let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
//! let event = app.publish("post.created", json!({})).await;
//! let delivery = app.delivery_when(&event, "is delivered", |delivery| delivery["status"] == "delivered").await;
//! ```

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use postrider::config::{MetricsListen, Settings};
use postrider::server::{Server, StartError};
use postrider_domain::access::{Mode, Scope, Scopes};
use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::time::{Clock, Day, Timestamp};
use postrider_domain::workspace::WorkspaceName;
use postrider_service::{CreateApiKey, CreatedApiKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::caller::{Caller, Reply};
use super::clock::{ManualClock, ShiftedClock};
use super::dns::{Answer, DnsServer};
use super::postgres::{CONNECTIONS, TestDatabase};
use super::receiver::Receiver;
use super::scrape::Scrape;
use super::tls::TestCa;
use super::wait::{BOUND, bounded, eventually_within};

/// The start time of the manual clock: 2026-05-15T12:00:00.000Z.
pub const NOON: Timestamp = Timestamp::from_millis(1_778_846_400_000);

/// A host with a public address, for endpoints that get no events. Nothing is ever sent to it.
pub const PUBLIC_HOST: &str = "hooks.example.com";

/// The scopes for webhooks and events, which a customer's program needs.
pub const ALL_SCOPES: &[Scope] = &[Scope::WebhooksManage, Scope::WebhooksRead, Scope::EventsWrite, Scope::EventsRead];

/// A running server and its setup.
pub struct App {
    server: Option<Server>,
    given: Setup,
    caller: Caller,
}

/// The settings, clocks and DNS server that a server starts with.
pub struct Setup {
    pub settings: Settings,
    pub clock: ManualClock,
    /// The clock to use instead in real time.
    pub real_clock: ShiftedClock,
    pub dns: DnsServer,
    directory: TempDir,
    real_time: bool,
    /// Dropped last, when no server has it open any more.
    database: Option<Arc<TestDatabase>>,
}

/// The id and the secret of a created endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub id: String,
    pub secret: String,
}

impl Setup {
    pub fn allow(mut self, target: &str) -> Self {
        self.settings.allow_targets.push(target.to_owned());
        self
    }

    pub fn trust(mut self, ca: &TestCa) -> Self {
        let path = self.directory.path().join("ca.pem");
        std::fs::write(&path, ca.pem()).expect("a file");
        self.settings.ca_file = Some(path);
        self
    }

    /// Stores in this database, as one of its nodes. Uses the machine's clock, because the database does too.
    pub fn on(mut self, database: &Arc<TestDatabase>) -> Self {
        self.settings.database.url = Some(DatabaseUrl::parse(&database.url()).expect("a URL"));
        self.settings.database.pool_size = CONNECTIONS;
        self.settings.master_key_file = Some(self.directory.path().join("shared.key"));
        self.database = Some(Arc::clone(database));
        self.key(&"0f".repeat(32)).real_time()
    }

    /// Writes a master key to the path in the settings.
    pub fn key(self, digits: &str) -> Self {
        std::fs::write(self.settings.master_key_path(), digits).expect("a file");
        self
    }

    /// Uses the machine's clock. The manual clock then has no effect.
    pub fn real_time(mut self) -> Self {
        self.real_time = true;
        self
    }

    /// Serves metrics on a free port.
    pub fn measured(mut self) -> Self {
        self.settings.metrics.listen = MetricsListen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        self
    }

    pub fn change(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub async fn start(self) -> App {
        let server = self.start_server().await.expect("a server that starts");
        let mut app = App { caller: Caller::stranger(server.address()), server: Some(server), given: self };
        app.caller = app.caller_of("Acme", ALL_SCOPES).await;
        app
    }

    /// Starts another server with the same settings.
    pub async fn start_server(&self) -> Result<Server, StartError> {
        let clock: Arc<dyn Clock> =
            if self.real_time { Arc::new(self.real_clock.clone()) } else { Arc::new(self.clock.clone()) };
        bounded("a server that starts", Server::start(&self.settings, clock)).await
    }
}

impl App {
    /// May call only public addresses. One has a name: [`PUBLIC_HOST`].
    pub async fn start() -> Self {
        Self::set_up().await.start().await
    }

    /// May also call the receivers of the tests.
    pub async fn to_loopback() -> Self {
        Self::set_up().await.allow("127.0.0.0/8").start().await
    }

    pub async fn set_up() -> Setup {
        let directory = tempfile::tempdir().expect("a directory");
        let dns = DnsServer::start().await;
        dns.set(PUBLIC_HOST, Answer::addresses(&["93.184.215.14"]));
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut settings = Settings::new(directory.path().join("data"), listen);
        settings.dns_servers = vec![dns.address()];
        settings.metrics.listen = MetricsListen::Off;
        Setup {
            settings,
            clock: ManualClock::new(NOON),
            real_clock: ShiftedClock::default(),
            dns,
            directory,
            real_time: false,
            database: None,
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the server is stopped")
    }

    pub fn setup(&self) -> &Setup {
        &self.given
    }

    pub fn clock(&self) -> &ManualClock {
        &self.given.clock
    }

    pub fn dns(&self) -> &DnsServer {
        &self.given.dns
    }

    pub fn data_dir(&self) -> &Path {
        &self.given.settings.data_dir
    }

    /// The metrics of a server that is [`Setup::measured`].
    pub async fn scrape(&self) -> Scrape {
        Scrape::of(self.server().metrics_address().expect("a server that serves metrics")).await
    }

    /// Stops gracefully.
    pub async fn stop(&mut self) {
        bounded("a graceful stop", self.server.take().expect("the server is stopped").stop()).await;
    }

    /// Starts again after [`Self::stop`], with the same data and on another port.
    pub async fn start_again(&mut self) {
        let server = self.given.start_server().await.expect("a server that starts");
        self.caller = self.caller.at(server.address());
        self.server = Some(server);
    }

    /// Changes the settings for the next start.
    pub fn change_settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.given.settings);
        self
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// A caller with a key of the workspace `Acme` and all scopes of [`ALL_SCOPES`]. It is live unless
    /// [`Self::in_test_mode`] was called.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A caller with a new live key. Creates the workspace if it is new.
    pub async fn caller_of(&self, workspace: &str, scopes: &[Scope]) -> Caller {
        self.caller_with(self.create_key(workspace, Mode::Live, scopes, None).await)
    }

    pub fn caller_with(&self, created: CreatedApiKey) -> Caller {
        Caller::stranger(self.server().address()).key(created.secret.reveal())
    }

    pub async fn create_key(
        &self,
        workspace: &str,
        mode: Mode,
        scopes: &[Scope],
        expires_at: Option<Timestamp>,
    ) -> CreatedApiKey {
        let workspace = WorkspaceName::parse(workspace).expect("a valid name");
        let expires_at = expires_at.map(Day::containing);
        let create = CreateApiKey { name: None, mode, scopes: Scopes::of(scopes), expires_at };
        self.server().operator().create_api_key(workspace, create).await.expect("a key")
    }

    /// A caller that reads the deliveries of operational events.
    pub async fn operations_caller(&self) -> Caller {
        let scopes = Scopes::of(&[Scope::WebhooksRead, Scope::EventsRead]);
        let create = CreateApiKey { name: None, mode: Mode::Live, scopes, expires_at: None };
        self.caller_with(self.server().operator().create_operations_api_key(create).await.expect("a key"))
    }

    /// Uses a test key of the workspace `Acme` from now on. Its deliveries are simulated, so no receiver is needed.
    pub async fn in_test_mode(mut self) -> Self {
        self.caller = self.caller_with(self.create_key("Acme", Mode::Test, ALL_SCOPES, None).await);
        self
    }

    /// The files of the data directory that contain these bytes.
    pub fn files_holding(&self, needle: &[u8]) -> Vec<String> {
        let mut holding = Vec::new();
        for entry in std::fs::read_dir(self.data_dir()).expect("the data directory") {
            let entry = entry.expect("an entry of the data directory");
            if !entry.file_type().expect("a type").is_file() {
                continue;
            }
            let bytes = std::fs::read(entry.path()).expect("a file that can be read");
            if bytes.windows(needle.len()).any(|window| window == needle) {
                holding.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        holding
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.caller.get(path).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.caller.post(path, body).await
    }

    /// Needs an app that may call loopback.
    pub async fn endpoint_to(&self, receiver: &Receiver, events: &[&str]) -> Endpoint {
        self.endpoint_at(&receiver.url("/hook"), events).await
    }

    pub async fn endpoint_at(&self, url: &str, events: &[&str]) -> Endpoint {
        self.endpoint(json!({"name": "A receiver", "url": url, "events": events})).await
    }

    pub async fn endpoint(&self, body: Value) -> Endpoint {
        let made = self.post("/v1/webhook-endpoints", body).await.data(200);
        Endpoint { id: text(&made, "id"), secret: text(&made, "secret") }
    }

    /// Publishes an event. Returns its id.
    pub async fn publish(&self, event_type: &str, data: Value) -> String {
        text(&self.post("/v1/events", json!({"type": event_type, "data": data})).await.data(202), "id")
    }

    /// The deliveries in the log, newest first. `filter` is a query string such as `eventId=…&status=failed`.
    pub async fn deliveries(&self, filter: &str) -> Vec<Value> {
        match self.get(&format!("/v1/webhook-deliveries?{filter}")).await.data(200) {
            Value::Array(deliveries) => deliveries,
            other => panic!("not a list: {other}"),
        }
    }

    /// Waits until the deliveries that match a filter meet a condition. Returns them.
    pub async fn deliveries_when(&self, filter: &str, what: &str, condition: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let last = RefCell::new(Vec::new());
        let probe = || async {
            last.replace(self.deliveries(filter).await);
            condition(&last.borrow()).then(|| last.borrow().clone())
        };
        eventually_within(BOUND, probe, || format!("deliveries {filter:?} {what}; they are {:#?}", last.borrow())).await
    }

    /// The delivery with its attempts.
    pub async fn delivery(&self, id: &str) -> Value {
        self.get(&format!("/v1/webhook-deliveries/{id}")).await.data(200)
    }

    /// Waits until the event's only delivery meets a condition. Returns it with its attempts.
    pub async fn delivery_when(&self, event_id: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let id = match &self.deliveries(&format!("eventId={event_id}")).await[..] {
            [only] => text(only, "id"),
            others => panic!("{} deliveries of {event_id}", others.len()),
        };
        let last = RefCell::new(Value::Null);
        let probe = || async {
            last.replace(self.delivery(&id).await);
            condition(&last.borrow()).then(|| last.borrow().clone())
        };
        eventually_within(BOUND, probe, || format!("delivery {id} {what}; it is {:#}", last.borrow())).await
    }

    /// Waits until the event's only delivery has ended. Checks its status and returns it.
    pub async fn delivery_ended(&self, event_id: &str, status: &str) -> Value {
        let delivery = self.delivery_when(event_id, "ends", |delivery| delivery["status"] != "pending").await;
        assert_eq!(delivery["status"], status, "{delivery:#}");
        delivery
    }

    /// Waits until `count` attempts of the event's only delivery are in the log. Returns the delivery.
    pub async fn attempted(&self, event_id: &str, count: usize) -> Value {
        let enough = |delivery: &Value| delivery["attempts"].as_array().is_some_and(|made| made.len() >= count);
        self.delivery_when(event_id, &format!("has {count} attempts"), enough).await
    }
}

/// A member of an object, which must be a string.
#[track_caller]
pub fn text(object: &Value, member: &str) -> String {
    object[member].as_str().unwrap_or_else(|| panic!("no string {member:?} in {object}")).to_owned()
}

/// A member of an object, which must be an instant.
#[track_caller]
pub fn instant(object: &Value, member: &str) -> Timestamp {
    Timestamp::parse(&text(object, member)).expect("an instant")
}
