//! Refused keys: their limit per address, and what the server remembers of them.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::limits;
use serde_json::json;

use super::DELIVERIES;
use crate::support::app::{ALL_SCOPES, App};
use crate::support::postgres::TestDatabase;

/// Exhausts the limit of this machine's address, and checks what works then.
async fn check_the_limit(app: &App) {
    let known = app.caller().secret().unwrap().to_owned();
    let refused = [
        app.caller().without("authorization"),
        app.caller().key("nonsense"),
        app.caller().key(&format!("{}0000", &known[..known.len() - 4])),
    ];
    let limit = usize::try_from(limits::REFUSED_KEYS_PER_MINUTE.get()).unwrap();
    for caller in refused.iter().cycle().take(limit) {
        caller.get(DELIVERIES).await.error(401, "invalid_token");
    }
    for caller in &refused {
        let reply = caller.get(DELIVERIES).await;
        assert_eq!(reply.error(429, "rate_limited")["details"], json!({"bucket": "refused_keys"}));
        assert_eq!(
            (reply.header("x-ratelimit-limit"), reply.header("x-ratelimit-remaining")),
            (Some("100"), Some("0"))
        );
        assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    }
    assert_eq!(app.get(DELIVERIES).await.status, 200);
    let fresh = app.caller_of("Fresh", ALL_SCOPES).await;
    assert_eq!(fresh.get(DELIVERIES).await.status, 200, "a key that is not cached yet");
}

#[tokio::test]
async fn an_address_may_send_100_refused_keys_a_minute() {
    let app = App::start().await;
    check_the_limit(&app).await;
    app.clock().advance(Duration::from_secs(60));
    app.caller().without("authorization").get(DELIVERIES).await.error(401, "invalid_token");
}

#[tokio::test]
async fn the_limit_of_refused_keys_holds_on_postgresql() {
    let Some(database) = TestDatabase::new().await else { return };
    check_the_limit(&App::set_up().await.on(&Arc::new(database)).start().await).await;
}

#[tokio::test]
async fn a_key_created_by_another_node_works_within_5_seconds() {
    let app = App::start().await;
    let created = app.create_key("Acme", Mode::Live, ALL_SCOPES, None).await;
    let id = created.key.id.to_string();
    let caller = app.caller_with(created);
    // This node sees the writes of another node only in the database.
    let database = rusqlite::Connection::open(app.data_dir().join("postrider.db")).unwrap();
    let hash: Vec<u8> = database.query_row("SELECT hash FROM api_keys WHERE id = ?1", [&id], |row| row.get(0)).unwrap();
    let set = |hash: &[u8]| database.execute("UPDATE api_keys SET hash = ?2 WHERE id = ?1", (&id, hash)).unwrap();
    set(&[0; 32]);
    caller.get(DELIVERIES).await.error(401, "invalid_token");
    set(&hash);
    caller.get(DELIVERIES).await.error(401, "invalid_token");
    app.clock().advance(limits::KEY_CACHE_TTL);
    assert_eq!(caller.get(DELIVERIES).await.status, 200);
}

#[tokio::test]
async fn a_key_created_here_works_at_once_after_refusals() {
    let app = App::start().await;
    for _ in 0..3 {
        app.caller()
            .key("scripe_sk_live_0000000000000000000000000000000000000000")
            .get(DELIVERIES)
            .await
            .error(401, "invalid_token");
        let caller = app.caller_of("Acme", ALL_SCOPES).await;
        assert_eq!(caller.get(DELIVERIES).await.status, 200);
    }
}
