//! The script of the pages, on a page that the test changes at will.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::header::{CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::server::receiver::{Answer, Receiver};
use crate::support::server::wait::eventually;
use crate::support::tab::{Tab, View};

const SCRIPT: &str = include_str!("../../crates/web/src/assets/pages.js");
const STYLE: &str = include_str!("../../crates/web/src/assets/pages.css");
const POLICY: &str =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'";

/// The site of one page.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Shown>>);

#[derive(Default)]
struct Shown {
    live: String,
    rows: String,
    script: String,
    asked: usize,
    unchanged: usize,
    sent: usize,
    gone: bool,
}

impl Pages {
    async fn serve() -> (Self, String) {
        let pages = Self::default();
        pages.change(|state| state.script = "/pages.js".to_owned());
        let script = get(async || ([("content-type", "text/javascript")], SCRIPT));
        let style = get(async || ([("content-type", "text/css")], STYLE));
        let router = Router::new()
            .route("/", get(page))
            .route("/sent", post(sent))
            .route("/pages.js", script)
            .route("/pages.css", style)
            .with_state(pages.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        (pages, format!("http://{address}/"))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// Waits until the page has asked `more` times from now on.
    async fn asked(&self, more: usize) {
        let from = self.change(|state| state.asked);
        eventually("a page that asks", || async { (self.change(|state| state.asked) >= from + more).then_some(()) })
            .await;
    }
}

async fn sent(State(pages): State<Pages>) -> Redirect {
    pages.change(|state| state.sent += 1);
    Redirect::to("/")
}

async fn page(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let (html, is_gone) = pages.change(|state| {
        state.asked += 1;
        let (live, rows, script) = (&state.live, &state.rows, &state.script);
        let html = format!(
            "<!DOCTYPE html><html lang=en><title>Page · Test</title><link rel=stylesheet href=/pages.css>
            <link rel=icon href=data:,><script src={script} defer></script>
            <body data-copied=Copied data-select=Select data-signed-out='You are signed out.' data-upgraded='It was upgraded.'>
            <main><div id=live data-live=swap>{live}</div>
            <button hidden data-new-of=rows><span data-count></span> new</button>
            <table><tbody id=rows data-live=rows>{rows}</tbody></table>
            <form method=post action=/sent><input name=note><button>Send</button></form>
            <p><button class=needs-script hidden data-copy='copied — text'>Copy</button></p>
            <textarea id=paste></textarea></main></html>"
        );
        (html, state.gone)
    });
    if is_gone {
        return Redirect::to("/elsewhere").into_response();
    }
    let tag = format!("\"{}\"", html.len());
    if headers.get(IF_NONE_MATCH).is_some_and(|value| value == tag.as_str()) {
        pages.change(|state| state.unchanged += 1);
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(CONTENT_SECURITY_POLICY, POLICY), (ETAG, &tag)], Html(html)).into_response()
}

#[tokio::test]
async fn a_refresh_keeps_focus_scroll_and_open_details() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    let live = |word: &str| {
        format!("<p id=word>{word}</p><details><summary>More</summary><p>{word}</p></details><a href='#a'>One</a> <a href='#b' id=two>Two</a>
            {}", "<p>Long</p>".repeat(100))
    };
    pages.change(|state| state.live = live("before"));
    let tab = browser.tab(View::WIDE).await;
    tab.go(&url).await;
    tab.click("summary").await;
    tab.eval("document.querySelector('#two').focus({preventScroll: true}); scrollTo(0, 700)").await;
    pages.change(|state| state.live = live("afterwards"));
    tab.when("document.querySelector('#word').textContent === 'afterwards'").await;
    assert_eq!(tab.eval("document.activeElement.id").await, "two");
    assert_eq!(tab.eval("document.querySelector('details').open").await, true);
    assert_eq!(tab.eval("scrollY").await, 700);
    assert_eq!(tab.console(), [""; 0]);
}

#[tokio::test]
async fn a_refresh_waits_while_the_reader_types_or_selects() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    pages.change(|state| state.live = "<p id=word>before</p>".to_owned());
    let tab = browser.tab(View::WIDE).await;
    tab.go(&url).await;
    tab.fill("input[name=note]", "typed").await;
    pages.change(|state| state.live = "<p id=word>afterwards</p>".to_owned());
    let asked = pages.change(|state| state.asked);
    // The page is asked to refresh, as when its tab is shown again.
    tab.eval("document.dispatchEvent(new Event('visibilitychange'))").await;
    tab.eval("document.activeElement.blur(); getSelection().selectAllChildren(document.querySelector('#word'))").await;
    tab.eval("document.dispatchEvent(new Event('visibilitychange'))").await;
    assert_eq!(tab.text("document.querySelector('#word').textContent").await, "before");
    assert_eq!(pages.change(|state| state.asked), asked, "nothing was asked for");
    tab.eval("getSelection().removeAllRanges()").await;
    tab.when("document.querySelector('#word').textContent === 'afterwards'").await;
    assert_eq!(tab.text("document.querySelector('input[name=note]').value").await, "typed");
}

