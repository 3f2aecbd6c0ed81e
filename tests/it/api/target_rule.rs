//! The operator's rules about targets, as customers meet them.

use serde_json::{Value, json};

use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::caller::{Caller, Reply};
use crate::support::dns::Answer;
use crate::support::receiver::{Receiver, ReservedPort};

async fn register(caller: &Caller, url: &str) -> Reply {
    let body = json!({"name": "A receiver", "url": url, "events": ["post.created"]});
    caller.post("/v1/webhook-endpoints", body).await
}

fn reason(reply: &Reply) -> Value {
    assert_eq!(reply.status, 422, "{}", reply.json());
    reply.json()["error"]["details"]["reason"].clone()
}

#[tokio::test]
async fn a_rule_opens_one_port_with_one_scheme() {
    let receiver = Receiver::start().await;
    let rule = format!("http://127.0.0.1:{}", receiver.address().port());
    let app = App::set_up().await.allow(&rule).start().await;
    app.endpoint_at(&receiver.url("/hook"), &["post.created"]).await;
    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    let https = receiver.url("/hook").replace("http:", "https:");
    assert_eq!(reason(&register(app.caller(), &https).await), "loopback");
    assert_eq!(register(app.caller(), "http://127.0.0.1:1024/").await.status, 400, "plain http is for allowed targets");
}

#[tokio::test]
async fn a_rule_for_a_workspace_opens_nothing_to_another() {
    let receiver = Receiver::start().await;
    let mut app = App::start().await;
    let other = app.caller_of("Other", ALL_SCOPES).await;
    let acme = text(&app.get("/v1/workspaces/me").await.json()["workspace"], "id");
    app = app.change_settings(|settings| settings.allow_targets.push(format!("127.0.0.1=workspace:{acme}")));
    app.restart().await;
    let other = other.at(app.server().address());
    app.endpoint_to(&receiver, &["post.created"]).await;
    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    assert_eq!(register(&other, &receiver.url("/hook")).await.status, 400, "plain http");
    let https = receiver.url("/hook").replace("http:", "https:");
    assert_eq!(reason(&register(&other, &https).await), "loopback");
}

#[tokio::test]
async fn without_a_name_server_nobody_else_is_at_fault() {
    let (receiver, closed) = (Receiver::start().await, ReservedPort::reserve());
    let mut app = App::set_up().await.allow("hooks.test").start().await;
    app.dns().set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let url = receiver.url_at("hooks.test", "/hook");
    let endpoint = app.endpoint_at(&url, &["post.created"]).await;
    app = app.change_settings(|settings| settings.dns_servers = vec![closed.address()]);
    app.restart().await;
    let refused = register(app.caller(), &url).await;
    refused.error(503, "service_unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    let event = app.publish("post.created", json!({})).await;
    let delivery = app.attempted(&event, 1).await;
    assert_eq!(delivery["attempts"][0]["outcome"], "dns_unavailable");
    let shown = app.get(&format!("/v1/webhook-endpoints/{}", endpoint.id)).await.data(200);
    assert_eq!((&shown["health"]["failures"], &shown["health"]["disablesAt"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn a_denied_host_is_refused_although_it_is_allowed() {
    let mut set_up = App::set_up().await.allow("hooks.test");
    set_up.settings.deny_targets = vec!["127.0.0.0/8".to_owned(), "evil.test".to_owned()];
    let app = set_up.start().await;
    app.dns().set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    app.dns().set("evil.test", Answer::addresses(&["93.184.215.14"]));
    for host in ["hooks.test", "evil.test"] {
        let refused = register(app.caller(), &format!("https://{host}/")).await;
        assert_eq!(reason(&refused), "denied");
        assert_eq!(refused.json()["error"]["details"]["host"], host);
    }
}

#[tokio::test]
async fn the_host_of_the_operator_webhook_is_closed_to_customers() {
    let operations = Receiver::start().await;
    let url = operations.url("/operations");
    let app = App::set_up().await.change(|settings| settings.operator_webhook_url = Some(url.clone())).start().await;
    assert_eq!(register(app.caller(), &url).await.status, 400);
}

#[tokio::test]
async fn a_registration_by_a_neighbour_does_not_disable_an_endpoint() {
    let receiver = Receiver::start().await;
    let app = App::to_loopback().await;
    let neighbour = app.caller_of("Other", ALL_SCOPES).await;
    app.dns().set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let url = receiver.url_at("hooks.test", "/hook");
    let endpoint = app.endpoint_at(&url, &["post.created"]).await;
    app.dns().set("hooks.test", Answer::addresses(&["10.0.0.1"]));
    for caller in [&neighbour, app.caller()] {
        assert_eq!(reason(&register(caller, &url).await), "private");
        let event = app.publish("post.created", json!({})).await;
        app.delivery_ended(&event, "delivered").await;
    }
    let kept = app.get(&format!("/v1/webhook-endpoints/{}", endpoint.id)).await.data(200);
    assert_eq!(kept["isActive"], true);
    assert_eq!(receiver.counts().connections, 1, "the connection stays open");
}
