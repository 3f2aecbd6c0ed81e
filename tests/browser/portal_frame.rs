//! The portal in frames of other sites: who may show it, and the messages between it and the page around.

use std::time::Duration;

use postrider_domain::portal::FrameAncestor;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::server::receiver::{Answer, Receiver};
use crate::support::server::tls::TestCa;
use crate::support::server::wait::eventually;
use crate::support::session::Session;
use crate::support::tab::{Tab, View};

/// A server over https at `hooks.test`, and a shop at `shop.test` and `mall.test` that may show its portal.
struct Fair {
    desk: Desk,
    shop: Receiver,
    ca: TestCa,
    /// Calls the API: the other callers of these tests speak plain HTTP.
    server: Tab,
    _directory: tempfile::TempDir,
}

/// A page that shows another one, keeps what it says, and can answer.
const AROUND: &str = "<!DOCTYPE html><title>Around</title><link rel=icon href=data:,>
    <script>const seen = []; addEventListener('message', (event) => seen.push({...event.data, from: event.origin}));
    const say = (message) => frames[0].postMessage(message, '*');</script>";

fn html(body: impl Into<Vec<u8>>) -> Answer {
    Answer::status(200).header("content-type", "text/html").body(body)
}

fn showing(url: &str) -> Answer {
    html(format!("{AROUND}<iframe width=900 height=700 src={url:?}></iframe>"))
}

/// The origin of a receiver at a name.
fn origin(receiver: &Receiver, host: &str) -> String {
    receiver.url_at(host, "/").trim_end_matches('/').to_owned()
}

impl Fair {
    async fn open() -> Option<Self> {
        let ca = TestCa::new();
        let shop = Receiver::start_tls(&ca.leaf(&["shop.test", "mall.test"])).await;
        let directory = tempfile::tempdir().expect("a directory");
        let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
        let (chain_pem, key_pem) = ca.leaf_pem(&["hooks.test"]);
        std::fs::write(&chain, chain_pem).expect("a file");
        std::fs::write(&key, key_pem).expect("a file");
        let listed = ["shop.test", "mall.test"];
        let ancestors = listed.map(|host| FrameAncestor::parse(&origin(&shop, host)).expect("an origin"));
        let desk = Desk::open_with(|settings| {
            settings.tls_cert_file = Some(chain);
            settings.tls_key_file = Some(key);
            settings.portal.frame_ancestors = ancestors.to_vec();
        });
        let desk = desk.await?;
        let server = desk.browser.tab(View::WIDE).await;
        let port = desk.app.server().address().port();
        server.go(&format!("https://hooks.test:{port}/dashboard/login")).await;
        Some(Self { desk, shop, ca, server, _directory: directory })
    }

    async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let headers = json!({"authorization": format!("Bearer {}", self.desk.key), "content-type": "application/json"});
        let options = json!({"method": method, "headers": headers, "body": body.map(|body| body.to_string())});
        let answer = self.server.eval(&format!("fetch({path:?}, {options}).then((answer) => answer.json())")).await;
        assert!(answer["error"].is_null(), "{method} {path}: {answer}");
        answer["data"].clone()
    }

    fn hooks(&self) -> String {
        format!("https://hooks.test:{}", self.desk.app.server().address().port())
    }

    /// The link of a new session, as the browser of this test reaches it.
    async fn link(&self, more: Value) -> String {
        let mut body = json!({"projectId": "proj_a", "expiresIn": 300});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let made = self.api("POST", "/v1/portal-sessions", Some(body)).await;
        let url = made["url"].as_str().expect("a URL");
        format!("{}{}", self.hooks(), &url[url.find("/portal/").expect("a path")..])
    }

    /// The shop's page with the portal in its frame.
    async fn visit(&self, more: Value) -> (Tab, Session) {
        self.shop.otherwise(showing(&self.link(more).await));
        let tab = self.desk.browser.tab(View::WIDE).await;
        tab.go(&self.shop.url_at("shop.test", "/")).await;
        let inside = tab.frame(&format!("{}/portal/", self.hooks())).await;
        (tab, inside)
    }

    /// What the portal said of this kind to the shop.
    async fn told(&self, tab: &Tab, kind: &str) -> Value {
        let find = format!("seen.findLast((it) => it.type === 'postrider:{kind}')");
        tab.when(&format!("{find} !== undefined")).await;
        let told = tab.eval(&find).await;
        assert_eq!(told["from"], self.hooks(), "{told}");
        told
    }
}

