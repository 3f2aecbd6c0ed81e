//! The header `Scripe-Api-Version`.

use serde_json::json;

use super::{DELIVERIES, EVENTS, an_event};
use crate::support::app::App;

const VERSION: &str = "scripe-api-version";

#[tokio::test]
async fn every_answer_has_the_version_even_if_none_was_requested() {
    let app = App::start().await;
    let pinned = app.caller().with(VERSION, "2026-08-01");
    for reply in [
        app.get(DELIVERIES).await,
        pinned.get(DELIVERIES).await,
        pinned.post(EVENTS, an_event()).await,
        pinned.post(EVENTS, json!({})).await,
        app.get("/v1/nothing").await,
        app.get("/v1/health").await,
        pinned.without("authorization").get(DELIVERIES).await,
    ] {
        assert_eq!(reply.header(VERSION), Some("2026-08-01"));
        assert_eq!(reply.header("scripe-deprecation"), None);
    }
}

#[tokio::test]
async fn an_unknown_version_is_refused_with_the_supported_ones() {
    let app = App::start().await;
    for unknown in ["2026-08-02", "2020-01-01", "latest", "v1", "2026-08-01 "] {
        let reply = app.caller().with(VERSION, unknown).get(DELIVERIES).await;
        if unknown.trim() == "2026-08-01" {
            assert_eq!(reply.status, 200, "space around a header's value is not part of it");
            continue;
        }
        let error = reply.error(400, "version_unsupported");
        assert_eq!(error["details"], json!({"accepted": ["2026-08-01"]}));
        assert_eq!(reply.header(VERSION), Some("2026-08-01"));
    }
}

#[tokio::test]
async fn a_write_in_an_unknown_version_has_no_effect() {
    let app = App::start().await;
    let event = json!({"type": "post.created", "data": {}, "externalId": "one"});
    let unknown = app.caller().with(VERSION, "1999-01-01").keyed("k");
    unknown.post(EVENTS, event.clone()).await.error(400, "version_unsupported");
    let accepted = app.caller().keyed("k").post(EVENTS, event).await;
    assert_eq!((accepted.status, accepted.header("idempotent-replayed")), (202, Some("false")));
}
