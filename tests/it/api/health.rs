//! `/v1/health`.

use crate::support::app::App;
use crate::support::caller::Caller;

#[tokio::test]
async fn health_needs_no_key() {
    let app = App::start().await;
    let reply = Caller::stranger(app.server().address()).get("/v1/health").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text(), format!("{{\"status\":\"ok\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn health_ignores_an_unknown_key() {
    let app = App::start().await;
    assert_eq!(app.caller().key("scripe_sk_live_nonsense").get("/v1/health").await.status, 200);
}
