//! `PATCH`, `DELETE` and the list of `/v1/webhook-endpoints`.

use http::Method;
use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};

use super::{DELIVERIES, ENDPOINTS, an_endpoint, an_endpoint_with, assert_done_once, faults, patch};
use crate::support::app::{App, PUBLIC_HOST, instant, text};
use crate::support::caller::Reply;
use crate::support::dns::Answer;
use crate::support::receiver::{Behaviour, Receiver};

async fn delete(app: &App, id: &str) -> Reply {
    app.caller().send(Method::DELETE, &format!("{ENDPOINTS}/{id}"), "").await
}

#[tokio::test]
async fn a_change_shows_no_secret_and_leaves_other_fields_unchanged() {
    let app = App::start().await;
    let made = app.post(ENDPOINTS, an_endpoint_with("projectId", json!("proj_a"))).await.data(200);
    let id = text(&made, "id");
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("secret");
    app.clock().advance(std::time::Duration::from_secs(60));
    let steps = [
        ("name", json!("Renamed")),
        ("url", json!(format!("https://{PUBLIC_HOST}/elsewhere?x=%20y"))),
        ("events", json!(["job.failed", "post.created"])),
        ("isActive", json!(false)),
        ("isActive", json!(true)),
        ("projectId", json!("proj_b")),
        ("projectId", Value::Null),
    ];
    for (member, value) in steps {
        expected[member] = value.clone();
        expected["updatedAt"] = json!("2026-05-15T12:01:00.000Z");
        let changed = patch(app.caller(), &id, json!({member: value})).await.data(200);
        assert_eq!(changed, expected, "{member}");
    }
    assert_eq!(app.get(&format!("{ENDPOINTS}/{id}")).await.data(200), expected);
    app.clock().advance(std::time::Duration::from_secs(60));
    assert_eq!(patch(app.caller(), &id, json!({})).await.data(200), expected, "a change of nothing changes nothing");
}

#[tokio::test]
async fn each_rule_of_creation_applies_to_a_change() {
    let app = App::start().await;
    let id = app.endpoint(an_endpoint()).await.id;
    let url = |length: usize| format!("https://{PUBLIC_HOST}/{}", "a".repeat(length - PUBLIC_HOST.len() - 9));
    for (member, value) in [("name", json!("é".repeat(128))), ("url", json!(url(1024))), ("projectId", json!("p"))] {
        patch(app.caller(), &id, json!({member: value})).await.data(200);
    }
    let wrong = [
        ("name", Value::Null, "must be a string"),
        ("name", json!(""), "must be 1 to 128 characters"),
        ("name", json!("é".repeat(129)), "must be 1 to 128 characters"),
        ("url", Value::Null, "must be a string"),
        ("url", json!(url(1025)), "must be 1 to 1024 characters"),
        ("url", json!(format!("http://{PUBLIC_HOST}/")), "must use https"),
        ("url", json!(format!("https://u:p@{PUBLIC_HOST}/")), "must not contain credentials"),
        ("events", Value::Null, "must be an array of event names"),
        ("events", json!([]), "must name at least one event"),
        ("isActive", Value::Null, "must be true or false"),
        ("isActive", json!("true"), "must be true or false"),
        ("projectId", json!(""), "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"),
        ("projectId", json!("x".repeat(65)), "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"),
        ("secret", json!("whsec_mine"), "is not a known parameter"),
        ("disabledReason", Value::Null, "is not a known parameter"),
        ("id", json!("whe_0000000000000000"), "is not a known parameter"),
    ];
    let before = app.get(&format!("{ENDPOINTS}/{id}")).await.data(200);
    for (member, value, fault) in wrong {
        let error = patch(app.caller(), &id, json!({member: value})).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({member: fault}));
    }
    patch(app.caller(), &id, json!({"name": "kept out", "events": ["nope"]})).await.error(400, "invalid_request");
    app.caller().send(Method::PATCH, &format!("{ENDPOINTS}/{id}"), "").await.error(400, "invalid_request");
    patch(app.caller(), &id, json!([])).await.error(400, "invalid_request");
    assert_eq!(app.get(&format!("{ENDPOINTS}/{id}")).await.data(200), before, "a refusal changes nothing");
}

#[tokio::test]
async fn a_new_url_is_vetted_like_the_first() {
    let app = App::start().await;
    let id = app.endpoint(an_endpoint()).await.id;
    app.dns().set("inside.example", Answer::addresses(&["10.0.0.1"]));
    for (url, reason) in [
        ("https://inside.example/", "private"),
        ("https://127.0.0.1/", "loopback"),
        ("https://nowhere.example/", "unresolvable"),
    ] {
        let error = patch(app.caller(), &id, json!({"url": url})).await.error(422, "ssrf_blocked");
        assert_eq!(error["details"]["reason"], reason, "{error}");
    }
    let unknown = patch(app.caller(), "whe_0000000000000000", json!({"url": "https://127.0.0.1/"})).await;
    unknown.error(404, "not_found");
}

