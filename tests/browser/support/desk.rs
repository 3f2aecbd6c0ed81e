//! A dashboard to visit: the server with endpoints, events and deliveries in all states, among them texts that a
//! stranger could have chosen to break a page; and a visitor who signs in with a key.

use std::time::Duration;

use postrider::config::Settings;
use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};

use super::browser::Browser;
use super::server::app::{App, Endpoint, text};
use super::server::caller::Caller;
use super::server::receiver::{Answer, Behaviour, Receiver};
use super::server::wait::eventually;
use super::tab::{Tab, View};

/// What must stay text wherever it is shown.
pub const HOSTILE: &str = "<script>document.title='broken'</script>\"onx='1' </textarea> ${x} {{x}}";

/// The project of the healthy endpoint and of all events but one.
pub const PROJECT: &str = "proj_a1b2c3d4e5f6g7h8";

pub struct Desk {
    pub app: App,
    pub browser: Browser,
    /// Has all scopes.
    pub key: String,
    /// A caller of the API with the same key.
    pub caller: Caller,
}

/// Endpoints of a filled workspace. Their receivers answer as long as this lives.
pub struct World {
    pub healthy: Endpoint,
    /// Answers 503 with hostile texts. Its URL has 1,024 characters.
    pub failing: Endpoint,
    pub disabled: Endpoint,
    /// In strict order, and stopped at a failed delivery.
    pub stopped: Endpoint,
    /// An event of `healthy` and `failing`.
    pub event: String,
    /// The URL of `failing`.
    pub long_url: String,
    _receivers: [Receiver; 3],
}

impl Desk {
    /// An empty workspace. Returns `None` and prints a message when there is no browser.
    pub async fn open() -> Option<Self> {
        Self::open_with(|_| {}).await
    }

    pub async fn open_with(change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let browser = Browser::open().await?;
        let app = App::set_up().await.allow("127.0.0.0/8").change(change).start().await;
        let created = app.create_key("Acme", Mode::Live, &Scope::ALL, None).await;
        let key = created.secret.reveal().to_owned();
        let caller = app.caller_with(created);
        Some(Self { app, browser, key, caller })
    }

    /// The URL of a path of the server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.server().address())
    }

    /// A new tab, signed in.
    pub async fn visitor(&self, view: View) -> Tab {
        self.visitor_with(&self.key, view).await
    }

    pub async fn visitor_with(&self, key: &str, view: View) -> Tab {
        let tab = self.browser.tab(view).await;
        tab.go(&self.url("/dashboard/login")).await;
        self.sign_in(&tab, key).await;
        tab
    }

    /// Fills in the form of the sign-in, which must be on screen.
    pub async fn sign_in(&self, tab: &Tab, key: &str) {
        tab.fill("input[name=key]", key).await;
        let loaded = tab.go_by(tab.click("main button[type=submit]")).await;
        assert_eq!(loaded.status, 200, "{}", tab.text("document.body.innerText").await);
    }

    /// Fills the workspace.
    pub async fn fill(&self) -> World {
        let (healthy, failing, broken) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
        let says = format!("{HOSTILE}\n{}\u{202e}\u{1b}[31m", "long".repeat(400));
        let answer = Answer::status(503).header("x-hostile", "<b>\"'&").header("retry-after", "120").body(says);
        failing.otherwise(answer);
        broken.otherwise(Behaviour::status(500));
        let start = failing.url("/");
        let long = format!("{start}{}", "a".repeat(1024 - start.len()));
        let all = ["post.created", "job.failed"];
        let make = async |name: &str, url: &str, more: Value| {
            let mut body = json!({"name": name, "url": url, "events": all});
            body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            self.app.endpoint(body).await
        };
        let mut world = World {
            healthy: make("Production CRM", &healthy.url("/hook"), json!({"projectId": PROJECT})).await,
            failing: make(HOSTILE, &long, json!({"headers": {"x-tenant": "acme"}})).await,
            disabled: make("Old shop", &broken.url("/old"), json!({})).await,
            stopped: make("Ledger", &broken.url("/ledger"), json!({"ordering": "strict", "retrySchedule": [1]})).await,
            event: String::new(),
            long_url: long.clone(),
            _receivers: [healthy, failing, broken],
        };
        let path = format!("/v1/webhook-endpoints/{}", world.disabled.id);
        self.app.caller().send(http::Method::PATCH, &path, r#"{"isActive": false}"#).await.data(200);
        for number in 0..3 {
            let data = json!({"id": "post_1", "title": HOSTILE, "number": number, "big": 9_007_199_254_740_993_u64});
            let external_id = format!("post_{number}-created");
            let body = json!({"type": "post.created", "data": data, "externalId": external_id, "projectId": PROJECT});
            world.event = self.app.post("/v1/events", body).await.data(202)["id"].as_str().expect("an id").to_owned();
            self.app.clock().advance(Duration::from_millis(1));
        }
        self.app.publish("note.created", json!({"nobody": "listens"})).await;
        self.settle(&world).await;
        world
    }

    /// The only delivery of the filled workspace that a filter such as `endpointId=…&status=failed` matches.
    pub async fn delivery(&self, filter: &str) -> String {
        match &self.app.deliveries(filter).await[..] {
            [only] => text(only, "id"),
            others => panic!("{} deliveries match {filter}", others.len()),
        }
    }

    /// Waits until the strict endpoint has stopped at its failed head, and the others have been tried.
    async fn settle(&self, world: &World) {
        let tried = |deliveries: &[Value]| deliveries.iter().any(|delivery| delivery["status"] == "delivered");
        self.app.deliveries_when(&format!("eventId={}", world.event), "were tried", tried).await;
        let first = self.delivery(&format!("endpointId={}&eventId={}", world.failing.id, world.event)).await;
        // The first failure slows the endpoint down for the 120 s of its `Retry-After`. The delivery may wait for that.
        let recorded = || async {
            self.app.clock().advance(Duration::from_secs(5));
            self.app.delivery(&first).await["attempts"][0].is_object().then_some(())
        };
        eventually("an attempt that failed", recorded).await;
        let filter = format!("endpointId={}", world.stopped.id);
        let stopped = |deliveries: &[Value]| {
            self.app.clock().advance(Duration::from_secs(1));
            deliveries.iter().any(|delivery| delivery["status"] == "failed")
        };
        self.app.deliveries_when(&filter, "have stopped", stopped).await;
    }
}
