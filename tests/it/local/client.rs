//! The client of our own API: it keeps one connection, and its failures say what happened.

use postrider_local::client::{ApiFailure, BearerKey, Client};
use serde_json::json;

use crate::support::receiver::{Answer, Behaviour, Receiver, ReservedPort};
use crate::support::wait::bounded;

fn client_of(server: &Receiver) -> Client {
    client_at(&server.url(""))
}

fn client_at(base_url: &str) -> Client {
    Client::new(base_url, &BearerKey::parse("scripe_sk_live_abc").unwrap()).unwrap()
}

fn json_answer(status: u16, body: &str) -> Answer {
    Answer::status(status).header("content-type", "application/json").body(body)
}

#[tokio::test]
async fn calls_carry_the_key_and_share_one_connection() {
    let server = Receiver::start().await;
    server.then(json_answer(200, r#"{"data":{"id":"whe_x"}}"#)).then(json_answer(200, "[1]")).then(Answer::status(204));
    let mut client = client_of(&server);
    let created = client.post("/v1/things", &json!({"name": "é"})).await.unwrap();
    assert_eq!(created["data"]["id"], "whe_x");
    assert_eq!(client.get("/v1/things?limit=1").await.unwrap(), json!([1]));
    assert!(client.delete("/v1/things/1").await.unwrap().is_null());

    let received = server.received();
    let lines: Vec<String> = received.iter().map(|one| format!("{} {}", one.method, one.path)).collect();
    assert_eq!(lines, ["POST /v1/things", "GET /v1/things?limit=1", "DELETE /v1/things/1"]);
    for request in &received {
        assert_eq!(request.header("authorization"), Some("Bearer scripe_sk_live_abc"));
        assert_eq!(request.header("host"), Some(server.address().to_string().as_str()));
    }
    assert_eq!(received[0].header("content-type"), Some("application/json"));
    assert_eq!(received[0].json(), json!({"name": "é"}));
    assert_eq!(received[1].header("content-type"), None);
    assert_eq!(server.counts().connections, 1);
}

#[tokio::test]
async fn a_refusal_has_the_error_of_the_api_and_keeps_the_connection() {
    let server = Receiver::start().await;
    let envelope = r#"{"error":{"code":"scope_missing","message":"Token lacks it.","request_id":"req_x"}}"#;
    server.then(json_answer(403, envelope)).then(json_answer(200, "{}"));
    let mut client = client_of(&server);
    match client.get("/").await.unwrap_err() {
        ApiFailure::Refused { status, code, message, .. } => {
            assert_eq!((status.as_u16(), code.as_str(), message.as_str()), (403, "scope_missing", "Token lacks it."));
        }
        other => panic!("{other:?}"),
    }
    client.get("/").await.unwrap();
    assert_eq!(server.counts().connections, 1);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let server = Receiver::start().await;
    server.then(json_answer(200, "{}").header("connection", "close")).then(json_answer(200, "{}"));
    let mut client = client_of(&server);
    client.post("/", &json!({})).await.unwrap();
    client.post("/", &json!({})).await.unwrap();
    assert_eq!(server.counts().connections, 2);
}

#[tokio::test]
async fn a_request_that_may_have_been_read_is_not_sent_twice() {
    let server = Receiver::start().await;
    server.then(Behaviour::CloseWithoutAnswer);
    let mut client = client_of(&server);
    let failure = client.post("/", &json!({})).await.unwrap_err();
    assert!(matches!(failure, ApiFailure::Broken(_)), "{failure:?}");
    assert_eq!(server.received().len(), 1);
    server.then(json_answer(200, "{}"));
    client.post("/", &json!({})).await.unwrap();
}

#[tokio::test]
async fn a_bad_answer_and_no_answer_are_different_failures() {
    let server = Receiver::start().await;
    server
        .then(Answer::status(200).body("<html>"))
        .then(Answer::status(502).body("bad gateway"))
        .then(Behaviour::NotHttp)
        .then(Behaviour::CutMidBody)
        .then(Behaviour::EndlessBody);
    let mut client = client_of(&server);
    for _ in 0..2 {
        let failure = client.get("/").await.unwrap_err();
        assert!(matches!(failure, ApiFailure::Unreadable { .. }), "{failure:?}");
    }
    for _ in 0..3 {
        let failure = bounded("a broken answer", client.get("/")).await.unwrap_err();
        assert!(matches!(failure, ApiFailure::Broken(_)), "{failure:?}");
    }

    let closed = ReservedPort::reserve();
    let address = closed.address();
    let failure = client_at(&format!("http://{address}")).get("/").await.unwrap_err();
    assert_eq!(failure.to_string(), format!("cannot connect to {address}"));
}
