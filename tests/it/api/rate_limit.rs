//! Rate limits: the keys of a workspace share one counter, and every answer shows it.

use std::num::NonZeroU32;
use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::rate_limit::RateLimits;
use serde_json::json;

use super::{DELIVERIES, ENDPOINTS, EVENTS, an_event};
use crate::support::app::{ALL_SCOPES, App};
use crate::support::caller::Reply;

async fn limited(management: u32, publishing: u32) -> App {
    let limits = RateLimits { management: NonZeroU32::new(management), publishing: NonZeroU32::new(publishing) };
    App::set_up().await.change(|settings| settings.rate_limits = limits).start().await
}

/// The rate limit headers: limit, remaining, and seconds until the reset.
fn rate_headers(reply: &Reply) -> [Option<u32>; 3] {
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
        .map(|name| reply.header(name).map(|value| value.parse().expect("a number")))
}

#[tokio::test]
async fn no_request_exceeds_the_limit_until_the_first_is_60_s_old() {
    let app = limited(3, 0).await;
    for (remaining, reset) in [(2, 60), (1, 50), (0, 40)] {
        let reply = app.get(DELIVERIES).await;
        assert_eq!((reply.status, rate_headers(&reply)), (200, [Some(3), Some(remaining), Some(reset)]));
        app.clock().advance(Duration::from_secs(10));
    }
    let refused = app.get(DELIVERIES).await;
    assert_eq!(rate_headers(&refused), [Some(3), Some(0), Some(30)]);
    assert_eq!(refused.header("retry-after"), Some("30"));
    let error = refused.error(429, "rate_limited");
    assert_eq!(error["details"], json!({"bucket": "management"}));
    assert_eq!(error["docs_url"].as_str().unwrap().rsplit('#').next(), Some("rate_limited"));
    app.clock().advance(Duration::from_millis(29_999));
    let refused = app.get(DELIVERIES).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    app.clock().advance(Duration::from_millis(1));
    assert_eq!(app.get(DELIVERIES).await.status, 200);
    assert_eq!(app.get(DELIVERIES).await.status, 429, "the second request is 50 seconds old");
}

#[tokio::test]
async fn concurrent_keys_of_a_workspace_share_one_counter() {
    let app = limited(20, 0).await;
    let mut callers = vec![app.caller().clone()];
    for mode in [Mode::Live, Mode::Test] {
        callers.push(app.caller_with(app.create_key("Acme", mode, ALL_SCOPES, None).await));
    }
    let other = app.caller_of("Globex", ALL_SCOPES).await;
    let replies = futures_util::future::join_all((0..60).map(|n| {
        let caller = &callers[n % 3];
        caller.get(DELIVERIES)
    }))
    .await;
    let passed: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(passed.len(), 20);
    let mut remaining: Vec<_> = passed.iter().map(|reply| rate_headers(reply)[1].unwrap()).collect();
    remaining.sort_unstable();
    assert_eq!(remaining, (0..20).collect::<Vec<_>>());
    assert_eq!(rate_headers(&other.get(DELIVERIES).await)[1], Some(19), "another workspace has its own");
}

#[tokio::test]
async fn the_two_buckets_are_counted_separately() {
    let app = limited(1, 2).await;
    assert_eq!(app.get(DELIVERIES).await.status, 200);
    for remaining in [1, 0] {
        let reply = app.post(EVENTS, an_event()).await;
        assert_eq!((reply.status, rate_headers(&reply)[1]), (202, Some(remaining)));
    }
    let error = app.post(EVENTS, an_event()).await.error(429, "rate_limited");
    assert_eq!(error["details"], json!({"bucket": "publishing"}));
    assert_eq!(app.get(DELIVERIES).await.status, 429);
}

#[tokio::test]
async fn every_answer_of_a_limited_bucket_has_headers_and_counts() {
    let app = limited(4, 0).await;
    let replies = [
        app.get(&format!("{DELIVERIES}?limit=0")).await,
        app.post(ENDPOINTS, json!({})).await,
        app.caller().with("scripe-api-version", "2020-01-01").get(DELIVERIES).await,
        app.get(&format!("{ENDPOINTS}/nonsense")).await,
    ];
    let seen: Vec<_> = replies.iter().map(|reply| (reply.status, rate_headers(reply)[1].unwrap())).collect();
    assert_eq!(seen, [(400, 3), (400, 2), (400, 1), (404, 0)]);
    let publish = app.post(EVENTS, an_event()).await;
    assert_eq!((publish.status, rate_headers(&publish)), (202, [None; 3]), "a bucket without a limit says nothing");
    let stranger = app.caller().without("authorization").get(DELIVERIES).await;
    assert_eq!((stranger.status, rate_headers(&stranger)), (401, [None; 3]), "nobody's counter");
    let health = app.get("/v1/health").await;
    assert_eq!((health.status, rate_headers(&health)), (200, [None; 3]));
}

#[tokio::test]
async fn a_refused_request_can_be_repeated_with_its_idempotency_key() {
    let app = limited(1, 0).await;
    assert_eq!(app.get(DELIVERIES).await.status, 200);
    let keyed = app.caller().keyed("k");
    let refused = keyed.post(ENDPOINTS, super::an_endpoint()).await;
    assert_eq!((refused.status, refused.header("idempotent-replayed")), (429, None));
    app.clock().advance(Duration::from_secs(60));
    let made = keyed.post(ENDPOINTS, super::an_endpoint()).await;
    assert_eq!((made.status, made.header("idempotent-replayed")), (200, Some("false")));
}

#[tokio::test]
async fn by_default_every_answer_has_the_headers_of_its_bucket() {
    let app = App::start().await;
    assert_eq!(rate_headers(&app.get(DELIVERIES).await), [Some(1_200), Some(1_199), Some(60)]);
    assert_eq!(rate_headers(&app.post(EVENTS, an_event()).await)[..2], [Some(3_000_000), Some(2_999_999)]);
}

#[tokio::test]
async fn a_bucket_without_a_limit_has_no_headers() {
    let app = limited(1, 0).await;
    assert_eq!(rate_headers(&app.post(EVENTS, an_event()).await), [None; 3]);
    assert_eq!(app.post(EVENTS, an_event()).await.status, 202);
}
