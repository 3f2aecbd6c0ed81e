//! Isolation of tenants. A tenant is a workspace in one mode. Every operation of the API is called for the resources of
//! a live and of a test tenant, on both stores, with the keys of strangers.
//!
//! The operations come from the OpenAPI document, which is made from the same routes as the router. An operation
//! without a [`Case`] fails the test.

use std::sync::Arc;

use http::Method;
use postrider_domain::access::{Mode, Scope};
use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::source::{
    FieldRule, ParkedFull, SourceKind, SourceMessage, SourceName, SourceRules, SourceState, SourceTerms,
};
use postrider_service::Fate;
use postrider_source::{Connection, OutboxSettings, OutboxTable, SourceSettings};
use serde_json::{Value, json};

use super::{AUDIT, DELIVERIES, ENDPOINTS, EVENTS};
use crate::support::app::{App, Endpoint, Setup, text};
use crate::support::caller::{Caller, Reply};
use crate::support::postgres::TestDatabase;
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

/// One operation of the API, and the answers that it gives to strangers.
struct Case {
    operation: &'static str,
    /// Any one of these is enough. Empty: any key.
    needs: &'static [Scope],
    /// A body that the route accepts.
    body: Value,
    /// The answer to a key of another tenant that has every scope of a customer.
    outside: Outside,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    /// The operation names a resource, which does not exist for this key: `404 not_found`.
    NotFound,
    /// The operation is about the caller's own tenant. It has this status and says nothing about another tenant.
    Own(u16),
    /// As `NotFound` or `Own`, except for a live key, which manages the API keys and reads the audit log of test mode.
    Managed(u16),
    /// The key lacks the scope of operators: `403 scope_missing`.
    OperatorsOnly,
    /// No key is asked for.
    Public,
}

use Outside::{Managed, NotFound, OperatorsOnly, Own, Public};

const MANAGE: &[Scope] = &[Scope::WebhooksManage];
const READ: &[Scope] = &[Scope::WebhooksManage, Scope::WebhooksRead];
const PUBLISH: &[Scope] = &[Scope::EventsWrite];
const EVENTS_READ: &[Scope] = &[Scope::EventsRead];
const KEYS: &[Scope] = &[Scope::KeysManage];
const PORTAL: &[Scope] = &[Scope::PortalCreate];
const AUDIT_READ: &[Scope] = &[Scope::AuditRead];
const NODES: &[Scope] = &[Scope::Dashboard, Scope::WorkspacesManage];
const WORKSPACES: &[Scope] = &[Scope::WorkspacesManage];

/// An id of the right form. What a request does with the id of another tenant's delivery is tested in `retry.rs`.
const FOREIGN_DELIVERY: &str = "dlv_0d1vzq8fw8dg021jwvfz";

/// Every scope of a customer.
const SCOPES: &[Scope] = &[
    Scope::WebhooksManage,
    Scope::WebhooksRead,
    Scope::EventsWrite,
    Scope::EventsRead,
    Scope::KeysManage,
    Scope::AuditRead,
    Scope::PortalCreate,
];

const READ_ONLY: &[Scope] = &[Scope::WebhooksRead, Scope::EventsRead];

const fn case(operation: &'static str, needs: &'static [Scope], body: Value, outside: Outside) -> Case {
    Case { operation, needs, body, outside }
}

fn cases(receiver: &Receiver) -> Vec<Case> {
    let mut cases = cases_of_listeners();
    cases.extend(other_cases(receiver));
    cases
}