/// The start of the paths of a link's session.
fn base(link: &str) -> &str {
    link.split("/open").next().expect("a base")
}

#[tokio::test]
async fn the_page_around_hears_the_height_and_when_the_session_ends() {
    let Some(fair) = Fair::open().await else { return };
    let (tab, inside) = fair.visit(json!({})).await;
    // The first layout may be followed by another one.
    let same = || async {
        let height = inside.eval("Math.ceil(document.documentElement.getBoundingClientRect().height)").await;
        (fair.told(&tab, "height").await["height"] == height).then_some(height)
    };
    let height = eventually("the height that the portal has", same).await;
    inside.eval("document.querySelector('main').append(Object.assign(document.createElement('hr'), {style: 'height: 999px'}))").await;
    tab.when(&format!("seen.some((it) => it.height > {height} + 900)")).await;

    let expiring = fair.told(&tab, "expiring").await;
    assert_eq!(expiring["expiresAt"], "2026-05-15T12:05:00.000Z");
    assert_eq!(tab.eval("seen.some((it) => it.type === 'postrider:expired')").await, false);
    fair.desk.app.clock().advance(Duration::from_secs(301));
    inside.reload().await;
    fair.told(&tab, "expired").await;
    inside.when("document.title.startsWith('Your session has ended')").await;
    let again = fair.link(json!({})).await;
    tab.eval(&format!("say({{type: 'postrider:renew', url: {again:?}}})")).await;
    let there = format!("location.href.startsWith({:?}) && document.readyState === 'complete'", base(&again));
    inside.when(&there).await;
    assert!(inside.text("document.body.innerText").await.contains("Endpoints"));
}

/// Sends a form when the session has ended: nothing is lost until the page around renews it.
#[tokio::test]
async fn what_was_typed_survives_the_end_and_the_renewal_of_a_session() {
    let Some(fair) = Fair::open().await else { return };
    fair.desk.app.clock().advance(Duration::from_secs(1));
    let (tab, inside) = fair.visit(json!({"next": "/endpoints/new"})).await;
    inside.when("document.querySelector('input[name=name]') !== null").await;
    // The page is loaded in the last minute of the session, so it ends at once for its reader.
    fair.desk.app.clock().advance(Duration::from_secs(299));
    inside.reload().await;
    fair.told(&tab, "expired").await;
    inside.when("document.querySelector('.stale') !== null").await;
    fair.desk.app.clock().advance(Duration::from_secs(60));
    let typed = "document.querySelector('input[name=name]').value = 'Typed for long';
        document.querySelector('input[name=url]').value = 'https://hooks.example.com/a';
        document.querySelector('input[name=events], input[name=all]')?.click()";
    inside.eval(typed).await;
    inside.eval("document.querySelector('main form.form button[type=submit], main form button.primary').click()").await;
    tab.when("seen.filter((it) => it.type === 'postrider:expired').length > 1").await;
    assert_eq!(inside.text("document.querySelector('input[name=name]').value").await, "Typed for long");

    let link = fair.link(json!({})).await;
    tab.eval(&format!("say({{type: 'postrider:renew', url: {link:?}}})")).await;
    inside.when(&format!("location.href === {:?}", format!("{}/endpoints/new", base(&link)))).await;
    inside.when("document.querySelector('.stale') === null").await;
    assert_eq!(inside.text("document.querySelector('input[name=name]').value").await, "Typed for long");
    let old = "[...document.querySelectorAll('[href], [action]')].map((it) => it.getAttribute('action') ?? it.getAttribute('href'))
        .filter((path) => path.includes('/portal/pts_'))";
    let paths = inside.eval(old).await;
    let path = &base(&link)[fair.hooks().len()..];
    assert!(paths.as_array().expect("a list").iter().all(|it| it.as_str().unwrap().starts_with(path)), "{paths}");
    inside.eval("document.querySelector('main form.form button[type=submit], main form button.primary').click()").await;
    let made = || async {
        let listed = fair.api("GET", "/v1/webhook-endpoints?projectId=proj_a", None).await;
        (listed[0]["name"] == "Typed for long").then_some(())
    };
    eventually("an endpoint of the typed form", made).await;
}

