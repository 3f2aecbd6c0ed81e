//! What the log must not hold, at its most talkative and in both formats: keys, codes, cookies, secrets.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::new_data_dir;
use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::process::{Serving, command, create_key, path_text, postrider};
use crate::support::receiver::{Answer, Receiver};
use crate::support::visitor::{cookie_of, path_of};

const SCOPES: &[&str] = &[
    "--workspace",
    "Acme",
    "--scope",
    "webhooks:manage",
    "--scope",
    "events:write",
    "--scope",
    "portal:create",
    "--scope",
    "dashboard",
];

/// The token of a cookie that an answer sets.
fn token(cookie: &str) -> String {
    cookie.split_once('=').expect("a value").1.to_owned()
}

fn code(link: &str) -> String {
    link.split_once("code=").expect("a code").1.lines().next().expect("a line").to_owned()
}

/// A browser of the server, which sends forms.
fn browser(caller: &Caller) -> Caller {
    Caller::stranger(caller.address())
        .with("content-type", "application/x-www-form-urlencoded")
        .with("sec-fetch-site", "same-origin")
}

/// Opens the portal in each way that is right or wrong. Returns the code and the token.
async fn visit_the_portal(caller: &Caller) -> [String; 2] {
    let link = text(&caller.post("/v1/portal-sessions", json!({"projectId": "p"})).await.data(200), "url");
    let (path, code) = (path_of(&link), code(&link));
    let base = path.split("/open").next().unwrap();
    let stranger = browser(caller).with("referer", &link);
    assert_eq!(stranger.send(Method::HEAD, &path, Bytes::new()).await.status, 200);
    let opened = stranger.get(&path).await;
    assert_eq!(opened.status, 303, "{}", opened.text());
    let cookie = cookie_of(&opened).to_owned();
    let customer = stranger.with("cookie", &cookie);
    for query in [String::new(), format!("?code={code}"), format!("?q={}", token(&cookie))] {
        for page in ["", "/endpoints/new", "/nowhere", "/no-cookie", "/ended"] {
            customer.get(&format!("{base}{page}{query}")).await;
        }
    }
    let form = format!("name={code}&url={}", token(&cookie));
    customer.send(Method::POST, &format!("{base}/endpoints/new"), form.clone()).await;
    customer.with("sec-fetch-site", "cross-site").send(Method::POST, &format!("{base}/endpoints/new"), form).await;
    let other = format!("{base}/open?code={}", code.chars().rev().collect::<String>());
    assert_eq!(stranger.get(&other).await.status, 401);
    [code, token(&cookie)]
}

/// Signs in by a link and by the key. Returns the code and both tokens.
async fn visit_the_dashboard(caller: &Caller, data_dir: &str, key: &str) -> [String; 3] {
    let printed = postrider(&["dashboard", "login", "--workspace", "Acme", "--data-dir", data_dir]).await;
    let link_code = code(&printed.stdout);
    let stranger = browser(caller).with("referer", printed.stdout.lines().next().unwrap());
    assert_eq!(stranger.get(&format!("/dashboard/login?code={link_code}")).await.status, 200);
    let mut tokens = Vec::new();
    for form in [format!("code={link_code}"), format!("key={key}")] {
        let signed_in = stranger.send(Method::POST, "/dashboard/login", form).await;
        assert_eq!(signed_in.status, 303, "{}", signed_in.text());
        let cookie = cookie_of(&signed_in).to_owned();
        let visitor = stranger.with("cookie", &cookie);
        assert_eq!(visitor.get("/dashboard").await.status, 200);
        visitor.get(&format!("/dashboard/search?q={}", token(&cookie))).await;
        tokens.push(token(&cookie));
    }
    let again = stranger.send(Method::POST, "/dashboard/login", format!("code={link_code}")).await;
    assert_eq!(again.status, 401, "{}", again.text());
    [link_code, tokens.remove(0), tokens.remove(0)]
}

#[tokio::test]
async fn no_code_cookie_key_or_secret_is_in_the_log() {
    for format in ["json", "text"] {
        let (_parent, data_dir) = new_data_dir();
        let key = text(&create_key(&data_dir, SCOPES).await, "key");
        let data_dir = path_text(&data_dir);
        let serve = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off", "--data-dir", data_dir];
        let log = ["--log", "trace", "--log-format", format, "--allow-target", "127.0.0.0/8"];
        let server = Serving::of(command(&[&serve[..], &log[..]].concat())).await;
        let caller = server.caller().key(&key);
        let receiver = Receiver::start().await;
        receiver.otherwise(Answer::status(500).body("an answer that is no line of a log"));
        let headers = json!({"x-token": "a-value-of-a-header"});
        let body = json!({"name": "A", "url": receiver.url("/"), "events": ["job.failed"], "headers": headers});
        let endpoint = caller.post("/v1/webhook-endpoints", body).await.data(200);
        caller.post("/v1/events", json!({"type": "job.failed", "data": {"word": "a-payload"}})).await.data(202);
        receiver.wait_for(1).await;
        let path = format!("/v1/webhook-endpoints/{}/rotate-secret", text(&endpoint, "id"));
        let rotated = caller.post(&path, json!({})).await.data(200);
        let mut secrets = vec![key.clone(), text(&endpoint, "secret"), text(&rotated, "secret")];
        secrets.extend(["a-value-of-a-header", "a-payload", "an answer that is no line"].map(str::to_owned));
        secrets.extend(visit_the_portal(&caller).await);
        secrets.extend(visit_the_dashboard(&caller, data_dir, &key).await);
        server.tell_to_stop().await;
        let log = server.ended().await.1.join("\n");
        for known in
            ["request answered", "/v1/webhook-endpoints", "/v1/portal-sessions", "portal opened", "endpoint created"]
        {
            assert!(log.contains(known), "{format}: the log does not mention {known}:\n{log}");
        }
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{format}: {secret} is in the log");
        }
    }
}
