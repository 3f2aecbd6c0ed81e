//! Isolation of workspaces: every route is called with the ids of another workspace.

use http::Method;
use postrider_domain::access::Scope;
use serde_json::{Value, json};

use super::{DELIVERIES, ENDPOINTS, EVENTS};
use crate::support::app::{App, text};
use crate::support::caller::Caller;
use crate::support::receiver::{Behaviour, Receiver};

/// Every path of the API that names a resource. A path that is missing here fails the test below.
const NAMED: &[&str] = &[
    "/v1/api-keys/{apiKeyId}",
    "/v1/events/{eventId}",
    "/v1/webhook-deliveries/{deliveryId}",
    "/v1/webhook-deliveries/{deliveryId}/retry",
    "/v1/webhook-deliveries/{deliveryId}/skip",
    "/v1/webhook-endpoints/{endpointId}",
    "/v1/webhook-endpoints/{endpointId}/deliveries",
    "/v1/webhook-endpoints/{endpointId}/replay",
    "/v1/webhook-endpoints/{endpointId}/replays",
    "/v1/webhook-endpoints/{endpointId}/replays/{replayId}",
    "/v1/webhook-endpoints/{endpointId}/replays/{replayId}/stop",
    "/v1/webhook-endpoints/{endpointId}/rotate-secret",
    "/v1/webhook-endpoints/{endpointId}/test",
];

/// Every path that names no resource. Their answers are searched for ids of another workspace.
const UNNAMED: &[&str] = &[
    "/v1/api-keys",
    "/v1/audit-log",
    "/v1/event-types",
    "/v1/events",
    "/v1/events/batch",
    "/v1/health",
    "/v1/health/auth",
    "/v1/webhook-deliveries",
    "/v1/webhook-endpoints",
    "/v1/workspaces/me",
];

/// Every path for operators, who have access to all workspaces.
const OPERATORS: &[&str] = &["/v1/workspaces", "/v1/workspaces/{workspaceId}", "/v1/workspaces/{workspaceId}/api-keys"];

/// Every scope except those of operators.
const SCOPES: &[Scope] = &[
    Scope::WebhooksManage,
    Scope::WebhooksRead,
    Scope::EventsWrite,
    Scope::EventsRead,
    Scope::KeysManage,
    Scope::AuditRead,
];

/// The paths of the OpenAPI document, which is made from the same list of routes as the router.
fn paths_of_the_router() -> Vec<String> {
    let document = postrider::server::openapi_of_built_in().expect("a catalogue");
    let paths = document["paths"].as_object().expect("paths").keys();
    let mut paths: Vec<String> = paths.map(|path| format!("/v1{path}")).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn every_path_of_the_router_is_listed_here() {
    let mut listed: Vec<&str> = NAMED.iter().chain(UNNAMED).chain(OPERATORS).copied().collect();
    listed.sort_unstable();
    assert_eq!(paths_of_the_router(), listed);
}

/// The ids of the resources of one workspace.
struct Belongings {
    endpoint: String,
    event: String,
    delivery: String,
    replay: String,
    api_key: String,
}

impl Belongings {
    async fn of(app: &App, caller: &Caller, receiver: &Receiver) -> Self {
        let body = json!({"name": "n", "url": receiver.url("/hook"), "events": ["post.created"]});
        let endpoint = text(&caller.post(ENDPOINTS, body).await.data(200), "id");
        let event = text(&caller.post(EVENTS, json!({"type": "post.created", "data": {}})).await.data(202), "id");
        let delivery = text(&caller.get(&format!("{DELIVERIES}?eventId={event}")).await.data(200)[0], "id");
        app.clock().advance(std::time::Duration::from_millis(1));
        let replay = format!("{ENDPOINTS}/{endpoint}/replay");
        let replay = text(&caller.post(&replay, json!({"since": "2026-05-15T12:00:00Z"})).await.data(202), "id");
        let api_key = text(&caller.post("/v1/api-keys", json!({"scopes": []})).await.data(200), "id");
        Self { endpoint, event, delivery, replay, api_key }
    }

    fn ids(&self) -> [&str; 5] {
        [&self.endpoint, &self.event, &self.delivery, &self.replay, &self.api_key]
    }

    fn named_in(&self, path: &str) -> String {
        path.replace("{endpointId}", &self.endpoint)
            .replace("{eventId}", &self.event)
            .replace("{deliveryId}", &self.delivery)
            .replace("{replayId}", &self.replay)
            .replace("{apiKeyId}", &self.api_key)
    }

    /// Everything that the owner can see of these resources.
    async fn seen_by(&self, owner: &Caller) -> Vec<Value> {
        let mut seen = Vec::new();
        for path in NAMED.iter().chain(UNNAMED) {
            let reply = owner.get(&self.named_in(path)).await;
            if reply.status == 200 {
                seen.push(reply.json());
            }
        }
        seen
    }
}

/// A body that the route would accept.
fn body_for(path: &str) -> Value {
    if path.ends_with("/replay") { json!({"since": "2026-05-15T00:00:00Z"}) } else { json!({}) }
}

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Tries every method on a path. A method that the route lacks answers 405. Every other one must answer 404.
async fn assert_not_found(caller: &Caller, path: &str, keyed: &str) {
    let mut tried = 0;
    for method in METHODS {
        let reply = caller.keyed(keyed).send(method.clone(), path, body_for(path).to_string()).await;
        if reply.status != 405 {
            reply.error(404, "not_found");
            tried += 1;
        }
    }
    assert!(tried > 0, "{path} takes no method at all");
}

#[tokio::test]
async fn ids_of_another_workspace_are_not_found_on_any_route() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Behaviour::status(500));
    let (owner, stranger) = (app.caller_of("Acme", SCOPES).await, app.caller_of("Globex", SCOPES).await);
    let theirs = Belongings::of(&app, &owner, &receiver).await;
    let own = Belongings::of(&app, &stranger, &receiver).await;
    app.attempted(&theirs.event, 1).await;
    let before = theirs.seen_by(&owner).await;
    assert!(before.len() > 8, "the owner sees something: {before:?}");

    for path in NAMED {
        assert_not_found(&stranger, &theirs.named_in(path), "k").await;
    }
    // An own endpoint id before another workspace's replay id gives no access either.
    let mixed = Belongings { replay: theirs.replay.clone(), ..own };
    for path in NAMED.iter().filter(|path| path.contains("{replayId}")) {
        assert_not_found(&stranger, &mixed.named_in(path), "mixed").await;
    }
    let workspace = text(&owner.get("/v1/workspaces/me").await.json()["workspace"], "id");
    for path in OPERATORS {
        for method in METHODS {
            let reply = stranger.send(method, &path.replace("{workspaceId}", &workspace), "{}").await;
            assert!([403, 405].contains(&reply.status), "{path}: {}", reply.text());
        }
    }
    for path in UNNAMED {
        for query in ["".to_owned(), format!("?endpointId={}", theirs.endpoint), format!("?eventId={}", theirs.event)] {
            let reply = stranger.get(&format!("{path}{query}")).await;
            for id in theirs.ids() {
                assert!(!reply.text().contains(id), "{path}{query} tells of {id}: {}", reply.text());
            }
        }
    }
    assert_eq!(theirs.seen_by(&owner).await, before, "and nothing was touched");
}