#[tokio::test]
async fn activation_looks_up_the_host_again() {
    let app = App::start().await;
    let id = app.endpoint(an_endpoint()).await.id;
    patch(app.caller(), &id, json!({"isActive": false})).await.data(200);
    app.dns().set(PUBLIC_HOST, Answer::addresses(&["192.168.7.7"]));
    let error = patch(app.caller(), &id, json!({"isActive": true})).await.error(422, "ssrf_blocked");
    assert_eq!(error["details"], json!({"host": PUBLIC_HOST, "reason": "private"}));
    assert_eq!(app.get(&format!("{ENDPOINTS}/{id}")).await.data(200)["isActive"], false);
    patch(app.caller(), &id, json!({"name": "no look-up for this"})).await.data(200);
    app.dns().set(PUBLIC_HOST, Answer::addresses(&["93.184.215.14"]));
    assert_eq!(patch(app.caller(), &id, json!({"isActive": true})).await.data(200)["isActive"], true);
}

#[tokio::test]
async fn an_endpoint_disabled_as_gone_resumes_when_activated() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let id = app.endpoint_to(&receiver, &["post.created"]).await.id;
    receiver.then(Behaviour::status(500)).then(Behaviour::status(410));
    let waits = app.publish("post.created", json!({"n": 1})).await;
    let waiting = app.attempted(&waits, 1).await;
    let last = app.publish("post.created", json!({"n": 2})).await;
    app.attempted(&last, 1).await;
    let off = app.get(&format!("{ENDPOINTS}/{id}")).await.data(200);
    assert_eq!((&off["isActive"], &off["disabledReason"]), (&json!(false), &json!("gone")));
    let missed = app.publish("post.created", json!({"n": 3})).await;
    assert_eq!(app.delivery_ended(&missed, "skipped").await["reason"], "gone");
    app.clock().set(instant(&waiting, "nextAttemptAt"));
    app.clock().until_asleep(3).await;
    assert_eq!(receiver.counts().requests, 2, "what waits is held");
    let on = patch(app.caller(), &id, json!({"isActive": true})).await.data(200);
    assert_eq!((&on["isActive"], &on["disabledReason"]), (&json!(true), &Value::Null));
    assert_eq!(app.delivery_ended(&waits, "delivered").await["attemptCount"], 2);
}

#[tokio::test]
async fn an_inactive_endpoint_keeps_queued_events_and_skips_new_ones() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let id = app.endpoint_to(&receiver, &["post.created"]).await.id;
    receiver.then(Behaviour::status(500));
    let waits = app.publish("post.created", json!({})).await;
    let waiting = app.attempted(&waits, 1).await;
    let off = patch(app.caller(), &id, json!({"isActive": false})).await.data(200);
    assert_eq!((&off["isActive"], &off["disabledReason"]), (&json!(false), &Value::Null));
    let missed = app.publish("post.created", json!({})).await;
    let skipped = app.delivery_ended(&missed, "skipped").await;
    assert_eq!((&skipped["reason"], &skipped["attemptCount"]), (&json!("inactive"), &json!(0)));
    app.clock().set(instant(&waiting, "nextAttemptAt"));
    app.clock().until_asleep(3).await;
    assert_eq!(receiver.counts().requests, 1);
    patch(app.caller(), &id, json!({"isActive": true})).await.data(200);
    app.delivery_ended(&waits, "delivered").await;
    assert_eq!(app.delivery_ended(&missed, "skipped").await["reason"], "inactive", "what was skipped stays skipped");
}

#[tokio::test]
async fn a_deleted_endpoint_is_gone_and_its_log_stays() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let id = app.endpoint_to(&receiver, &["post.created"]).await.id;
    receiver.then(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    let waiting = app.attempted(&event, 1).await;
    let deleted = delete(&app, &id).await;
    assert_eq!((deleted.status, deleted.body.len(), deleted.header("content-type")), (204, 0, None));
    app.get(&format!("{ENDPOINTS}/{id}")).await.error(404, "not_found");
    app.get(&format!("{ENDPOINTS}/{id}/deliveries")).await.error(404, "not_found");
    patch(app.caller(), &id, json!({})).await.error(404, "not_found");
    delete(&app, &id).await.error(404, "not_found");
    assert_eq!(app.get(ENDPOINTS).await.data(200), json!([]));
    let cancelled = app.delivery_ended(&event, "cancelled").await;
    assert_eq!((&cancelled["reason"], &cancelled["nextAttemptAt"]), (&json!("endpoint_deleted"), &Value::Null));
    assert_eq!(cancelled["endpointId"], *id);
    let retried = app.post(&format!("{DELIVERIES}/{}/retry", text(&cancelled, "id")), json!({})).await;
    assert_eq!(retried.error(409, "conflict")["message"], "The endpoint does not exist any more.");
    app.clock().set(instant(&waiting, "nextAttemptAt"));
    app.clock().until_asleep(3).await;
    assert_eq!(receiver.counts().requests, 1);
    let unmatched = app.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202);
    assert_eq!(unmatched["deliveries"], 0);
}