fn cases_of_listeners() -> Vec<Case> {
    let none = || json!({});
    let lease = json!({"deliveryId": FOREIGN_DELIVERY, "leaseToken": "0000c9ae2f53a41b"});
    let settled = json!({"deliveryId": FOREIGN_DELIVERY, "leaseToken": "0000c9ae2f53a41b", "status": 200});
    vec![
        case("POST /listeners", MANAGE, json!({"name": "Mine", "events": ["job.completed"]}), Own(200)),
        case("GET /listeners", READ, none(), Own(200)),
        case("GET /listeners/{listenerId}", READ, none(), NotFound),
        case("PATCH /listeners/{listenerId}", MANAGE, json!({"name": "Stolen"}), NotFound),
        case("DELETE /listeners/{listenerId}", MANAGE, none(), NotFound),
        case("POST /listeners/{listenerId}/rotate-secret", MANAGE, none(), NotFound),
        case("POST /listeners/{listenerId}/replay", MANAGE, json!({"since": LONG_AGO}), NotFound),
        case("GET /listeners/{listenerId}/deliveries", READ, none(), NotFound),
        case("POST /listeners/{listenerId}/lease", MANAGE, none(), NotFound),
        case("POST /listeners/{listenerId}/renew", MANAGE, json!({"leases": [lease]}), NotFound),
        case("POST /listeners/{listenerId}/settle", MANAGE, json!({"results": [settled]}), NotFound),
    ]
}

fn other_cases(receiver: &Receiver) -> Vec<Case> {
    let none = || json!({});
    let endpoint = json!({"name": "Mine", "url": receiver.url("/mine"), "events": ["note.created"]});
    let event = json!({"type": "note.created", "data": {}, "externalId": EXTERNAL_ID});
    let batch = json!({"events": [{"type": "note.created", "data": {}}]});
    vec![
        case("POST /webhook-endpoints", MANAGE, endpoint, Own(200)),
        case("GET /webhook-endpoints", READ, none(), Own(200)),
        case("GET /webhook-endpoints/{endpointId}", READ, none(), NotFound),
        case("PATCH /webhook-endpoints/{endpointId}", MANAGE, json!({"url": receiver.url("/stolen")}), NotFound),
        case("DELETE /webhook-endpoints/{endpointId}", MANAGE, none(), NotFound),
        case("POST /webhook-endpoints/{endpointId}/rotate-secret", MANAGE, none(), NotFound),
        case("POST /webhook-endpoints/{endpointId}/test", MANAGE, none(), NotFound),
        case("GET /webhook-endpoints/{endpointId}/deliveries", READ, none(), NotFound),
        case("POST /webhook-endpoints/{endpointId}/replay", MANAGE, json!({"since": LONG_AGO}), NotFound),
        case("GET /webhook-endpoints/{endpointId}/replays", READ, none(), NotFound),
        case("GET /webhook-endpoints/{endpointId}/replays/{replayId}", READ, none(), NotFound),
        case("POST /webhook-endpoints/{endpointId}/replays/{replayId}/stop", MANAGE, none(), NotFound),
        case("POST /webhook-deliveries/replay", MANAGE, json!({"filter": {"status": "failed"}}), Own(202)),
        case("GET /replays", READ, none(), Own(200)),
        case("GET /replays/{replayId}", READ, none(), NotFound),
        case("POST /replays/{replayId}/stop", MANAGE, none(), NotFound),
        case("DELETE /events/{eventId}", PUBLISH, none(), NotFound),
        case("POST /erasures", PUBLISH, json!({"projectId": "proj_1"}), Own(202)),
        case("GET /erasures", PUBLISH, none(), Own(200)),
        case("GET /erasures/{erasureId}", PUBLISH, none(), NotFound),
        case("GET /webhook-deliveries", READ, none(), Own(200)),
        case("GET /webhook-deliveries/{deliveryId}", READ, none(), NotFound),
        case("POST /webhook-deliveries/retry", MANAGE, json!({"ids": [FOREIGN_DELIVERY]}), Own(200)),
        case("POST /webhook-deliveries/{deliveryId}/retry", MANAGE, none(), NotFound),
        case("POST /webhook-deliveries/{deliveryId}/skip", MANAGE, none(), NotFound),
        case("GET /sources", EVENTS_READ, none(), Own(200)),
        case("GET /sources/{sourceName}", EVENTS_READ, none(), NotFound),
        case("POST /sources/{sourceName}/pause", PUBLISH, none(), NotFound),
        case("POST /sources/{sourceName}/resume", PUBLISH, none(), NotFound),
        case("GET /parked-messages", EVENTS_READ, none(), Own(200)),
        case("GET /parked-messages/{parkedMessageId}", EVENTS_READ, none(), NotFound),
        case("POST /parked-messages/{parkedMessageId}/retry", PUBLISH, none(), NotFound),
        case("DELETE /parked-messages/{parkedMessageId}", PUBLISH, none(), NotFound),
        case("GET /stats", READ, none(), Own(200)),
        case("POST /events", PUBLISH, event, Own(202)),
        case("POST /events/batch", PUBLISH, batch, Own(202)),
        case("GET /events", EVENTS_READ, none(), Own(200)),
        case("GET /events/{eventId}", EVENTS_READ, none(), NotFound),
        case("GET /events/{eventId}/other-endpoints", EVENTS_READ, none(), NotFound),
        case("GET /event-types", &[], none(), Own(200)),
        case("GET /api-keys", KEYS, none(), Managed(200)),
        case("POST /api-keys", KEYS, none(), Own(200)),
        case("GET /api-keys/{apiKeyId}", KEYS, none(), Managed(200)),
        case("DELETE /api-keys/{apiKeyId}", KEYS, none(), Managed(204)),
        case("POST /portal-sessions", PORTAL, json!({"projectId": "proj_1"}), Own(200)),
        case("GET /portal-sessions", PORTAL, none(), Own(200)),
        case("DELETE /portal-sessions/{portalSessionId}", PORTAL, none(), NotFound),
        case("DELETE /portal-sessions", PORTAL, none(), Own(204)),
        case("GET /audit-log", AUDIT_READ, none(), Managed(200)),
        case("GET /workspaces/me", &[], none(), Own(200)),
        case("POST /workspaces", WORKSPACES, json!({"name": "Initech"}), OperatorsOnly),
        case("GET /workspaces", WORKSPACES, none(), OperatorsOnly),
        case("GET /workspaces/{workspaceId}", WORKSPACES, none(), OperatorsOnly),
        case("PATCH /workspaces/{workspaceId}", WORKSPACES, json!({"name": "Stolen"}), OperatorsOnly),
        case("DELETE /workspaces/{workspaceId}", WORKSPACES, none(), OperatorsOnly),
        case("POST /workspaces/{workspaceId}/api-keys", WORKSPACES, none(), OperatorsOnly),
        case("GET /nodes", NODES, none(), OperatorsOnly),
        case("GET /health", &[], none(), Public),
        case("GET /health/auth", &[], none(), Own(200)),
    ]
}