#[tokio::test]
async fn new_rows_wait_and_shown_rows_change_in_place() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    let row = |id: &str, word: &str| format!("<tr id={id}><td><input type=checkbox> {word}</td></tr>");
    pages.change(|state| state.rows = row("a", "pending") + &row("b", "pending"));
    let tab = browser.tab(View::WIDE).await;
    tab.go(&url).await;
    tab.click("#b input").await;
    pages.change(|state| {
        state.rows = row("c", "new") + &row("d", "new") + &row("a", "pending") + &row("b", "delivered")
    });
    tab.when("document.querySelector('[data-new-of]:not([hidden])')?.textContent.trim() === '2 new'").await;
    let shown = "[...document.querySelectorAll('tr')].map(row => row.id + row.innerText.trim())";
    assert_eq!(tab.eval(shown).await, json!(["apending", "bdelivered"]));
    assert_eq!(tab.eval("document.querySelector('#b input').checked").await, true);
}

#[tokio::test]
async fn an_unchanged_page_is_not_sent_again_nor_a_hidden_one() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    let tab = browser.tab(View::WIDE).await;
    tab.go(&url).await;
    pages.asked(2).await;
    assert!(pages.change(|state| state.unchanged) >= 1);

    tab.hide().await;
    tab.when("document.hidden").await;
    let asked = pages.change(|state| state.asked);
    // Another page that is shown refreshes meanwhile, so time has passed for both.
    let (others, other) = Pages::serve().await;
    let shown = browser.tab(View::WIDE).await;
    shown.go(&other).await;
    others.asked(2).await;
    assert_eq!(pages.change(|state| state.asked), asked, "a hidden page asks for nothing");
}

#[tokio::test]
async fn the_end_of_a_session_and_an_upgrade_are_told() {
    let Some(browser) = Browser::open().await else { return };
    for (word, is_gone) in [("signed out", true), ("upgraded", false)] {
        let (pages, url) = Pages::serve().await;
        let tab = browser.tab(View::WIDE).await;
        tab.go(&url).await;
        pages.change(|state| if is_gone { state.gone = true } else { state.script = "/pages-2.js".to_owned() });
        tab.when(&format!("document.querySelector('[role=status]')?.innerText.includes({word:?})")).await;
    }
}

#[tokio::test]
async fn a_double_click_sends_a_form_once_and_going_back_frees_it() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    let tab = browser.tab(View::WIDE).await;
    tab.go(&url).await;
    tab.go_by(tab.clicks("form button", 2)).await;
    assert_eq!(pages.change(|state| state.sent), 1);
    tab.go_back().await;
    tab.go_by(tab.click("form button")).await;
    assert_eq!(pages.change(|state| state.sent), 2);
}

/// Copies with the button, then pastes into the text area of the page.
async fn copies(tab: &Tab) {
    tab.watch_label("[data-copy]").await;
    tab.click("[data-copy]").await;
    tab.said_copied().await;
    tab.eval("document.querySelector('#paste').focus()").await;
    tab.paste().await;
    tab.when("document.querySelector('#paste').value === 'copied — text'").await;
}

#[tokio::test]
async fn copying_works_on_loopback_and_on_plain_http() {
    let Some(browser) = Browser::open().await else { return };
    let (_pages, url) = Pages::serve().await;
    for (url, is_secure) in [(url.clone(), true), (url.replace("127.0.0.1", "postrider.test"), false)] {
        let tab = browser.tab(View::WIDE).await;
        tab.go(&url).await;
        assert_eq!(tab.eval("isSecureContext").await, is_secure);
        copies(&tab).await;
    }
}

