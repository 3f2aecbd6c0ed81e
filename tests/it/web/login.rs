//! The sign-in: its page as a stranger sees it, which requests it takes, and where it leads.

use http::Method;
use postrider::server::admin::{self, AdminRequest, AdminResponse, CreateLogin};
use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::caller::{Caller, Reply};
use crate::support::visitor::{EVERYTHING, Visitor, attributes, cookie_of};

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

/// The pages as a browser asks for them, behind whatever is between.
fn asking(app: &App) -> Caller {
    app.caller().without("authorization").with("content-type", "application/x-www-form-urlencoded")
}

async fn key(app: &App) -> String {
    app.create_key("Acme", Mode::Live, EVERYTHING, None).await.secret.reveal().to_owned()
}

#[tokio::test]
async fn only_forms_of_the_dashboard_change_anything() {
    let app = App::start().await;
    let form = format!("key={}", key(&app).await);
    let own = format!("http://{}", app.server().address());
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let fields = [("once", "t"), ("name", "A"), ("url", "https://hooks.example.com/"), ("events", "post.created")];
    for (name, value, says) in [
        ("sec-fetch-site", "cross-site", "The header Sec-Fetch-Site held “cross-site”; expected was “same-origin”."),
        ("sec-fetch-site", "same-site", "The header Sec-Fetch-Site held “same-site”"),
        ("origin", "null", "add allow-same-origin"),
        ("origin", "http://evil.example", "The header Origin held “http://evil.example”"),
    ] {
        let refused = asking(&app).with(name, value).send(Method::POST, "/dashboard/login", form.clone()).await;
        assert!(refused.status == 403 && refused.text().contains(says), "{}: {}", refused.status, refused.text());
        assert_eq!(refused.header("set-cookie"), None);
        // The visitor of the tests says that the request is of the same origin.
        if value != "http://evil.example" {
            let refused = visitor.with(name, value).post("/dashboard/endpoints/new", &fields).await;
            assert_eq!(refused.status, 403, "{}", refused.text());
        }
    }
    let neither = asking(&app).send(Method::POST, "/dashboard/login", form.clone()).await;
    assert!(
        neither.status == 403 && neither.text().contains("neither Sec-Fetch-Site nor Origin"),
        "{}",
        neither.text()
    );
    // Plain http by name: the browser sends no Sec-Fetch-Site.
    let passed = asking(&app).with("origin", &own).send(Method::POST, "/dashboard/login", form).await;
    assert_eq!(passed.status, 303, "{}", passed.text());
    let none: &[Value] = &[];
    assert_eq!(app.get("/v1/webhook-endpoints").await.data(200), json!(none));
}

#[tokio::test]
async fn a_proxy_may_rewrite_the_host_below_a_public_url() {
    let public = "https://hooks.example.com";
    let app = App::set_up().await.change(|settings| settings.public_url = Some(public.to_owned())).start().await;
    let form = format!("key={}", key(&app).await);
    let behind = asking(&app).with("host", "10.0.0.7:8080").with("origin", public);
    let passed = behind.send(Method::POST, "/dashboard/login", form.clone()).await;
    assert_eq!(passed.status, 303, "{}", passed.text());
    let cookie = passed.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-postrider=") && cookie.contains("Secure") && cookie.contains("HttpOnly"));
    let elsewhere = behind.with("origin", "https://10.0.0.7:8080").send(Method::POST, "/dashboard/login", form).await;
    assert!(elsewhere.status == 403 && elsewhere.text().contains("--public-url"), "{}", elsewhere.text());

    let app = App::start().await;
    let form = format!("key={}", key(&app).await);
    let behind = asking(&app).with("host", "10.0.0.7:8080").with("origin", public);
    let refused = behind.send(Method::POST, "/dashboard/login", form.clone()).await;
    assert!(
        refused.status == 403
            && refused.text().contains("Behind a proxy, set --public-url to the address in the browser."),
        "{}",
        refused.text()
    );
    let plain = behind.with("origin", "http://10.0.0.7:8080").send(Method::POST, "/dashboard/login", form).await;
    let cookie = plain.header("set-cookie").unwrap();
    assert!(cookie.starts_with("postrider=") && !cookie.contains("Secure"), "it would not come back: {cookie}");
}

