//! The error envelope, and the request faults that all routes share.

use http::Method;
use serde_json::json;

use super::{DELIVERIES, ENDPOINTS, EVENTS, an_endpoint, an_event, event_of_bytes, faults};
use crate::support::app::{App, text};

const BATCH: &str = "/v1/events/batch";

#[tokio::test]
async fn every_error_has_the_envelope_its_page_and_the_request_id() {
    let app = App::start().await;
    let address = app.server().address();
    let reply = app.get("/v1/nothing").await;
    let id = reply.header("x-request-id").unwrap();
    assert_eq!(
        reply.text(),
        format!(
            "{{\"error\":{{\"code\":\"not_found\",\"message\":\"There is no such resource.\",\"request_id\":\"{id}\",\
             \"docs_url\":\"http://{address}/docs/errors#not_found\"}}}}"
        )
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_page_of_an_error_is_below_the_public_url() {
    let app = App::set_up().await.change(|settings| settings.public_url = Some("https://api.acme.test/".to_owned()));
    let error = app.start().await.get("/nowhere").await.error(404, "not_found");
    assert_eq!(error["docs_url"], "https://api.acme.test/docs/errors#not_found");
}

#[tokio::test]
async fn a_route_that_does_not_exist_is_not_found_by_any_method() {
    let app = App::start().await;
    for path in ["/nowhere", "/v1", "/v2/events", "/v1/webhook-endpoints/a/b/c", "/v1/events/"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            app.caller().send(method, path, "").await.error(404, "not_found");
        }
    }
}

#[tokio::test]
async fn an_unknown_method_of_a_route_is_answered_with_the_known_ones() {
    let app = App::start().await;
    let allowed = async |method: Method, path: &str| {
        let reply = app.caller().send(method, path, "{}").await;
        reply.error(405, "method_not_allowed");
        let mut allow: Vec<String> = reply.header("allow").unwrap().split(',').map(|m| m.trim().to_owned()).collect();
        allow.sort();
        allow
    };
    assert!(allowed(Method::PUT, ENDPOINTS).await.contains(&"POST".to_owned()));
    assert!(allowed(Method::PUT, EVENTS).await.contains(&"POST".to_owned()));
    assert_eq!(allowed(Method::POST, DELIVERIES).await, ["GET", "HEAD"]);
    assert_eq!(allowed(Method::POST, "/v1/health").await, ["GET", "HEAD"]);
}

#[tokio::test]
async fn every_answer_has_a_unique_request_id_and_is_never_cached() {
    let app = App::start().await;
    let replies = [
        app.get("/v1/health").await,
        app.post(ENDPOINTS, an_endpoint()).await,
        app.post(EVENTS, an_event()).await,
        app.post(EVENTS, json!({})).await,
        app.get("/v1/nothing").await,
        app.caller().send(Method::PUT, EVENTS, "").await,
        app.caller().without("authorization").get(DELIVERIES).await,
    ];
    let mut ids: Vec<&str> = replies.iter().map(|reply| reply.header("x-request-id").unwrap()).collect();
    for id in &ids {
        let letters = id.strip_prefix("req_").unwrap();
        assert!(letters.len() == 16 && letters.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()), "{id}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), replies.len());
    assert!(replies.iter().all(|reply| reply.header("cache-control") == Some("no-store")));
}

#[tokio::test]
async fn a_body_that_is_not_one_json_object_is_refused_with_the_byte() {
    let app = App::start().await;
    let cases = [
        ("", "malformed JSON: expected a value at byte 0"),
        ("{", "malformed JSON: expected a key in double quotes at byte 1"),
        ("{\"name\":\"x\"", "malformed JSON: expected a comma or a closing brace at byte 11"),
        ("{} {}", "malformed JSON: expected the end at byte 3"),
        ("{'name':1}", "malformed JSON: expected a key in double quotes at byte 1"),
        ("{\"name\":01}", "malformed JSON: expected a comma or a closing brace at byte 9"),
        ("{\"name\":NaN}", "malformed JSON: expected a value at byte 8"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("\"{}\"", "must be a JSON object"),
        ("{\"\\ud800\":1}", "has a member whose name contains half of a surrogate pair"),
    ];
    for (body, fault) in cases {
        let error = app.caller().post_text(ENDPOINTS, body).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({"body": fault}), "{body}");
    }
    let error = app.caller().send(Method::POST, ENDPOINTS, &b"{\"name\":\"\xff\"}"[..]).await;
    let error = error.error(400, "invalid_request");
    assert_eq!(*faults(&error), json!({"body": "malformed JSON: not UTF-8 at byte 9"}));
}

#[tokio::test]
async fn a_duplicate_key_is_refused_at_any_depth() {
    let app = App::start().await;
    for body in [
        "{\"type\":\"post.created\",\"data\":{},\"type\":\"post.created\"}",
        "{\"type\":\"post.created\",\"data\":{\"a\":[{\"b\":1,\"b\":1}]}}",
        "{\"type\":\"post.created\",\"data\":{\"a\":1,\"\\u0061\":2}}",
    ] {
        let error = app.caller().post_text(EVENTS, body).await.error(400, "invalid_request");
        let fault = text(faults(&error), "body");
        assert!(fault.contains("stands twice in one object at byte"), "{fault}");
    }
}

#[tokio::test]
async fn nesting_is_accepted_up_to_64_levels() {
    let app = App::start().await;
    let nested = |levels: usize| {
        let data = format!("{}1{}", "{\"a\":".repeat(levels - 1), "}".repeat(levels - 1));
        format!("{{\"type\":\"post.created\",\"data\":{data}}}")
    };
    assert_eq!(app.caller().post_text(EVENTS, &nested(64)).await.status, 202);
    let error = app.caller().post_text(EVENTS, &nested(65)).await.error(400, "invalid_request");
    assert!(text(faults(&error), "body").starts_with("JSON nests deeper than 64 levels at byte"));
    let error = app.caller().post_text(EVENTS, &"[".repeat(200_000)).await.error(400, "invalid_request");
    assert!(text(faults(&error), "body").starts_with("JSON nests deeper than 64 levels at byte"));
}

#[tokio::test]
async fn a_body_of_256_kb_is_accepted_and_one_byte_more_is_not() {
    let app = App::start().await;
    assert_eq!(app.caller().post_text(EVENTS, &event_of_bytes(256 * 1024)).await.status, 202);
    let too_large = event_of_bytes(256 * 1024 + 1);
    for caller in [app.caller().clone(), app.caller().keyed("big")] {
        let error = caller.post_text(EVENTS, &too_large).await.error(413, "payload_too_large");
        assert_eq!(error["message"], "The body is larger than 256 KB.");
    }
}

#[tokio::test]
async fn a_body_of_another_media_type_is_refused() {
    let app = App::start().await;
    let send = async |media_type: &str| app.caller().with("content-type", media_type).post(EVENTS, an_event()).await;
    for good in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
        assert_eq!(send(good).await.status, 202, "{good}");
    }
    for bad in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"] {
        send(bad).await.error(415, "unsupported_media_type");
    }
}