#[tokio::test]
async fn changes_and_deletions_are_done_once_per_idempotency_key() {
    let app = App::start().await;
    let id = app.endpoint(an_endpoint()).await.id;
    let path = format!("{ENDPOINTS}/{id}");
    assert_done_once(app.caller(), Method::PATCH, &path, json!({"name": "Once"}), 200).await;
    patch(app.caller(), &id, json!({"name": "Later"})).await.data(200);
    assert_done_once(app.caller(), Method::DELETE, &path, json!({}), 204).await;
    let late = app.caller().keyed("late").send(Method::DELETE, &path, "").await;
    late.error(404, "not_found");
}

#[tokio::test]
async fn the_list_is_filtered_and_paged_and_shows_no_secret() {
    let app = App::start().await;
    let mut ids = Vec::new();
    for (project, events) in [
        (json!("proj_a"), json!(["post.created"])),
        (Value::Null, json!(["job.failed"])),
        (json!("proj_a"), json!(["job.failed"])),
    ] {
        let body =
            json!({"name": "n", "url": format!("https://{PUBLIC_HOST}/"), "events": events, "projectId": project});
        ids.insert(0, app.endpoint(body).await.id);
    }
    patch(app.caller(), &ids[1], json!({"isActive": false})).await.data(200);
    let listed = async |query: &str| {
        let reply = app.get(&format!("{ENDPOINTS}?{query}")).await;
        assert!(!reply.text().contains("\"secret\""), "{}", reply.text());
        let Value::Array(items) = reply.data(200) else { panic!("not a list") };
        items.iter().map(|item| text(item, "id")).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, ids);
    assert_eq!(listed("projectId=proj_a").await, [ids[0].clone(), ids[2].clone()]);
    assert_eq!(listed("event=job.failed").await, ids[..2]);
    assert_eq!(listed("isActive=false").await, ids[1..2]);
    assert_eq!(listed("isActive=true&event=job.failed&projectId=proj_a").await, ids[..1]);
    assert_eq!(listed("projectId=proj_z").await.len(), 0);
    let first = app.get(&format!("{ENDPOINTS}?limit=2")).await.json();
    assert_eq!(first["pagination"]["has_more"], true);
    let cursor = text(&first["pagination"], "next_cursor");
    assert_eq!(listed(&format!("limit=2&cursor={cursor}")).await, ids[2..]);
    for (query, name) in [("isActive=1", "isActive"), ("event=nope", "event"), ("projectId=a%20b", "projectId")] {
        let error = app.get(&format!("{ENDPOINTS}?{query}")).await.error(400, "invalid_request");
        assert!(faults(&error).get(name).is_some(), "{error}");
    }
    app.get(&format!("{ENDPOINTS}?limit=201")).await.error(400, "bad_pagination");
    app.get(&format!("{ENDPOINTS}?cursor=x")).await.error(400, "bad_cursor");
}

#[tokio::test]
async fn a_read_only_key_can_get_everything_and_write_nothing() {
    let app = App::start().await.in_test_mode().await;
    let id = app.endpoint(an_endpoint()).await.id;
    let delivery = text(&app.post(&format!("{ENDPOINTS}/{id}/test"), json!({})).await.data(202), "id");
    let since = json!({"since": "2026-05-15T00:00:00Z"});
    let replay = text(&app.post(&format!("{ENDPOINTS}/{id}/replay"), since.clone()).await.data(202), "id");
    let reader = app.caller_with(app.create_key("Acme", Mode::Test, &[Scope::WebhooksRead], None).await);
    let endpoint = format!("{ENDPOINTS}/{id}");
    for path in [
        ENDPOINTS.to_owned(),
        endpoint.clone(),
        format!("{endpoint}/deliveries"),
        format!("{endpoint}/replays"),
        format!("{endpoint}/replays/{replay}"),
        DELIVERIES.to_owned(),
        format!("{DELIVERIES}/{delivery}"),
    ] {
        assert_eq!(reader.get(&path).await.status, 200, "{path}");
    }
    for (method, path, body) in [
        (Method::POST, ENDPOINTS.to_owned(), an_endpoint()),
        (Method::PATCH, endpoint.clone(), json!({})),
        (Method::DELETE, endpoint.clone(), json!({})),
        (Method::POST, format!("{endpoint}/rotate-secret"), json!({})),
        (Method::POST, format!("{endpoint}/test"), json!({})),
        (Method::POST, format!("{endpoint}/replay"), since.clone()),
        (Method::POST, format!("{endpoint}/replay"), json!({"since": "2026-05-15T00:00:00Z", "dryRun": true})),
        (Method::POST, format!("{endpoint}/replays/{replay}/stop"), json!({})),
        (Method::POST, format!("{DELIVERIES}/{delivery}/retry"), json!({})),
    ] {
        let error = reader.send(method, &path, body.to_string()).await.error(403, "scope_missing");
        assert_eq!(error["details"], json!({"required": ["webhooks:manage"]}), "{path}");
    }
}
