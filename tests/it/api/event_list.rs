//! `/v1/events`: the log of what was published.

use std::time::Duration;

use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};

use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::receiver::{Answer, Receiver};

fn ids(page: &Value) -> Vec<String> {
    page.as_array().unwrap().iter().map(|event| text(event, "id")).collect()
}

#[tokio::test]
async fn an_event_is_shown_with_the_bytes_that_were_published() {
    let app = App::start().await;
    let data = "{ \"b\": 1.0,\n \"a\":9007199254740993, \"\\u0041\":\"\u{e9}\" }";
    let body = format!(
        "{{\"type\":\"post.created\",\"projectId\":\"proj_1\",\"externalId\":\"ext-1\",\
         \"occurredAt\":\"2026-05-15T10:21:00.123+02:00\",\"data\":{data}}}"
    );
    let id = text(&app.caller().post_text("/v1/events", &body).await.data(202), "id");
    let reply = app.get(&format!("/v1/events/{id}")).await;
    assert_eq!(
        reply.text(),
        format!(
            "{{\"data\":{{\"id\":\"{id}\",\"type\":\"post.created\",\"projectId\":\"proj_1\",\"externalId\":\"ext-1\",\
             \"mode\":\"live\",\"occurredAt\":\"2026-05-15T08:21:00.123Z\",\"createdAt\":\"2026-05-15T12:00:00.000Z\",\
             \"deliveries\":0,\"reason\":\"no_match\",\"payload\":\"kept\",\"skipped\":[],\"data\":{data}}}}}"
        )
    );
}

#[tokio::test]
async fn an_event_lists_the_endpoints_that_skipped_it_and_why() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let gone = Receiver::start().await;
    gone.otherwise(Answer::status(410));
    app.endpoint_to(&receiver, &["post.created"]).await;
    let off = app.endpoint_to(&gone, &["post.created"]).await;
    let first = app.publish("post.created", json!({})).await;
    let disabled = crate::support::wait::eventually("the endpoint is disabled", || async {
        let endpoint = app.get(&format!("/v1/webhook-endpoints/{}", off.id)).await.data(200);
        (endpoint["isActive"] == false).then_some(endpoint)
    });
    assert_eq!(disabled.await["disabledReason"], "gone");
    let second = app.publish("post.created", json!({})).await;
    let shown = app.get(&format!("/v1/events/{second}")).await.data(200);
    assert_eq!((&shown["deliveries"], &shown["reason"]), (&json!(1), &Value::Null));
    let skipped = shown["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0]["endpointId"], off.id.as_str());
    let delivery = app.delivery(&text(&skipped[0], "deliveryId")).await;
    assert_eq!((&delivery["status"], &delivery["reason"]), (&json!("skipped"), &skipped[0]["reason"]));
    let first = app.get(&format!("/v1/events/{first}")).await.data(200);
    assert_eq!((&first["deliveries"], &first["skipped"]), (&json!(2), &json!([])));
}

#[tokio::test]
async fn events_are_listed_newest_first_page_by_page() {
    let app = App::start().await;
    let mut published = Vec::new();
    for n in 0..5 {
        app.clock().advance(Duration::from_secs(1));
        published.insert(0, app.publish("post.created", json!({"n": n})).await);
    }
    let first = app.get("/v1/events?limit=2").await;
    assert_eq!(ids(&first.data(200)), published[..2]);
    assert!(first.json()["data"][0].get("data").is_none(), "a list does not carry the payloads");
    assert_eq!(first.json()["pagination"]["has_more"], true);
    let cursor = text(&first.json()["pagination"], "next_cursor");
    let second = app.get(&format!("/v1/events?limit=2&cursor={cursor}")).await.json();
    assert_eq!(ids(&second["data"]), published[2..4]);
    let cursor = text(&second["pagination"], "next_cursor");
    let third = app.get(&format!("/v1/events?limit=2&cursor={cursor}")).await.json();
    assert_eq!(ids(&third["data"]), published[4..]);
    assert_eq!(third["pagination"], json!({"next_cursor": null, "has_more": false}));
    for (limit, status) in [("0", 400), ("1", 200), ("200", 200), ("201", 400)] {
        assert_eq!(app.get(&format!("/v1/events?limit={limit}")).await.status, status, "{limit}");
    }
}

#[tokio::test]
async fn each_filter_finds_its_events_and_no_others() {
    let app = App::start().await;
    let publish = async |body: Value| {
        let id = text(&app.post("/v1/events", body).await.data(202), "id");
        app.clock().advance(Duration::from_secs(1));
        id
    };
    let a = publish(json!({"type": "post.created", "data": {}, "projectId": "p", "externalId": "x"})).await;
    let b = publish(json!({"type": "job.failed", "data": {}, "projectId": "p"})).await;
    let c = publish(json!({"type": "post.created", "data": {}, "externalId": "y"})).await;
    let found = async |query: &str| ids(&app.get(&format!("/v1/events?{query}")).await.data(200));
    assert_eq!(found("type=post.created").await, [c.clone(), a.clone()]);
    assert_eq!(found("projectId=p").await, [b.clone(), a.clone()]);
    assert_eq!(found("externalId=x").await, std::slice::from_ref(&a));
    assert_eq!(found("externalId=z").await, [""; 0]);
    assert_eq!(found("type=post.created&projectId=p&externalId=x").await, std::slice::from_ref(&a));
    assert_eq!(found("since=2026-05-15T12:00:01.000Z").await, [c.clone(), b.clone()]);
    assert_eq!(found("until=2026-05-15T12:00:01.000Z").await, std::slice::from_ref(&a));
    assert_eq!(found("since=2026-05-15T12:00:01.000Z&until=2026-05-15T12:00:02.000Z").await, [b]);
    for query in ["type=nothing", "projectId=a%20b", "externalId=", "since=yesterday", "colour=1"] {
        let error = app.get(&format!("/v1/events?{query}")).await.error(400, "invalid_request");
        let name = query.split('=').next().unwrap();
        assert!(error["details"]["parameters"][name].is_string(), "{error}");
    }
}

#[tokio::test]
async fn test_events_are_marked_and_have_separate_external_ids() {
    let app = App::start().await;
    let body = json!({"type": "post.created", "data": {}, "externalId": "x"});
    let live = text(&app.post("/v1/events", body.clone()).await.data(202), "id");
    let tester = app.caller_with(app.create_key("Acme", Mode::Test, ALL_SCOPES, None).await);
    let test = text(&tester.post("/v1/events", body).await.data(202), "id");
    for (caller, id, mode) in [(app.caller(), live, "live"), (&tester, test, "test")] {
        for query in ["externalId=x", "type=post.created", ""] {
            let found = caller.get(&format!("/v1/events?{query}")).await.data(200);
            assert_eq!((ids(&found), &found[0]["mode"]), (vec![id.clone()], &json!(mode)), "{query}");
        }
    }
}

#[tokio::test]
async fn only_readers_of_its_workspace_see_an_event() {
    let app = App::start().await;
    let id = app.publish("post.created", json!({})).await;
    let other = app.caller_of("Other", ALL_SCOPES).await;
    other.get(&format!("/v1/events/{id}")).await.error(404, "not_found");
    assert_eq!(other.get("/v1/events").await.data(200), json!([]));
    app.get("/v1/events/evt_1").await.error(404, "not_found");
    let writer = app.caller_of("Acme", &[Scope::EventsWrite]).await;
    for path in ["/v1/events".to_owned(), format!("/v1/events/{id}")] {
        let error = writer.get(&path).await.error(403, "scope_missing");
        assert_eq!(error["details"]["required"], json!(["events:read"]));
    }
}