#[tokio::test]
async fn only_the_page_around_renews_and_only_to_the_portal() {
    let Some(fair) = Fair::open().await else { return };
    let foreign = Receiver::start_tls(&fair.ca.leaf(&["foreign.test"])).await;
    let (stranger, wanted) = (fair.link(json!({})).await, fair.link(json!({})).await);
    let renew = |url: &str| format!("{{type: 'postrider:renew', url: {url:?}}}");
    // A frame beside the portal's, of another site, tries it too.
    let tries = format!(
        "<script>parent.frames[0].postMessage({}, '*'); parent.postMessage({{type: 'tried'}}, '*')</script>",
        renew(&stranger)
    );
    foreign.otherwise(html(tries));
    let (tab, inside) = fair.visit(json!({})).await;
    let (own, from) = (inside.text("location.href").await, inside.events().count());
    let beside = format!(
        "document.body.append(Object.assign(document.createElement('iframe'), {{src: {:?}}}))",
        foreign.url_at("foreign.test", "/")
    );
    tab.eval(&beside).await;
    tab.when("seen.some((it) => it.type === 'tried')").await;
    for bad in [
        renew(&foreign.url_at("foreign.test", "/portal/x/open?code=y")),
        renew(&format!("{}/dashboard/login", fair.hooks())),
        renew(&format!("{}/portal/../dashboard", fair.hooks())),
        renew("javascript:alert(1)"),
        renew("/portal/x"),
        "{type: 'postrider:renew'}".to_owned(),
        "{type: 'renew', url: location.href}".to_owned(),
        "null".to_owned(),
    ] {
        tab.eval(&format!("say({bad})")).await;
    }
    assert_eq!(inside.text("location.href").await, own);
    tab.eval(&format!("say({})", renew(&wanted))).await;
    inside.when(&format!("location.href.startsWith({:?})", base(&wanted))).await;
    let opened: Vec<String> =
        inside.requests(from).into_iter().map(|it| it.url).filter(|url| url.contains("/open")).collect();
    assert_eq!(opened, [wanted], "only the last one was followed");
    assert!(foreign.received().iter().all(|request| request.path == "/"), "{:?}", foreign.received());
    assert_eq!(inside.console(), [] as [String; 0]);
}

#[tokio::test]
async fn each_page_around_the_portal_must_be_listed() {
    let Some(fair) = Fair::open().await else { return };
    let foreign = Receiver::start_tls(&fair.ca.leaf(&["foreign.test"])).await;
    let shop = fair.shop.url_at("shop.test", "/");
    // Unlisted; listed inside unlisted; listed by the setting but not by the session.
    let link = fair.link(json!({})).await;
    foreign.otherwise(showing(&link));
    refused(&fair.desk.browser, &foreign.url_at("foreign.test", "/"), &link).await;
    fair.shop.otherwise(showing(&fair.link(json!({})).await));
    foreign.otherwise(showing(&shop));
    refused(&fair.desk.browser, &foreign.url_at("foreign.test", "/"), &fair.hooks()).await;
    let none = fair.link(json!({"frameAncestors": []})).await;
    fair.shop.otherwise(showing(&none));
    refused(&fair.desk.browser, &shop, &none).await;
    let (_tab, inside) = fair.visit(json!({})).await;
    assert!(inside.text("document.body.innerText").await.contains("Endpoints"));
}