/// An instant before everything that a test stores.
const LONG_AGO: &str = "2026-05-15T00:00:00Z";
/// Used by every tenant, each for itself.
const EXTERNAL_ID: &str = "order-1";

/// Every operation of the document, such as `GET /events/{eventId}`.
fn operations_of_the_router() -> Vec<String> {
    let document = postrider::server::openapi_of_built_in().expect("a catalogue");
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys() {
            if let Ok(method) = method.to_uppercase().parse::<Method>()
                && [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(&method)
            {
                operations.push(format!("{method} {path}"));
            }
        }
    }
    operations.sort_unstable();
    operations
}

#[tokio::test]
async fn every_operation_of_the_router_has_a_case() {
    let receiver = Receiver::start().await;
    let cases = cases(&receiver);
    let mut listed: Vec<&str> = cases.iter().map(|case| case.operation).collect();
    listed.sort_unstable();
    assert_eq!(operations_of_the_router(), listed);
}

/// The resources of one tenant, none of which changes by itself.
struct Belongings {
    mode: Mode,
    endpoint: Endpoint,
    listener: Endpoint,
    event: String,
    delivery: String,
    replay: String,
    erasure: String,
    api_key: String,
    portal_session: String,
    parked_message: String,
    workspace: String,
}

/// The source of the workspace `Acme` in this mode.
fn source_name(mode: Mode) -> String {
    format!("{}-orders", mode.as_str())
}

