//! `POST /v1/webhook-deliveries/retry`.

use http::Method;
use postrider_domain::access::Scope;
use serde_json::{Value, json};

use super::{AUDIT, DELIVERIES, ENDPOINTS, assert_done_once, faults};
use crate::support::app::{App, text};
use crate::support::receiver::Receiver;

const EVENT: &str = "post.created";

fn path() -> String {
    format!("{DELIVERIES}/retry")
}

async fn delivered(app: &App, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let event = app.publish(EVENT, json!({})).await;
        ids.push(text(&app.delivery_ended(&event, "delivered").await, "id"));
    }
    ids
}

#[tokio::test]
async fn each_selected_delivery_has_its_own_result() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &[EVENT]).await;
    let ids = delivered(&app, 2).await;
    let unknown = "dlv_0d1vzq8fw8dg021jwvfz";
    let body = json!({"ids": [ids[0], unknown, ids[1], ids[0]]});
    let results = app.post(&path(), body).await.data(200);
    let results = results.as_array().unwrap();
    let asked: Vec<&str> = results.iter().map(|result| result["id"].as_str().unwrap()).collect();
    assert_eq!(asked, [ids[0].as_str(), unknown, ids[1].as_str()], "in order, repeated ids once");
    assert_eq!((&results[1]["delivery"], &results[1]["error"]["code"]), (&Value::Null, &json!("not_found")));
    for (result, id) in [(&results[0], &ids[0]), (&results[2], &ids[1])] {
        assert_eq!((&result["error"], &result["delivery"]["retryOf"]), (&Value::Null, &json!(id)));
        assert_eq!(result["delivery"]["cause"], "retry");
    }
    let received = receiver.wait_for(4).await;
    let replayed = received.iter().filter(|one| one.header("scripe-replay").is_some()).count();
    assert_eq!(replayed, 2);
    let auditor = app.caller_of("Acme", &[Scope::AuditRead]).await;
    for (id, count) in [(ids[0].as_str(), 1), (unknown, 0)] {
        let audited = auditor.get(&format!("{AUDIT}?resourceId={id}")).await.json();
        assert_eq!(audited["data"].as_array().unwrap().len(), count, "{audited}");
    }
}

#[tokio::test]
async fn a_double_click_with_one_key_retries_once() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &[EVENT]).await;
    let ids = delivered(&app, 2).await;
    assert_done_once(app.caller(), Method::POST, &path(), json!({"ids": ids}), 200).await;
    receiver.wait_for(4).await;
    assert_eq!(app.deliveries("").await.len(), 4, "two retries of two deliveries");
}

#[tokio::test]
async fn an_endpoint_that_is_off_or_deleted_refuses_only_its_own() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let off = app.endpoint_to(&receiver, &[EVENT]).await;
    let deleted = app.endpoint_to(&receiver, &[EVENT]).await;
    app.endpoint_to(&receiver, &[EVENT]).await;
    app.publish(EVENT, json!({})).await;
    let all = app.deliveries_when("status=delivered", "are delivered", |all| all.len() == 3).await;
    let change = json!({"isActive": false}).to_string();
    app.caller().send(Method::PATCH, &format!("{ENDPOINTS}/{}", off.id), change).await.data(200);
    app.caller().send(Method::DELETE, &format!("{ENDPOINTS}/{}", deleted.id), String::new()).await;
    let ids: Vec<&Value> = all.iter().map(|delivery| &delivery["id"]).collect();
    let results = app.post(&path(), json!({"ids": ids})).await.data(200);
    let outcome = |endpoint: &str| {
        let at = all.iter().position(|delivery| delivery["endpointId"] == *endpoint).unwrap();
        results[at]["error"]["message"].as_str().unwrap_or_default().to_owned()
    };
    assert!(outcome(&off.id).contains("not active") && outcome(&deleted.id).contains("does not exist"), "{results}");
    let queued = results.as_array().unwrap().iter().filter(|result| result["delivery"].is_object()).count();
    assert_eq!(queued, 1);
}

#[tokio::test]
async fn a_delivery_of_another_workspace_is_not_found() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &[EVENT]).await;
    let ids = delivered(&app, 1).await;
    let stranger = app.caller_of("Initech", &[Scope::WebhooksManage]).await;
    let results = stranger.post(&path(), json!({"ids": ids})).await.data(200);
    assert_eq!(results[0]["error"]["code"], "not_found");
    assert_eq!(app.deliveries("").await.len(), 1);
}

#[tokio::test]
async fn one_to_200_ids_of_deliveries_are_taken() {
    let app = App::start().await;
    let id = "dlv_0d1vzq8fw8dg021jwvfz";
    for bad in [json!([]), json!(vec![id; 201]), json!(["evt_1"]), json!([1]), json!("x"), Value::Null] {
        let error = app.post(&path(), json!({"ids": bad})).await.error(400, "invalid_request");
        assert!(faults(&error)["ids"].is_string(), "{error}");
    }
    app.post(&path(), json!({"ids": vec![id; 200]})).await.data(200);
}
