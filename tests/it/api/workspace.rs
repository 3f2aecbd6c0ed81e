//! Workspaces: every key can read its own, and an operator's key can manage all.

use postrider_domain::access::Scope;
use serde_json::{Value, json};

use super::{ENDPOINTS, WORKSPACES, an_endpoint, an_event, faults};
use crate::support::app::{ALL_SCOPES, App, NOON, instant, text};
use crate::support::caller::Caller;

/// A caller with a key of the workspace `Operators` that may manage workspaces and grant the scopes of customers.
async fn operator(app: &App) -> Caller {
    let mut scopes = vec![Scope::WorkspacesManage, Scope::KeysManage];
    scopes.extend(ALL_SCOPES);
    app.caller_of("Operators", &scopes).await
}

async fn create(operator: &Caller, name: &str) -> String {
    text(&operator.post(WORKSPACES, json!({"name": name})).await.data(200), "id")
}

#[tokio::test]
async fn every_key_can_read_its_own_workspace() {
    let app = App::start().await;
    let bare = app.create_key("Acme", postrider_domain::access::Mode::Live, &[], None).await;
    let (key_id, workspace_id) = (bare.key.id.to_string(), bare.key.workspace_id.to_string());
    let bare = app.caller_with(bare);
    let own = bare.get("/v1/workspaces/me").await;
    assert_eq!(own.status, 200);
    let mut own = own.json();
    assert_eq!(instant(&own["workspace"], "createdAt"), NOON);
    own["workspace"].as_object_mut().unwrap().remove("createdAt");
    assert_eq!(
        own,
        json!({
            "workspace": {"id": workspace_id, "name": "Acme"},
            "principal": {"type": "api_key", "id": key_id, "scopes": []},
        })
    );
    let health = bare.get("/v1/health/auth").await;
    assert_eq!(health.status, 200);
    let version = env!("CARGO_PKG_VERSION");
    let expected = json!({
        "status": "ok", "version": version,
        "workspace": {"id": workspace_id}, "principal": {"id": key_id, "scopes": []},
    });
    assert_eq!(health.json(), expected);
    for path in ["/v1/workspaces/me", "/v1/health/auth"] {
        bare.without("authorization").get(path).await.error(401, "invalid_token");
    }
    let scoped = app.caller_of("Acme", &[Scope::EventsRead, Scope::WebhooksRead]).await;
    let scopes = json!(["webhooks:read", "events:read"]);
    assert_eq!(scoped.get("/v1/workspaces/me").await.json()["principal"]["scopes"], scopes);
}

#[tokio::test]
async fn an_operator_creates_shows_renames_and_deletes_a_workspace() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let made = operator.post(WORKSPACES, json!({"name": "Ünit"})).await.data(200);
    let path = format!("{WORKSPACES}/{}", text(&made, "id"));
    assert_eq!(made, json!({"id": made["id"], "name": "Ünit", "createdAt": "2026-05-15T12:00:00.000Z"}));
    assert_eq!(operator.get(&path).await.data(200), made);
    let renamed = operator.patch(&path, json!({"name": "Unit"})).await.data(200);
    assert_eq!(renamed, json!({"id": made["id"], "name": "Unit", "createdAt": made["createdAt"]}));
    assert_eq!(operator.patch(&path, json!({})).await.data(200), renamed);
    let deleted = operator.delete(&path).await;
    assert_eq!((deleted.status, deleted.body.len(), deleted.header("content-type")), (204, 0, None));
    for reply in [operator.get(&path).await, operator.delete(&path).await, operator.patch(&path, json!({})).await] {
        reply.error(404, "not_found");
    }
    assert_ne!(create(&operator, "Unit").await, made["id"], "the name is free again");
}

#[tokio::test]
async fn workspaces_are_listed_newest_first() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let made = [create(&operator, "one").await, create(&operator, "two").await, create(&operator, "three").await];
    let first = operator.get(&format!("{WORKSPACES}?limit=2")).await.json();
    let names = |page: &Value| page["data"].as_array().unwrap().iter().map(|one| text(one, "name")).collect::<Vec<_>>();
    assert_eq!(names(&first), ["three", "two"]);
    assert_eq!(first["data"][0]["id"], made[2]);
    let cursor = text(&first["pagination"], "next_cursor");
    let rest = operator.get(&format!("{WORKSPACES}?cursor={cursor}")).await.json();
    assert_eq!(names(&rest), ["one", "Operators", "Acme"]);
    assert_eq!(rest["pagination"], json!({"next_cursor": null, "has_more": false}));
    operator.get(&format!("{WORKSPACES}?limit=201")).await.error(400, "bad_pagination");
    operator.get(&format!("{WORKSPACES}?cursor=x")).await.error(400, "bad_cursor");
    operator.get(&format!("{WORKSPACES}?name=one")).await.error(400, "invalid_request");
}

#[tokio::test]
async fn a_name_has_1_to_128_characters_and_is_unique() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let longest = "é".repeat(128);
    let id = create(&operator, &longest).await;
    let characters = "must not contain control characters, line separators or bidirectional overrides";
    let length = "must be 1 to 128 characters";
    for (name, fault) in [(String::new(), length), ("é".repeat(129), length), ("a\nb".to_owned(), characters)] {
        let error = operator.post(WORKSPACES, json!({"name": name})).await.error(400, "invalid_request");
        assert_eq!(faults(&error)["name"], fault);
    }
    for body in [json!({}), json!({"name": null}), json!({"name": 1}), json!({"name": "x", "id": "org_x"})] {
        operator.post(WORKSPACES, body).await.error(400, "invalid_request");
    }
    operator.post(WORKSPACES, json!({"name": longest})).await.error(409, "conflict");
    operator.patch(&format!("{WORKSPACES}/{id}"), json!({"name": "Acme"})).await.error(409, "conflict");
}