/// An outbox for each mode of `Acme`, in a database that nobody can reach.
fn sources() -> Vec<SourceSettings> {
    let source = |mode: Mode| SourceSettings {
        terms: SourceTerms {
            name: SourceName::parse(&source_name(mode)).unwrap(),
            kind: SourceKind::Outbox,
            workspace: "Acme".to_owned(),
            mode,
            rules: SourceRules::with_id(FieldRule::MessageId),
            max_in_flight: 1,
            max_bytes_in_flight: 1,
            parked_max: 9,
            parked_full: ParkedFull::Stop,
        },
        connection: Connection::Outbox(OutboxSettings {
            url: DatabaseUrl::parse("postgres://nobody@127.0.0.1:1/nowhere").unwrap(),
            password_file: None,
            ca_file: None,
            table: OutboxTable::parse(OutboxTable::DEFAULT).unwrap(),
        }),
    };
    [Mode::Live, Mode::Test].map(source).into()
}

/// Pauses the source of this mode, so that it stays as it is, and parks a message of it. Returns the message's id.
async fn park(app: &App, owner: &Caller, mode: Mode) -> String {
    let service = app.server().service();
    let name = source_name(mode);
    let source = service.sources().iter().find(|source| source.terms.name.as_str() == name).unwrap();
    service.find_owner(source).await.unwrap();
    owner.post(&format!("/v1/sources/{name}/pause"), json!({})).await.data(200);
    let paused = || async { (source.state() == SourceState::Paused).then_some(()) };
    eventually("a source that has noticed its pause", paused).await;
    let poison = SourceMessage { body: "no JSON".into(), ..SourceMessage::default() };
    assert_eq!(service.accept_messages(source, [poison].into()).await.unwrap(), [Fate::Parked]);
    text(&owner.get("/v1/parked-messages").await.data(200)[0], "id")
}

impl Belongings {
    async fn of(app: &App, owner: &Caller, mode: Mode, receiver: &Receiver) -> Self {
        let body = json!({"name": "A receiver", "url": receiver.url("/hook"), "events": ["post.created"]});
        let made = owner.keyed("endpoint").post(ENDPOINTS, body).await.data(200);
        let endpoint = Endpoint { id: text(&made, "id"), secret: text(&made, "secret") };
        let listener = json!({"name": "A consumer", "events": ["job.completed"], "durable": true});
        let listener = owner.post("/v1/listeners", listener).await.data(200);
        let listener = Endpoint { id: text(&listener, "id"), secret: text(&listener, "secret") };
        let event = json!({"type": "post.created", "data": {}, "externalId": EXTERNAL_ID});
        let event = text(&owner.post(EVENTS, event).await.data(202), "id");
        let ended = || async {
            let listed = owner.get(&format!("{DELIVERIES}?eventId={event}")).await.data(200);
            Some(listed[0].clone()).filter(|delivery| delivery["status"] != "pending")
        };
        let delivery = text(&eventually("the end of the delivery", ended).await, "id");
        app.clock().advance(std::time::Duration::from_millis(1));
        let replays = format!("{ENDPOINTS}/{}/replay", endpoint.id);
        let replay = text(&owner.post(&replays, json!({"since": LONG_AGO})).await.data(202), "id");
        let completed = || async {
            app.clock().advance(std::time::Duration::from_millis(100));
            let shown = owner.get(&format!("{replays}s/{replay}")).await.data(200);
            (shown["status"] == "completed").then_some(())
        };
        eventually("the end of the replay", completed).await;
        let erasure = owner.post("/v1/erasures", json!({"projectId": "proj_nobody"})).await.data(202);
        let erasure = text(&erasure, "id");
        let erased = || async {
            app.clock().advance(std::time::Duration::from_secs(1));
            let shown = owner.get(&format!("/v1/erasures/{erasure}")).await.data(200);
            (shown["status"] == "erased").then_some(())
        };
        eventually("the end of the erasure", erased).await;
        let api_key = text(&owner.post("/v1/api-keys", json!({})).await.data(200), "id");
        let session = owner.post("/v1/portal-sessions", json!({"projectId": "proj_1"})).await.data(200);
        let portal_session = text(&session, "id");
        let workspace = text(&owner.get("/v1/workspaces/me").await.json()["workspace"], "id");
        let parked_message = park(app, owner, mode).await;
        Self {
            mode,
            endpoint,
            listener,
            event,
            delivery,
            replay,
            erasure,
            api_key,
            portal_session,
            parked_message,
            workspace,
        }
    }