/// A frame with `sandbox` and without `allow-same-origin` is an origin of its own. It shows pages, and its forms come
/// from nowhere: the page that answers them says what to do.
#[tokio::test]
async fn a_form_of_a_sandboxed_frame_is_refused_with_the_reason() {
    let Some(fair) = Fair::open().await else { return };
    let link = fair.link(json!({"next": "/endpoints/new"})).await;
    let frame =
        format!("{AROUND}<iframe sandbox='allow-scripts allow-forms' width=900 height=700 src={link:?}></iframe>");
    fair.shop.otherwise(html(frame));
    let tab = fair.desk.browser.tab(View::WIDE).await;
    tab.go(&fair.shop.url_at("shop.test", "/")).await;
    let inside = tab.frame(base(&link)).await;
    assert_eq!(inside.text("self.origin").await, "null");
    let fill = "document.querySelector('input[name=name]').value = 'Sandboxed';
        document.querySelector('input[name=url]').value = 'https://hooks.example.com/a';
        document.querySelector('[value=\"post.created\"]').checked = true";
    inside.eval(fill).await;
    inside.leave_by("document.querySelector('main form.form button.primary').click()").await;
    let page = inside.text("document.querySelector('main').innerText").await;
    assert!(page.contains("Origin held “null”") && page.contains("allow-same-origin"), "{page}");
    let made = fair.api("GET", "/v1/webhook-endpoints?projectId=proj_a", None).await;
    assert_eq!(made, json!([]), "nothing was changed");
}

#[tokio::test]
async fn nested_pages_show_the_portal_if_each_is_listed() {
    let Some(fair) = Fair::open().await else { return };
    let (shop, mall) = (fair.shop.url_at("shop.test", "/"), fair.shop.url_at("mall.test", "/"));
    // The mall shows the shop, which shows the portal.
    let nest = |link: String| {
        let shop = shop.clone();
        fair.shop.decide(move |request| {
            let is_mall = request.header("host").is_some_and(|host| host.starts_with("mall."));
            showing(if is_mall { &shop } else { &link }).into()
        });
    };
    nest(fair.link(json!({})).await);
    let tab = fair.desk.browser.tab(View::WIDE).await;
    tab.go(&mall).await;
    let between = tab.frame(&shop).await;
    let inside = between.frame(&format!("{}/portal/", fair.hooks())).await;
    inside.reload().await;
    assert!(inside.text("document.body.innerText").await.contains("No endpoint yet"));
    between.when("seen.some((it) => it.type === 'postrider:height')").await;
    let told = tab.eval("seen.filter((it) => String(it.type).startsWith('postrider:'))").await;
    assert_eq!(told, json!([]), "only the page that has the frame is told");
    assert_eq!(inside.console(), [""; 0]);
    // A session that lists the shop alone is not shown in the mall.
    let link = fair.link(json!({"frameAncestors": [origin(&fair.shop, "shop.test")]})).await;
    nest(link.clone());
    refused(&fair.desk.browser, &mall, &link).await;
}

/// Opens a page, and waits until the browser has refused to show what it frames.
async fn refused(browser: &Browser, around: &str, framed: &str) {
    let tab = browser.tab(View::WIDE).await;
    tab.go(around).await;
    let says = || async {
        let mut console = tab.console();
        for attached in tab.events().named("Target.attachedToTarget", 0) {
            let frame = tab.beside(attached["sessionId"].as_str().expect("an id"));
            if frame.listen().await.is_ok() {
                console.extend(frame.console());
            }
        }
        console.iter().any(|line| line.contains("frame-ancestors")).then_some(())
    };
    eventually(&format!("a refusal of {framed} in {around}"), says).await;
}
