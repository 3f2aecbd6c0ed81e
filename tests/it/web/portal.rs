//! The way into the portal and out of it: links, cookies, frames, the end of a session.

use std::time::Duration;

use http::Method;
use postrider::config::Settings;
use postrider_domain::access::{Mode, Scope};
use postrider_domain::portal::FrameAncestor;
use serde_json::json;

use crate::support::app::App;
use crate::support::caller::Reply;
use crate::support::visitor::{Visitor, browser, cookie_of, path_of, portal_link};

const SHOP: &str = "https://app.example.com";

fn ancestors(settings: &mut Settings) {
    let origins = [SHOP, "https://other.example.com"];
    settings.portal.frame_ancestors = origins.map(|origin| FrameAncestor::parse(origin).unwrap()).to_vec();
}

fn policy(reply: &Reply) -> &str {
    reply.header("content-security-policy").expect("a policy")
}

/// Where an answer leads, without the code.
fn leads_to(reply: &Reply) -> &str {
    assert_eq!(reply.status, 303, "{}", reply.text());
    reply.header("location").expect("a location").split('#').next().unwrap()
}

#[tokio::test]
async fn a_link_sets_the_cookie_of_its_path_and_leads_inside() {
    let app = App::start().await;
    let link = path_of(&portal_link(&app, json!({"projectId": "p", "next": "/endpoints/new?a=b"})).await);
    let base = link.split("/open").next().unwrap();
    let opened = browser(&app).get(&link).await;
    assert_eq!(leads_to(&opened), format!("{base}/endpoints/new?a=b&opened=1"));
    let cookie = opened.header("set-cookie").unwrap();
    assert!(cookie.starts_with("portal="), "{cookie}");
    assert!(cookie.ends_with(&format!("; Path={base}; HttpOnly; SameSite=Lax")), "{cookie}");
    let inside = browser(&app).with("cookie", cookie_of(&opened)).get(&format!("{base}/?opened=1")).await;
    assert_eq!(inside.status, 200, "{}", inside.text());
    assert_eq!(inside.header("referrer-policy"), Some("same-origin"));
    assert_eq!(inside.header("x-frame-options"), None);
    assert_eq!(inside.header("cache-control"), Some("no-store"));
    assert!(inside.text().contains("No endpoint yet"), "{}", inside.text());
}

#[tokio::test]
async fn over_https_the_cookie_comes_back_in_frames_of_other_sites() {
    let app =
        App::set_up().await.change(|settings| settings.public_url = Some("https://hooks.example.com/sub".to_owned()));
    let app = app.start().await;
    let link = portal_link(&app, json!({"projectId": "p"})).await;
    assert!(link.starts_with("https://hooks.example.com/sub/portal/pts_"), "{link}");
    let base = path_of(&link).split("/open").next().unwrap().to_owned();
    let opened = browser(&app).get(&path_of(&link)).await;
    assert_eq!(leads_to(&opened), format!("{base}/?opened=1"));
    let cookie = opened.header("set-cookie").unwrap();
    let rules = format!("; Path={base}; Secure; HttpOnly; SameSite=None; Partitioned");
    assert!(cookie.starts_with("__Secure-portal=") && cookie.ends_with(&rules), "{cookie}");
    // The proxy in front may strip the prefix.
    let customer = browser(&app).with("cookie", cookie_of(&opened));
    for path in [base.as_str(), base.strip_prefix("/sub").unwrap()] {
        let page = customer.get(&format!("{path}/endpoints")).await;
        assert!(
            page.status == 200 && page.text().contains(&format!("href=\"{base}/endpoints/new\"")),
            "{}",
            page.text()
        );
    }
}