#[tokio::test]
async fn only_an_operators_key_can_manage_workspaces() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let path = format!("{WORKSPACES}/{}", create(&operator, "one").await);
    let everything_else: Vec<Scope> =
        Scope::ALL.into_iter().filter(|scope| *scope != Scope::WorkspacesManage).collect();
    let customer = app.caller_of("Acme", &everything_else).await;
    let replies = [
        customer.get(WORKSPACES).await,
        customer.post(WORKSPACES, json!({"name": "two"})).await,
        customer.get(&path).await,
        customer.patch(&path, json!({"name": "two"})).await,
        customer.delete(&path).await,
        customer.post(&format!("{path}/api-keys"), json!({})).await,
    ];
    for reply in replies {
        let error = reply.error(403, "scope_missing");
        assert_eq!(error["details"], json!({"required": ["workspaces:manage"]}));
    }
    for id in ["org_zzzzzzzzzzzzzzzz", "acme", "org_"] {
        let path = format!("{WORKSPACES}/{id}");
        operator.get(&path).await.error(404, "not_found");
        operator.patch(&path, json!({"name": "x"})).await.error(404, "not_found");
        operator.delete(&path).await.error(404, "not_found");
        operator.post(&format!("{path}/api-keys"), json!({})).await.error(404, "not_found");
    }
}

#[tokio::test]
async fn the_first_key_of_a_workspace_comes_from_an_operator() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let id = create(&operator, "Customer").await;
    let keys = format!("{WORKSPACES}/{id}/api-keys");
    let made =
        operator.post(&keys, json!({"name": "first", "scopes": ["events:write", "keys:manage"]})).await.data(200);
    let first = operator.key(&text(&made, "key"));
    assert_eq!(first.get("/v1/workspaces/me").await.json()["workspace"]["id"], id);
    assert_eq!(first.post("/v1/events", an_event()).await.status, 202);
    let lacking = operator.post(&keys, json!({"scopes": ["dashboard", "events:write"]})).await;
    assert_eq!(lacking.error(403, "scope_missing")["details"], json!({"required": ["dashboard"]}));
    let another = operator.post(&keys, json!({"scopes": ["workspaces:manage"]})).await.error(422, "unprocessable");
    assert_eq!(faults(&another)["scopes"], "workspaces:manage can be granted only at the command line");
}

#[tokio::test]
async fn a_deleted_workspace_stops_at_once_and_its_name_is_free() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let endpoint = app.endpoint(an_endpoint()).await;
    let id = text(&app.get("/v1/workspaces/me").await.json()["workspace"], "id");
    assert_eq!(operator.delete(&format!("{WORKSPACES}/{id}")).await.status, 204);
    for reply in [app.get("/v1/workspaces/me").await, app.post(ENDPOINTS, an_endpoint()).await] {
        reply.error(401, "invalid_token");
    }
    let anew = app.caller_of("Acme", ALL_SCOPES).await;
    assert_ne!(anew.get("/v1/workspaces/me").await.json()["workspace"]["id"], id);
    anew.get(&format!("{ENDPOINTS}/{}", endpoint.id)).await.error(404, "not_found");
}

#[tokio::test]
async fn an_operator_cannot_delete_its_own_workspace() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let id = text(&operator.get("/v1/workspaces/me").await.json()["workspace"], "id");
    operator.delete(&format!("{WORKSPACES}/{id}")).await.error(409, "conflict");
    assert_eq!(operator.get(WORKSPACES).await.status, 200);
}

#[tokio::test]
async fn a_workspace_is_created_and_deleted_once_per_idempotency_key() {
    let app = App::start().await;
    let operator = operator(&app).await.keyed("k1");
    let first = operator.post(WORKSPACES, json!({"name": "one"})).await;
    let again = operator.post(WORKSPACES, json!({"name": "one"})).await;
    assert_eq!((again.status, &again.body, again.header("idempotent-replayed")), (200, &first.body, Some("true")));
    let path = format!("{WORKSPACES}/{}", text(&first.data(200), "id"));
    for replayed in ["false", "true", "true"] {
        let reply = operator.delete(&path).await;
        assert_eq!((reply.status, reply.header("idempotent-replayed")), (204, Some(replayed)));
    }
}

#[tokio::test]
async fn nobody_takes_the_servers_own_workspace() {
    let app = App::start().await;
    let operator = operator(&app).await;
    let own = app.operations_caller().await;
    let shown = own.get("/v1/workspaces/me").await.json()["workspace"].clone();
    assert_eq!(shown["name"], "operations");
    let path = format!("{WORKSPACES}/{}", text(&shown, "id"));
    for (name, fault) in [
        ("operations", "must not be \"operations\", which belongs to the server"),
        ("org_0000000000000000", "must not have the form of an id"),
    ] {
        let error = operator.post(WORKSPACES, json!({"name": name})).await.error(400, "invalid_request");
        assert_eq!(faults(&error)["name"], fault);
        let id = text(&app.get("/v1/workspaces/me").await.json()["workspace"], "id");
        operator.patch(&format!("{WORKSPACES}/{id}"), json!({"name": name})).await.error(400, "invalid_request");
    }
    operator.patch(&path, json!({"name": "mine"})).await.error(409, "conflict");
    operator.delete(&path).await.error(409, "conflict");
    operator.post(&format!("{path}/api-keys"), json!({"scopes": ["webhooks:manage"]})).await.error(409, "conflict");
    assert_eq!(operator.get(&path).await.data(200), shown);
    own.post(ENDPOINTS, an_endpoint()).await.error(403, "scope_missing");
}