    /// What an answer to a stranger must not contain.
    fn secrets(&self) -> [&str; 11] {
        let Self { endpoint, listener, .. } = self;
        [
            &endpoint.id,
            &endpoint.secret,
            &listener.id,
            &listener.secret,
            &self.event,
            &self.delivery,
            &self.replay,
            &self.erasure,
            &self.api_key,
            &self.portal_session,
            &self.parked_message,
        ]
    }

    fn named_in(&self, path: &str) -> String {
        path.replace("{endpointId}", &self.endpoint.id)
            .replace("{listenerId}", &self.listener.id)
            .replace("{eventId}", &self.event)
            .replace("{deliveryId}", &self.delivery)
            .replace("{replayId}", &self.replay)
            .replace("{erasureId}", &self.erasure)
            .replace("{apiKeyId}", &self.api_key)
            .replace("{portalSessionId}", &self.portal_session)
            .replace("{parkedMessageId}", &self.parked_message)
            .replace("{sourceName}", &source_name(self.mode))
            .replace("{workspaceId}", &self.workspace)
    }

    /// Everything of this tenant that its owner can see. A live key sees API keys and audit entries of test mode too,
    /// which are left out. So are the refusals of other callers, and when a key was last used.
    async fn seen_by(&self, owner: &Caller, cases: &[Case]) -> Vec<Value> {
        let mut seen = Vec::new();
        for case in cases.iter().filter(|case| case.outside != OperatorsOnly && case.outside != Public) {
            if let Some(path) = case.operation.strip_prefix("GET ") {
                // The refusals of other callers may not push the owner's entries off the page.
                let limit = if path == "/audit-log" { "?limit=200" } else { "" };
                let reply = owner.get(&format!("/v1{}{limit}", self.named_in(path))).await;
                assert_eq!(reply.status, 200, "{path}: {}", reply.text());
                let mut shown = reply.json();
                if let Some(items) = shown["data"].as_array_mut() {
                    items.retain(|item| item.get("mode").is_none_or(|mode| *mode == self.mode.as_str()));
                    items.retain(|item| item.get("refusal").is_none_or(Value::is_null));
                    items.iter_mut().for_each(without_last_use);
                }
                shown.get_mut("data").map(without_last_use);
                seen.push(shown);
            }
        }
        seen
    }
}

fn without_last_use(shown: &mut Value) {
    if let Some(object) = shown.as_object_mut() {
        object.remove("lastUsedAt");
    }
}

impl Case {
    fn method(&self) -> Method {
        self.operation.split(' ').next().unwrap().parse().unwrap()
    }

    fn path(&self) -> String {
        format!("/v1{}", self.operation.split(' ').nth(1).unwrap())
    }

    async fn call(&self, caller: &Caller, of: &Belongings) -> Reply {
        let body = if self.method() == Method::GET { String::new() } else { self.body.to_string() };
        // All sessions of a project are ended at once, and only by its name.
        let query = if self.operation == "DELETE /portal-sessions" { "?projectId=proj_1" } else { "" };
        caller.send(self.method(), &format!("{}{query}", of.named_in(&self.path())), body).await
    }

    fn assert_scope_missing(&self, reply: &Reply) {
        let error = reply.error(403, "scope_missing");
        let needs: Vec<&str> = self.needs.iter().map(|scope| scope.as_str()).collect();
        assert_eq!(error["details"], json!({ "required": needs }), "{}", self.operation);
    }