#[tokio::test]
async fn a_look_at_a_link_does_not_use_it_up() {
    let app = App::start().await;
    let link = path_of(&portal_link(&app, json!({"projectId": "p"})).await);
    let stranger = browser(&app);
    for _ in 0..6 {
        let looked = stranger.send(Method::HEAD, &link, "").await;
        assert_eq!((looked.status, looked.header("set-cookie")), (200, None));
        for (name, value) in [("sec-purpose", "prefetch;prerender"), ("purpose", "Prefetch")] {
            let looked = stranger.with(name, value).get(&link).await;
            assert_eq!((looked.status, looked.header("set-cookie")), (503, None), "{name}");
        }
    }
    // A frame that is mounted twice opens it twice, each with a cookie that works.
    let (first, second) = tokio::join!(stranger.get(&link), stranger.get(&link));
    let inside = leads_to(&first).to_owned();
    for opened in [&first, &second] {
        assert_eq!(stranger.with("cookie", cookie_of(opened)).get(&inside).await.status, 200);
    }
    for _ in 0..3 {
        leads_to(&stranger.get(&link).await);
    }
    let sixth = stranger.get(&link).await;
    assert_eq!(sixth.status, 401);
    assert!(sixth.text().contains("This link no longer works"), "{}", sixth.text());
    // A visitor who is in just goes in, and uses nothing.
    let again = stranger.with("cookie", cookie_of(&first)).get(&link).await;
    assert_eq!((leads_to(&again), again.header("set-cookie")), (inside.split('?').next().unwrap(), None));
}

#[tokio::test]
async fn an_old_link_leads_inside_only_with_its_cookie() {
    let app = App::start().await;
    let link =
        path_of(&portal_link(&app, json!({"projectId": "p", "returnUrl": "https://app.example.com/hooks"})).await);
    let opened = browser(&app).get(&link).await;
    app.clock().advance(Duration::from_secs(301));
    let without = browser(&app).get(&link).await;
    assert_eq!(without.status, 401, "{}", without.text());
    assert!(without.text().contains("<a class=\"button\" href=\"https://app.example.com/hooks\" target=\"_top\">"));
    leads_to(&browser(&app).with("cookie", cookie_of(&opened)).get(&link).await);
    let (other, _) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    assert_eq!(other.get(&link).await.status, 401, "the cookie of another session");
}

#[tokio::test]
async fn a_frame_without_its_cookie_offers_a_tab() {
    let app = App::set_up().await.change(ancestors).start().await;
    let link = path_of(&portal_link(&app, json!({"projectId": "p", "locale": "de"})).await);
    let base = link.split("/open").next().unwrap();
    let opened = browser(&app).get(&link).await;
    let asked = browser(&app).get(leads_to(&opened)).await;
    assert_eq!(leads_to(&asked), format!("{base}/no-cookie"));
    let page = browser(&app).get(&format!("{base}/no-cookie")).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains(&format!("data-open=\"{base}/open\"")), "{}", page.text());
    assert!(page.text().contains("<html lang=\"de\">") && page.text().contains("In neuem Tab öffnen"));
    assert!(policy(&page).contains(&format!("frame-ancestors {SHOP} https://other.example.com")), "{}", policy(&page));
}

#[tokio::test]
async fn an_ended_session_says_so_on_every_page() {
    let app = App::set_up().await.change(ancestors).start().await;
    let body = json!({"projectId": "p", "returnUrl": "https://app.example.com/hooks", "frameAncestors": [SHOP]});
    let (customer, base) = Visitor::on_portal(&app, body).await;
    let form = [("name", "A"), ("url", "https://hooks.example.com/"), ("events", "post.created"), ("once", "t")];
    app.caller_of("Acme", &[Scope::PortalCreate]).await.delete("/v1/portal-sessions?projectId=p").await;
    for path in ["", "/", "/endpoints/new", "/deliveries", "/events", "/nowhere"] {
        let page = customer.get(&format!("{base}{path}")).await;
        assert_eq!(page.status, 401, "{path}");
        assert!(page.text().contains("Your session has ended") && page.text().contains("target=\"_top\""), "{path}");
        assert!(policy(&page).ends_with(&format!("frame-ancestors {SHOP}")), "{}", policy(&page));
    }
    let sent = customer.post(&format!("{base}/endpoints/new"), &form).await;
    assert_eq!(sent.status, 401);
    assert!(sent.text().contains("Nothing of the form was saved"), "{}", sent.text());
    assert_eq!(app.get("/v1/webhook-endpoints").await.data(200), json!([]));
    let page = browser(&app).get(&format!("{base}/ended")).await;
    assert!(page.status == 200 && page.text().contains("Your session has ended"), "{}", page.text());
    // A session that never was looks like one that nobody may frame.
    let unknown = browser(&app).get("/portal/pts_0000000000000000/").await;
    assert!(unknown.status == 401 && policy(&unknown).ends_with("frame-ancestors 'none'"), "{}", unknown.text());
}