/// A batch of 8 MB that holds nothing but unknown members, at its top or in its event.
fn full_of_unknown_members(open: &str, close: &str) -> String {
    let mut body = String::from(open);
    let mut number = 0;
    while body.len() < 8 * 1024 * 1024 - 40 {
        body.push_str(&format!("\"unknown{number}\":0,"));
        number += 1;
    }
    body.truncate(body.len() - 1);
    body.push_str(close);
    body
}

#[tokio::test]
async fn an_error_is_small_however_much_it_could_repeat() {
    let app = App::start().await;
    let long = "é".repeat(20_000);
    let many: Vec<String> = (0..10_000).map(|index| format!("\"{index}{long:.50}\":0")).collect();
    let bodies = [
        (ENDPOINTS, format!("{{\"{long}\":1}}")),
        (ENDPOINTS, format!("{{{}}}", many[..2000].join(","))),
        (ENDPOINTS, format!("{{\"{long}\":1,\"{long}\":2}}")),
        (ENDPOINTS, json!({"name": "a", "url": "https://hooks.example.com/", "events": [long]}).to_string()),
        (ENDPOINTS, json!({"name": long, "url": long, "events": long, "headers": {&long: "x"}}).to_string()),
        (EVENTS, json!({"type": long, "data": {}}).to_string()),
        (EVENTS, json!({"type": "post.created", "data": {}, "projectId": long, "occurredAt": long}).to_string()),
        (BATCH, full_of_unknown_members("{", "}")),
        (BATCH, full_of_unknown_members("{\"events\":[{", "}]}")),
        (BATCH, format!("{{\"events\":[{}0]}}", "0,".repeat(4_000_000))),
        (BATCH, format!("{{\"events\":[{}]}}", vec![format!("{{{}}}", many[..50].join(",")); 1000].join(","))),
    ];
    for (index, (path, body)) in bodies.iter().enumerate() {
        let reply = app.caller().post_text(path, body).await;
        reply.error(400, "invalid_request");
        assert!(reply.body.len() <= 4096, "{index}: {} bytes", reply.body.len());
    }
    let queries: Vec<String> = (0..1000).map(|index| format!("q{index}=1")).collect();
    let paths = [format!("{DELIVERIES}?{}", queries.join("&")), format!("{DELIVERIES}?cursor={}", "a".repeat(15_000))];
    for path in paths {
        let reply = app.get(&path).await;
        assert!(reply.status == 400 && reply.body.len() <= 4096, "{}", reply.text());
    }
    let keyed = app.caller().keyed("echo");
    let first = keyed.post_text(ENDPOINTS, &bodies[1].1).await;
    let named = faults(&first.error(400, "invalid_request")).as_object().unwrap().len();
    assert_eq!(named, 20, "the unknown members, in a body that has no known one");
    assert_eq!(keyed.post_text(ENDPOINTS, &bodies[1].1).await.body, first.body);
}