    /// Calls the operation with a key of another tenant. `managing`: it is a live key, and they are of its workspace.
    async fn check_outside(&self, stranger: &Caller, theirs: &Belongings, managing: bool) {
        let reply = self.call(stranger, theirs).await;
        let what = || format!("{}: {}", self.operation, reply.text());
        match self.outside {
            NotFound => drop(reply.error(404, "not_found")),
            Managed(_) if managing => return,
            Managed(_) if self.path().contains('{') => drop(reply.error(404, "not_found")),
            Own(status) | Managed(status) => assert_eq!(reply.status, status, "{}", what()),
            OperatorsOnly => self.assert_scope_missing(&reply),
            Public => assert_eq!(reply.status, 200, "{}", what()),
        }
        for secret in theirs.secrets() {
            assert!(!reply.text().contains(secret), "{}", what());
        }
    }
}

/// Lists filtered by the ids of others: empty.
async fn check_filters(stranger: &Caller, theirs: &Belongings, managing: bool) {
    let mut filtered = vec![
        format!("{DELIVERIES}?endpointId={}", theirs.endpoint.id),
        format!("{DELIVERIES}?eventId={}", theirs.event),
        format!("{DELIVERIES}?endpointId={}&eventId={}", theirs.endpoint.id, theirs.event),
        format!("{EVENTS}?type=post.created&externalId={EXTERNAL_ID}"),
        format!("{ENDPOINTS}?event=post.created"),
    ];
    if !managing {
        filtered.push(format!("{AUDIT}?resourceId={}", theirs.endpoint.id));
    }
    for path in filtered {
        assert_eq!(stranger.get(&path).await.data(200), json!([]), "{path}");
    }
}

/// The keys that are called with, beside the owner's.
struct Strangers {
    /// Each with whether it is a live key that manages test keys of the owner's workspace.
    outside: [(Caller, bool); 3],
    read_only: Caller,
    revoked: Caller,
}

impl Strangers {
    async fn of(app: &App, owner_mode: Mode) -> Self {
        let other_mode = if owner_mode == Mode::Live { Mode::Test } else { Mode::Live };
        let key = async |workspace, mode, scopes| app.caller_with(app.create_key(workspace, mode, scopes, None).await);
        let revoked = app.create_key("Acme", owner_mode, SCOPES, None).await;
        app.server().operator().revoke_api_key(revoked.key.id).await.expect("a key");
        Self {
            outside: [
                (key("Acme", other_mode, SCOPES).await, other_mode == Mode::Live),
                (key("Globex", owner_mode, SCOPES).await, false),
                (key("Globex", other_mode, SCOPES).await, false),
            ],
            read_only: key("Acme", owner_mode, READ_ONLY).await,
            revoked: app.caller_with(revoked),
        }
    }
}

async fn walk(app: &App, mode: Mode) {
    let (receiver, receiver_of_strangers) = (Receiver::start().await, Receiver::start().await);
    let cases = cases(&receiver_of_strangers);
    let owner = app.caller_with(app.create_key("Acme", mode, SCOPES, None).await);
    let theirs = Belongings::of(app, &owner, mode, &receiver).await;
    let strangers = Strangers::of(app, mode).await;
    let before = theirs.seen_by(&owner, &cases).await;

    for (stranger, managing) in &strangers.outside {
        check_filters(stranger, &theirs, *managing).await;
        for case in &cases {
            // A live key may revoke the test key of its workspace, and does so in the test below.
            if case.operation != "DELETE /api-keys/{apiKeyId}" || !managing {
                // The owner has used the key for the same route. It belongs to one tenant.
                case.check_outside(&stranger.keyed("endpoint"), &theirs, *managing).await;
            }
        }
        // An own endpoint before the replay of another gives no access either.
        let own = stranger.get(ENDPOINTS).await.data(200);
        let own = Endpoint { id: text(&own[0], "id"), secret: String::new() };
        let mixed = Belongings { endpoint: own, replay: theirs.replay.clone(), ..unnamed(&theirs) };
        for case in cases.iter().filter(|case| case.operation.contains("{replayId}")) {
            case.call(stranger, &mixed).await.error(404, "not_found");
        }
    }
    for case in &cases {
        let (read, revoked) = (case.call(&strangers.read_only, &theirs).await, case.call(&strangers.revoked, &theirs));
        let may = case.needs.is_empty() || case.needs.iter().any(|scope| READ_ONLY.contains(scope));
        if may {
            assert_eq!(read.status, 200, "{}", case.operation)
        } else {
            case.assert_scope_missing(&read)
        }
        let revoked = revoked.await;
        if case.outside == Public {
            assert_eq!(revoked.status, 200, "{}", case.operation);
        } else {
            revoked.error(401, "key_revoked");
        }
    }
    assert_eq!(theirs.seen_by(&owner, &cases).await, before, "nothing was changed");
    let sent = if mode == Mode::Live { 1 } else { 0 };
    assert_eq!(receiver.counts().requests, sent, "nothing more was sent");
}