#[tokio::test]
async fn a_look_at_a_sign_in_link_does_not_use_it_up() {
    let app = App::start().await;
    app.caller_of("Acme", &[Scope::WebhooksRead]).await;
    let create = CreateLogin { workspace: Some("Acme".to_owned()), ..CreateLogin::default() };
    let AdminResponse::LoginCreated(created) =
        admin::execute(app.server().operator(), AdminRequest::CreateLogin(create)).await
    else {
        panic!("no code");
    };
    let link = format!("/dashboard/login?code={}", created.code);
    let stranger = asking(&app).with("sec-fetch-site", "none");
    for (method, name, value) in [
        (Method::GET, "sec-fetch-mode", "navigate"),
        (Method::HEAD, "sec-fetch-mode", "navigate"),
        (Method::GET, "sec-purpose", "prefetch;prerender"),
        (Method::GET, "purpose", "prefetch"),
    ] {
        let looked = stranger.with(name, value).send(method, &link, "").await;
        assert_eq!((looked.status, looked.header("set-cookie")), (200, None));
    }
    let form = format!("code={}", created.code);
    assert_eq!(stranger.send(Method::POST, "/dashboard/login", form.clone()).await.status, 303);
    assert_eq!(stranger.send(Method::POST, "/dashboard/login", form).await.status, 401, "it works once");
}

#[tokio::test]
async fn a_sign_in_takes_no_token_that_came_with_it() {
    let app = App::start().await;
    let form = format!("key={}", key(&app).await);
    let stranger = asking(&app).with("sec-fetch-site", "same-origin");
    let planted = format!("postrider={}", "a".repeat(43));
    let victim = stranger.with("cookie", &planted);
    let first = victim.send(Method::POST, "/dashboard/login", form.clone()).await;
    let second = stranger.with("cookie", cookie_of(&first)).send(Method::POST, "/dashboard/login", form).await;
    let (first, second) = (cookie_of(&first).to_owned(), cookie_of(&second).to_owned());
    assert!(first != second && first != planted && second != planted);
    assert_eq!(stranger.with("cookie", &planted).get("/dashboard").await.status, 303);
    // Signing out ends the session at the server, even for one who still has the cookie.
    let signed_in = stranger.with("cookie", &first);
    assert_eq!(signed_in.get("/dashboard").await.status, 200);
    assert_eq!(signed_in.send(Method::POST, "/dashboard/logout", "").await.status, 303);
    assert_eq!(signed_in.get("/dashboard").await.status, 303);
    assert_eq!(stranger.with("cookie", &second).get("/dashboard").await.status, 200, "the other session goes on");
}

#[tokio::test]
async fn no_path_and_no_sign_in_lead_to_another_site() {
    let app = App::start().await;
    let form = format!("key={}", key(&app).await);
    let stranger = asking(&app).with("sec-fetch-site", "same-origin");
    for next in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/dashboard.evil.example",
        "/dashboardx",
        "javascript:alert(1)",
        "/portal/x",
    ] {
        let form = format!("{form}&next={}", next.replace(':', "%3A").replace('/', "%2F").replace('\\', "%5C"));
        let signed_in = stranger.send(Method::POST, "/dashboard/login", form).await;
        assert_eq!((signed_in.status, signed_in.header("location")), (303, Some("/dashboard")), "{next}");
    }
    for path in ["//evil.example/dashboard", "//dashboard", "/dashboard//endpoints", "/dashboard//evil.example"] {
        let reply = stranger.get(path).await;
        let location = reply.header("location").unwrap_or("/");
        assert!(location.starts_with('/') && !location.starts_with("//"), "{path} leads to {location}");
        assert!(matches!(reply.status, 303 | 404), "{path}: {}", reply.status);
    }
}

#[tokio::test]
async fn an_asset_of_another_version_is_not_found_and_not_kept() {
    let app = App::start().await;
    let page = app.caller().without("authorization").get("/dashboard/login").await;
    for current in attributes(page.text(), "src").into_iter().chain(attributes(page.text(), "href")) {
        let Some((name, _)) = current.strip_prefix("/assets/").and_then(|name| name.rsplit_once('.')) else { continue };
        let kept = app.caller().get(current).await;
        assert_eq!(kept.status, 200);
        assert!(kept.header("cache-control").is_some_and(|it| it.contains("immutable")), "{current}");
        let start = name.split_once('-').unwrap().0;
        let end = current.rsplit_once('.').unwrap().1;
        let old = app.caller().get(&format!("/assets/{start}-0123456789abcdef.{end}")).await;
        assert_eq!((old.status, old.header("cache-control")), (404, Some("no-store")));
    }
}