#[tokio::test]
async fn copying_works_in_a_frame_without_permission() {
    let Some(browser) = Browser::open().await else { return };
    let (_pages, url) = Pages::serve().await;
    let shop = Receiver::start().await;
    let frame = format!("<!DOCTYPE html><title>Shop</title><iframe src={url:?} width=600 height=400></iframe>");
    shop.otherwise(Answer::status(200).header("content-type", "text/html").body(frame));
    let tab = browser.tab(View::WIDE).await;
    tab.go(&shop.url_at("shop.test", "/")).await;
    let inside = tab.frame(&url).await;
    // A click of a reader gives the frame what a script cannot: the right to copy.
    let place = inside
        .eval(
            "(() => { const box = document.querySelector('[data-copy]').getBoundingClientRect();
        return [box.x + 5, box.y + 5] })()",
        )
        .await;
    let corner = tab
        .eval(
            "(() => { const box = document.querySelector('iframe').getBoundingClientRect();
        return [box.x, box.y] })()",
        )
        .await;
    let at = |axis: usize| place[axis].as_f64().unwrap() + corner[axis].as_f64().unwrap() + 2.0;
    inside.watch_label("[data-copy]").await;
    // A frame of another site is drawn by a process of its own. Until then a click at its place reaches nothing.
    let copied = || async {
        tab.click_at(at(0), at(1), 1).await;
        (inside.eval("labels.includes('Copied')").await == true).then_some(())
    };
    eventually("a copy by a click in the frame", copied).await;
}

#[tokio::test]
async fn without_script_nothing_that_needs_it_is_shown() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    let tab = browser.tab(View::WIDE.without_script()).await;
    tab.go(&url).await;
    assert_eq!(tab.eval("document.querySelector('[data-copy]').offsetWidth").await, 0);
    tab.go_by(tab.click("form button")).await;
    assert_eq!(pages.change(|state| state.sent), 1);
}

/// A browser opens six connections to a host over HTTP/1.1, for all of its tabs.
#[tokio::test]
async fn more_tabs_than_connections_all_refresh() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    let mut tabs = Vec::new();
    for _ in 0..8 {
        let tab = browser.tab(View::WIDE).await;
        assert_eq!(tab.go(&url).await.status, 200);
        tabs.push(tab);
    }
    pages.change(|state| state.live = "<p id=word>afterwards</p>".to_owned());
    for tab in &tabs {
        tab.when("document.querySelector('#word')?.textContent === 'afterwards'").await;
    }
}

/// What the server says of time does not depend on the reader's zone or clock. The title adds the reader's own time.
#[tokio::test]
async fn no_zone_and_no_wrong_clock_change_what_is_said() {
    let Some(browser) = Browser::open().await else { return };
    let (pages, url) = Pages::serve().await;
    // The clocks of Berlin go back between these two.
    let time =
        |at: &str| format!("<time datetime=2026-10-25T{at}:00.000Z title='25 Oct 2026, {at}:00 UTC'>3 s ago</time>");
    pages.change(|state| state.live = time("00:30") + &time("01:30"));
    for (zone, shown) in [
        ("Europe/Berlin", ["2:30:00 AM GMT+2", "2:30:00 AM GMT+1"]),
        ("Pacific/Kiritimati", ["2:30:00 PM GMT+14", "3:30:00 PM GMT+14"]),
    ] {
        let tab = browser.tab(View::WIDE).await;
        tab.call("Emulation.setTimezoneOverride", json!({"timezoneId": zone})).await;
        let slow = json!({"source": "Date.now = () => 0"});
        tab.call("Page.addScriptToEvaluateOnNewDocument", slow).await;
        tab.go(&url).await;
        let texts = tab.eval("[...document.querySelectorAll('time')].map((time) => time.textContent)").await;
        assert_eq!(texts, json!(["3 s ago", "3 s ago"]));
        let titles = tab
            .eval("[...document.querySelectorAll('time')].map((time) => time.title.replaceAll('\\u202f', ' '))")
            .await;
        for (index, local) in shown.iter().enumerate() {
            let title = titles[index].as_str().expect("a title");
            assert!(title.contains("UTC") && title.contains(local), "{zone}: {title}");
        }
    }
}