/// Belongings whose ids name nothing that the caller of the test looks at.
fn unnamed(like: &Belongings) -> Belongings {
    Belongings {
        mode: like.mode,
        endpoint: like.endpoint.clone(),
        listener: like.listener.clone(),
        event: String::new(),
        delivery: String::new(),
        replay: String::new(),
        erasure: String::new(),
        api_key: String::new(),
        portal_session: String::new(),
        parked_message: String::new(),
        workspace: String::new(),
    }
}

async fn with_sources() -> Setup {
    App::set_up().await.allow("127.0.0.0/8").change(|settings| settings.sources = sources())
}

async fn app() -> App {
    with_sources().await.start().await
}

#[tokio::test]
async fn no_operation_crosses_the_border_of_a_live_tenant() {
    walk(&app().await, Mode::Live).await;
}

#[tokio::test]
async fn no_operation_crosses_the_border_of_a_test_tenant() {
    walk(&app().await, Mode::Test).await;
}

async fn walk_on_postgres(mode: Mode) {
    if let Some(database) = TestDatabase::new().await.map(Arc::new) {
        walk(&with_sources().await.on(&database).start().await, mode).await;
    }
}

#[tokio::test]
async fn no_operation_crosses_the_border_of_a_live_tenant_on_postgres() {
    walk_on_postgres(Mode::Live).await;
}

#[tokio::test]
async fn no_operation_crosses_the_border_of_a_test_tenant_on_postgres() {
    walk_on_postgres(Mode::Test).await;
}

#[tokio::test]
async fn a_live_key_manages_the_test_keys_of_its_workspace_only() {
    let app = App::start().await;
    let caller = async |workspace, mode| app.caller_with(app.create_key(workspace, mode, SCOPES, None).await);
    let (live, test) = (caller("Acme", Mode::Live).await, caller("Acme", Mode::Test).await);
    let made = live.post("/v1/api-keys", json!({"mode": "test"})).await.data(200);
    assert_eq!(made["mode"], "test");
    let path = format!("/v1/api-keys/{}", text(&made, "id"));
    for reader in [&live, &test] {
        assert_eq!(reader.get(&path).await.data(200)["id"], made["id"]);
    }
    caller("Globex", Mode::Live).await.delete(&path).await.error(404, "not_found");
    let by_test = text(&test.post("/v1/api-keys", json!({})).await.data(200), "id");
    let modes = async |caller: &Caller, path| {
        let listed = caller.get(path).await.data(200);
        let mut modes: Vec<String> = listed.as_array().unwrap().iter().map(|item| text(item, "mode")).collect();
        modes.sort_unstable();
        modes.dedup();
        modes
    };
    assert_eq!(modes(&live, "/v1/api-keys").await, ["live", "test"]);
    assert_eq!(modes(&test, "/v1/api-keys").await, ["test"]);
    assert_eq!(modes(&live, AUDIT).await, ["live", "test"]);
    assert_eq!(modes(&test, AUDIT).await, ["test"]);
    assert_eq!(live.delete(&path).await.status, 204);
    assert_eq!(test.delete(&format!("/v1/api-keys/{by_test}")).await.status, 204);
    assert!(test.get(&path).await.data(200)["revokedAt"].is_string());
}
