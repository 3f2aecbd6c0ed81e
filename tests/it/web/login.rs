//! The page of the sign-in, as a stranger sees it.

use crate::support::app::App;
use crate::support::caller::Reply;

const OPENER: &str = "cross-origin-opener-policy";

async fn asked_as(app: &App, host: &str) -> Reply {
    let reply = app.caller().without("authorization").with("host", host).get("/dashboard/login").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

fn warns(reply: &Reply) -> bool {
    reply.text().contains("This page came over plain http")
}

#[tokio::test]
async fn without_a_public_url_the_name_in_the_request_decides() {
    let app = App::start().await;
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "[::1]", "LOCALHOST"] {
        let reply = asked_as(&app, host).await;
        assert_eq!((reply.header(OPENER), warns(&reply)), (Some("same-origin"), false), "{host}");
    }
    for host in ["192.168.7.7:8080", "hooks.test", "127.0.0.1.example.com:80", "localhost.example.com"] {
        let reply = asked_as(&app, host).await;
        assert_eq!((reply.header(OPENER), warns(&reply)), (None, true), "{host}");
    }
}

#[tokio::test]
async fn with_a_public_url_the_name_in_the_request_does_not_matter() {
    let set_up = |url: &'static str| async move {
        App::set_up().await.change(|settings| settings.public_url = Some(url.to_owned())).start().await
    };
    let plain = set_up("http://hooks.test").await;
    let reply = asked_as(&plain, "localhost:8080").await;
    assert_eq!((reply.header(OPENER), warns(&reply)), (None, true), "a proxy may set the name");
    let secure = set_up("https://hooks.test").await;
    let reply = asked_as(&secure, "192.168.7.7:8080").await;
    assert_eq!((reply.header(OPENER), warns(&reply)), (Some("same-origin"), false));
}
