//! `Idempotency-Key`: a repeated request has one effect and gets one answer.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use postrider_domain::access::{Mode, Scope};
use serde_json::json;

use super::{API_KEYS, DELIVERIES, ENDPOINTS, EVENTS, an_endpoint, an_endpoint_with, an_event};
use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::caller::Reply;
use crate::support::dns::Answer;
use crate::support::postgres::TestDatabase;

const REPLAYED: &str = "idempotent-replayed";
const DAY: Duration = Duration::from_secs(24 * 3600);

#[track_caller]
fn assert_first(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.header(REPLAYED)), (status, Some("false")), "{}", reply.text());
}

#[track_caller]
fn assert_replay(reply: &Reply, first: &Reply) {
    assert_eq!((reply.status, reply.header(REPLAYED)), (first.status, Some("true")), "{}", reply.text());
    assert_eq!(reply.body, first.body);
    assert_eq!(reply.header("content-type"), first.header("content-type"));
}

#[track_caller]
fn assert_conflict(reply: &Reply) {
    let error = reply.error(409, "idempotency_key_conflict");
    assert_eq!(error["message"], "The Idempotency-Key was used for a request with another body.");
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_bytes_with_the_secret() {
    let app = App::start().await;
    let caller = app.caller().keyed("create-1");
    let first = caller.post(ENDPOINTS, an_endpoint()).await;
    assert_first(&first, 200);
    app.clock().advance(Duration::from_secs(60));
    let again = caller.post(ENDPOINTS, an_endpoint()).await;
    assert_replay(&again, &first);
    assert!(text(&again.data(200), "secret").starts_with("whsec_"));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"), "each request has an id of its own");
}

#[tokio::test]
async fn a_replayed_publish_makes_no_second_event() {
    let app = App::start().await.in_test_mode().await;
    let endpoint = app.endpoint(an_endpoint()).await;
    let caller = app.caller().keyed("publish-1");
    let first = caller.post(EVENTS, an_event()).await;
    assert_first(&first, 202);
    assert_replay(&caller.post(EVENTS, an_event()).await, &first);
    assert_eq!(app.deliveries(&format!("endpointId={}", endpoint.id)).await.len(), 1);
}

#[tokio::test]
async fn a_request_without_a_key_is_not_marked() {
    let app = App::start().await;
    assert_eq!(app.post(EVENTS, an_event()).await.header(REPLAYED), None);
    assert_eq!(app.post(EVENTS, json!({})).await.header(REPLAYED), None);
}

#[tokio::test]
async fn the_order_of_keys_and_white_space_do_not_change_the_body() {
    let app = App::start().await;
    let caller = app.caller().keyed("k");
    let first = caller.post_text(EVENTS, "{\"type\":\"post.created\",\"data\":{\"b\":[1,{}],\"a\":null}}").await;
    assert_first(&first, 202);
    let other = "{ \"data\" : {\"a\":null,\n\t\"b\" : [ 1 , { } ] },\r\n\"type\":\"post.created\" }";
    assert_replay(&caller.post_text(EVENTS, other).await, &first);
}

#[tokio::test]
async fn values_are_compared_as_written() {
    let app = App::start().await;
    let pairs = [
        ("1.0", "1"),
        ("9007199254740993", "9007199254740992"),
        ("1e2", "100"),
        ("-0", "0"),
        ("[1,2]", "[2,1]"),
        ("\"a\"", "\"\\u0061\""),
        ("null", "false"),
    ];
    for (index, (one, other)) in pairs.into_iter().enumerate() {
        let caller = app.caller().keyed(&format!("pair-{index}"));
        let body = |value: &str| format!("{{\"type\":\"post.created\",\"data\":{{\"x\":{value}}}}}");
        assert_first(&caller.post_text(EVENTS, &body(one)).await, 202);
        assert_conflict(&caller.post_text(EVENTS, &body(other)).await);
    }
}

#[tokio::test]
async fn another_body_is_a_conflict_and_keeps_the_first_answer() {
    let app = App::start().await;
    let caller = app.caller().keyed("k");
    let first = caller.post(ENDPOINTS, an_endpoint()).await;
    assert_conflict(&caller.post(ENDPOINTS, an_endpoint_with("name", json!("Other"))).await);
    assert_conflict(&caller.post(ENDPOINTS, json!({})).await);
    assert_replay(&caller.post(ENDPOINTS, an_endpoint()).await, &first);
}

#[tokio::test]
async fn a_key_that_does_not_match_its_pattern_is_ignored() {
    let app = App::start().await;
    for ignored in [&*"k".repeat(65), "a b", "a.b", "schlüssel", "a/b"] {
        let caller = app.caller().keyed(ignored);
        let (first, second) = (caller.post(EVENTS, an_event()).await, caller.post(EVENTS, an_event()).await);
        assert_eq!((first.header(REPLAYED), second.header(REPLAYED)), (None, None), "{ignored:?}");
        assert_ne!(first.data(202)["id"], second.data(202)["id"]);
    }
    for taken in [&*"k".repeat(64), "a", "A-z_0"] {
        let caller = app.caller().keyed(taken);
        let first = caller.post(EVENTS, an_event()).await;
        assert_replay(&caller.post(EVENTS, an_event()).await, &first);
    }
}

#[tokio::test]
async fn a_key_on_a_read_is_ignored() {
    let app = App::start().await;
    let caller = app.caller().keyed("k");
    for _ in 0..2 {
        let reply = caller.get(DELIVERIES).await;
        assert_eq!((reply.status, reply.header(REPLAYED)), (200, None));
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_24_hours_from_the_first_request() {
    let app = App::start().await;
    let caller = app.caller().keyed("k");
    let first = caller.post(EVENTS, an_event()).await;
    app.clock().advance(DAY - Duration::from_secs(1));
    assert_replay(&caller.post(EVENTS, an_event()).await, &first);
    app.clock().advance(Duration::from_secs(2));
    let second = caller.post(EVENTS, an_event()).await;
    assert_first(&second, 202);
    assert_ne!(second.body, first.body);
    assert_replay(&caller.post(EVENTS, an_event()).await, &second);
}

#[tokio::test]
async fn a_refusal_is_stored_like_a_success() {
    let app = App::start().await;
    let caller = app.caller().keyed("wrong");
    let first = caller.post(EVENTS, json!({"type": "post.created"})).await;
    assert_first(&first, 400);
    assert_replay(&caller.post(EVENTS, json!({"type": "post.created"})).await, &first);

    let caller = app.caller().keyed("nowhere");
    let nowhere = an_endpoint_with("url", json!("https://nowhere.example/"));
    let first = caller.post(ENDPOINTS, nowhere.clone()).await;
    assert_first(&first, 422);
    app.dns().set("nowhere.example", Answer::addresses(&["93.184.215.14"]));
    assert_replay(&caller.post(ENDPOINTS, nowhere).await, &first);
}

#[tokio::test]
async fn a_refusal_of_the_caller_is_not_stored() {
    let app = App::start().await;
    let bare = app.caller_of("Acme", &[]).await.keyed("k");
    let refused = bare.post(EVENTS, an_event()).await;
    refused.error(403, "scope_missing");
    assert_eq!(refused.header(REPLAYED), None);
    assert_first(&app.caller().keyed("k").post(EVENTS, an_event()).await, 202);
}

#[tokio::test]
async fn a_key_belongs_to_one_workspace_one_mode_and_one_route() {
    let app = App::start().await;
    let callers = [
        app.caller().clone(),
        app.caller_of("Globex", ALL_SCOPES).await,
        app.caller_with(app.create_key("Acme", Mode::Test, ALL_SCOPES, None).await),
    ];
    let mut ids = Vec::new();
    for caller in callers {
        let reply = caller.keyed("k").post(EVENTS, an_event()).await;
        assert_first(&reply, 202);
        ids.push(text(&reply.data(202), "id"));
        assert_first(&caller.keyed("k").post(ENDPOINTS, an_endpoint()).await, 200);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn two_api_keys_of_one_workspace_share_stored_answers() {
    let app = App::start().await;
    let first = app.caller().keyed("k").post(EVENTS, an_event()).await;
    let colleague = app.caller_of("Acme", &[Scope::EventsWrite]).await;
    assert_replay(&colleague.keyed("k").post(EVENTS, an_event()).await, &first);
}

/// Creates a key, as a key with more scopes and then as one with fewer, with one `Idempotency-Key`.
async fn assert_secret_stays_with_its_key(app: App) {
    let strong = app.caller_of("Acme", &[Scope::KeysManage, Scope::WebhooksManage, Scope::EventsWrite]).await;
    let body = json!({"name": "ci", "scopes": ["events:write"]});
    let first = strong.keyed("k").post(API_KEYS, body.clone()).await;
    assert_first(&first, 200);
    let secret = text(&first.data(200), "key");
    let weaker = app.caller_of("Acme", &[Scope::KeysManage]).await.keyed("k");
    weaker.post(API_KEYS, body.clone()).await.error(403, "scope_missing");
    let equal = app.caller_of("Acme", &[Scope::KeysManage, Scope::WebhooksManage, Scope::EventsWrite]).await;
    let refused = equal.keyed("k").post(API_KEYS, body.clone()).await;
    refused.error(409, "conflict");
    assert!(!refused.text().contains(&secret));
    assert_eq!(refused.header(REPLAYED), None);
    assert_conflict(&equal.keyed("k").post(API_KEYS, json!({})).await);
    assert_replay(&strong.keyed("k").post(API_KEYS, body).await, &first);

    let endpoint = strong.keyed("e").post(ENDPOINTS, an_endpoint()).await;
    assert_first(&endpoint, 200);
    let refused = equal.keyed("e").post(ENDPOINTS, an_endpoint()).await;
    refused.error(409, "conflict");
    assert!(!refused.text().contains(&text(&endpoint.data(200), "secret")));
}

#[tokio::test]
async fn a_secret_is_replayed_only_to_its_key() {
    assert_secret_stays_with_its_key(App::start().await).await;
}

#[tokio::test]
async fn on_postgres_a_secret_is_replayed_only_to_its_key() {
    if let Some(database) = TestDatabase::new().await {
        assert_secret_stays_with_its_key(App::set_up().await.on(&Arc::new(database)).start().await).await;
    }
}

#[tokio::test]
async fn a_passing_fault_is_not_stored() {
    let app = App::start().await;
    let caller = app.caller().keyed("k");
    let body = an_endpoint_with("url", json!("https://sometimes.example/"));
    app.dns().set("sometimes.example", Answer::ServFail);
    let refused = caller.post(ENDPOINTS, body.clone()).await;
    assert_eq!((refused.status, refused.header(REPLAYED)), (422, None), "{}", refused.text());
    app.dns().set("sometimes.example", Answer::addresses(&["93.184.215.14"]));
    assert_first(&caller.post(ENDPOINTS, body).await, 200);
}

#[tokio::test]
async fn a_stored_refusal_has_at_most_four_kilobytes() {
    let app = App::start().await;
    let caller = app.caller().keyed("k");
    let mut body = an_event();
    for number in 0..300 {
        body[format!("{number}{}", "\u{1}x".repeat(50))] = json!(1);
    }
    let first = caller.post(EVENTS, body.clone()).await;
    assert_first(&first, 400);
    assert!(first.body.len() <= 4096, "{} bytes", first.body.len());
    assert_replay(&caller.post(EVENTS, body).await, &first);
}

#[tokio::test]
async fn stored_answers_survive_a_restart() {
    let mut app = App::start().await;
    let made = app.caller().keyed("k").post(ENDPOINTS, an_endpoint()).await;
    let published = app.caller().keyed("k").post(EVENTS, an_event()).await;
    app.restart().await;
    assert_replay(&app.caller().keyed("k").post(ENDPOINTS, an_endpoint()).await, &made);
    assert_replay(&app.caller().keyed("k").post(EVENTS, an_event()).await, &published);
}

#[tokio::test]
async fn a_duplicate_of_a_running_request_gets_409_and_retry_after() {
    let app = App::start().await;
    app.dns().set("slow.example", Answer::Silent);
    let caller = app.caller().keyed("k");
    let body = an_endpoint_with("url", json!("https://slow.example/"));
    let first = caller.post(ENDPOINTS, body.clone());
    let duplicate = async {
        app.dns().wait_for_queries("slow.example", 1).await;
        let duplicate = caller.post(ENDPOINTS, body.clone()).await;
        app.dns().set("slow.example", Answer::addresses(&["93.184.215.14"]));
        duplicate
    };
    let (first, duplicate) = tokio::join!(first, duplicate);
    duplicate.error(409, "conflict");
    assert_eq!((duplicate.header("retry-after"), duplicate.header(REPLAYED)), (Some("1"), None));
    assert_first(&first, 200);
    assert_replay(&caller.post(ENDPOINTS, body).await, &first);
}

#[tokio::test]
async fn many_concurrent_duplicates_have_one_effect() {
    let app = App::start().await.in_test_mode().await;
    let endpoint = app.endpoint(an_endpoint()).await;
    let caller = app.caller().keyed("k");
    let replies = join_all((0..32).map(|_| caller.post(EVENTS, an_event()))).await;
    let first: Vec<&Reply> = replies.iter().filter(|reply| reply.header(REPLAYED) == Some("false")).collect();
    assert_eq!(first.len(), 1);
    for reply in &replies {
        match (reply.status, reply.header(REPLAYED)) {
            (202, Some("false")) => {}
            (202, Some("true")) => assert_replay(reply, first[0]),
            _ => {
                reply.error(409, "conflict");
            }
        }
    }
    assert_eq!(app.deliveries(&format!("endpointId={}", endpoint.id)).await.len(), 1);
}

#[tokio::test]
async fn no_file_contains_the_secret_of_a_stored_answer() {
    let mut app = App::start().await;
    let made = app.caller().keyed("k").post(ENDPOINTS, an_endpoint()).await;
    let secret = text(&made.data(200), "secret");
    let letters = secret.trim_start_matches("whsec_");
    let key = BASE64_STANDARD.decode(letters).unwrap();
    let nowhere: [String; 0] = [];
    for moment in ["while the server runs", "after its stop"] {
        assert_eq!(app.files_holding(letters.as_bytes()), nowhere, "{moment}");
        assert_eq!(app.files_holding(&key), nowhere, "{moment}");
        assert_ne!(app.files_holding(b"Production CRM"), nowhere, "the endpoint itself is found, {moment}");
        if moment == "while the server runs" {
            app.stop().await;
        }
    }
    app.start_again().await;
    assert_replay(&app.caller().keyed("k").post(ENDPOINTS, an_endpoint()).await, &made);
}