#[tokio::test]
async fn a_session_ends_with_its_key_and_at_its_time() {
    let app = App::start().await;
    let key = app.create_key("Acme", Mode::Live, &[Scope::PortalCreate], None).await;
    let id = key.key.id;
    let made = app.caller_with(key).post("/v1/portal-sessions", json!({"projectId": "p"})).await.data(200);
    let (customer, base) = Visitor::at_link(&app, made["url"].as_str().unwrap()).await;
    let (short, short_base) = Visitor::on_portal(&app, json!({"projectId": "p", "expiresIn": 300})).await;
    customer.page(&base).await;
    short.page(&short_base).await;
    app.clock().advance(Duration::from_secs(300));
    assert_eq!(short.get(&short_base).await.status, 401);
    customer.page(&base).await;
    app.server().operator().revoke_api_key(id).await.unwrap();
    assert_eq!(customer.get(&base).await.status, 401, "without a wait");
}

#[tokio::test]
async fn only_forms_of_the_portal_itself_change_anything() {
    let app = App::set_up().await.change(ancestors).start().await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let path = format!("{base}/endpoints/new");
    for (name, value) in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "null")] {
        let reply = customer.with(name, value).post(&path, &[("name", "A")]).await;
        assert_eq!(reply.status, 403, "{name}: {value}");
        assert!(
            reply
                .text()
                .contains(&format!("The header {}", if name == "origin" { "Origin" } else { "Sec-Fetch-Site" }))
        );
        assert!(policy(&reply).contains(SHOP), "a refusal is readable in the frame");
    }
    let sandboxed = customer.with("origin", "null").post(&path, &[]).await;
    assert!(sandboxed.text().contains("allow-same-origin"), "{}", sandboxed.text());
}

#[tokio::test]
async fn the_code_and_the_token_stand_in_no_page() {
    let app = App::start().await;
    let link = path_of(&portal_link(&app, json!({"projectId": "p"})).await);
    let (path, code) = link.split_once("?code=").unwrap();
    let opened = browser(&app).get(&link).await;
    assert_eq!(opened.header("referrer-policy"), Some("no-referrer"));
    // The fragment is sent nowhere.
    assert!(opened.header("location").unwrap().ends_with(&format!("#code={code}")));
    assert!(!opened.text().contains(code));
    let customer = browser(&app).with("cookie", cookie_of(&opened));
    let token = cookie_of(&opened).split_once('=').unwrap().1;
    let base = path.strip_suffix("/open").unwrap();
    for path in ["", "/endpoints/new", "/deliveries", "/events", "/no-cookie", "/ended", "/nowhere"] {
        let page = customer.get(&format!("{base}{path}?code={code}")).await;
        assert!(!page.text().contains(token) && !page.text().contains(code), "{path}");
    }
    let wrong = browser(&app).get(&format!("{path}?code={}", "x".repeat(32))).await;
    assert!(wrong.status == 401 && !wrong.text().contains("xxxx"), "{}", wrong.text());
    assert_eq!(wrong.header("referrer-policy"), Some("no-referrer"));
    for secret in [code, token] {
        assert_eq!(app.files_holding(secret.as_bytes()), Vec::<String>::new(), "the store holds hashes");
    }
}

#[tokio::test]
async fn a_session_may_ask_for_600_pages_a_minute() {
    let app = App::start().await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let path = format!("{base}/nowhere");
    for _ in 0..600 {
        assert_eq!(customer.get(&path).await.status, 404);
    }
    let refused = customer.get(&path).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    let (other, other_base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    other.page(&other_base).await;
}
