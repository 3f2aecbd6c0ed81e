//! The rules that every page keeps: accessibility, layout, its title, its headers, and nothing from elsewhere.

use serde_json::Value;

use super::browser::axe;
use super::tab::{Loaded, Tab, View};
use super::tree::tree_faults;

/// The success criteria that are checked: WCAG 2.2, levels A and AA.
const TAGS: &str = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']";

/// The widths and schemes that every page is looked at in.
const VIEWS: [View; 4] = [View::WIDE, View::WIDE.dark(), View::NARROW, View::NARROW.dark()];

/// Opens a page and checks it in all views, with and without script. Writes pictures of it that bear `name`.
pub async fn check(tab: &Tab, url: &str, name: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let from = tab.events().count();
    tab.show(VIEWS[0]).await;
    let loaded = tab.go(url).await;
    faults.extend(header_faults(&loaded));
    let is_private = ["/dashboard", "/portal/"].iter().any(|start| url.contains(start));
    if is_private && loaded.headers["cache-control"] != "no-store" {
        faults.push(format!("it may be stored: {}", loaded.headers["cache-control"]));
    }
    tab.eval(axe()).await;
    for view in VIEWS {
        tab.show(view).await;
        faults.extend(axe_faults(tab).await);
        faults.extend(layout_faults(tab, view).await);
        let found = tree_faults(tab).await;
        faults.extend(found.into_iter().map(|fault| format!("at {} pixels {fault}", view.width)));
        tab.picture(&format!("{name}-{}-{}", view.width, view.scheme)).await;
    }
    tab.prefer("forced-colors", "active").await;
    tab.picture(&format!("{name}-320-forced")).await;
    tab.show_as_print().await;
    faults.extend(print_faults(tab).await);
    tab.picture(&format!("{name}-print")).await;
    for view in [View::WIDE, View::NARROW] {
        tab.show(view.without_script()).await;
        tab.go(url).await;
        faults.extend(markup_faults(tab).await);
        faults.extend(layout_faults(tab, view).await);
    }
    tab.show(View::WIDE).await;
    let origin = origin(url);
    // The browser draws its own controls, such as the calendar of a date, with images in data URLs.
    let is_ours = |url: &str| url.starts_with(&format!("{origin}/")) || url.starts_with("data:image/");
    let strange = tab.requests(from).into_iter().filter(|request| !is_ours(&request.url));
    faults.extend(strange.map(|request| format!("a request to {}", request.url)));
    faults.into_iter().map(|fault| format!("{name}: {fault}")).collect()
}

/// `http://127.0.0.1:8080` of a URL.
fn origin(url: &str) -> &str {
    let end = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
    &url[..end]
}

fn header_faults(loaded: &Loaded) -> Vec<String> {
    let header = |name: &str| loaded.headers[name].as_str().unwrap_or_default().to_owned();
    let mut faults = Vec::new();
    let policy = header("content-security-policy");
    for needed in ["default-src 'none'", "base-uri 'none'", "form-action ", "frame-ancestors "] {
        if !policy.contains(needed) {
            faults.push(format!("the policy lacks {needed:?}: {policy:?}"));
        }
    }
    for unsafe_word in ["unsafe", "nonce-", "http:", "https:", "*"] {
        if policy.contains(unsafe_word) {
            faults.push(format!("the policy has {unsafe_word:?}: {policy:?}"));
        }
    }
    if header("x-content-type-options") != "nosniff" {
        faults.push("no nosniff".to_owned());
    }
    if !["same-origin", "no-referrer"].contains(&header("referrer-policy").as_str()) {
        faults.push(format!("the referrer policy is {:?}", header("referrer-policy")));
    }
    faults
}

/// Runs axe-core, which must be on the page.
async fn axe_faults(tab: &Tab) -> Vec<String> {
    let run = format!(
        "axe.run(document, {{runOnly: {TAGS}, rules: {{'target-size': {{enabled: true}}}}, resultTypes: ['violations'], elementRef: false}}).then(found =>
            found.violations.flatMap(rule => rule.nodes.slice(0, 3).map(node =>
                `${{rule.id}}: ${{node.target.join(' ')}}: ${{node.failureSummary}}`)))"
    );
    strings(&tab.eval(&run).await)
}

async fn layout_faults(tab: &Tab, view: View) -> Vec<String> {
    // The elements that reach over the edge, without those that scroll by themselves.
    let find = "(() => {
        const root = document.documentElement;
        if (root.scrollWidth <= root.clientWidth) return [];
        const scrolls = element => element && element !== root && element !== document.body &&
            (['auto', 'scroll', 'hidden'].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
        const over = [...document.querySelectorAll('body *')].filter(element =>
            element.getBoundingClientRect().right > root.clientWidth + 1 && !scrolls(element.parentElement));
        const name = element => element.tagName.toLowerCase() + (element.id && '#' + element.id) +
            [...element.classList].map(word => '.' + word).join('') + ' ' + element.textContent.slice(0, 60);
        return [`${root.scrollWidth} of ${root.clientWidth} pixels`, ...over.slice(0, 5).map(name)];
    })()";
    let faults = strings(&tab.eval(find).await);
    faults.into_iter().map(|fault| format!("at {} pixels it scrolls sideways: {fault}", view.width)).collect()
}

/// What paper cuts off: it does not scroll. A field may show a part of a long value.
async fn print_faults(tab: &Tab) -> Vec<String> {
    let find = "(() => [document.documentElement, ...document.querySelectorAll('body *')]
        .filter(element => !element.matches('input, select, textarea'))
        .filter(element => element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 1 &&
            getComputedStyle(element).overflowX !== 'visible' || element === document.documentElement &&
            element.scrollWidth > element.clientWidth)
        .map(element => `print cuts off ${element.outerHTML.slice(0, 90)}`).slice(0, 3))()";
    strings(&tab.eval(find).await)
}

/// What the markup itself must not hold, read from a document on which no script has run.
async fn markup_faults(tab: &Tab) -> Vec<String> {
    let find = "(() => {
        const faults = [];
        for (const element of document.querySelectorAll('*')) {
            const inline = element.getAttributeNames().filter(name => name === 'style' || name.startsWith('on'));
            for (const name of inline) faults.push(`an inline ${name} on ${element.outerHTML.slice(0, 80)}`);
        }
        for (const element of document.querySelectorAll('style, script:not([src])')) {
            faults.push(`an inline ${element.tagName}`);
        }
        const odd = document.body.innerText.match(/.{0,20}(\\b(in|after) [-−]\\d|\\b(NaN|undefined)\\b|Some\\().{0,20}/);
        if (odd) faults.push(`the text says ${odd[0]}`);
        if (!/^.+ · .+$/.test(document.title)) faults.push(`the title is ${document.title}`);
        if (document.querySelectorAll('h1').length !== 1) faults.push('there is not one h1');
        if (document.querySelectorAll('main').length !== 1) faults.push('there is not one main');
        const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
        for (const id of ids.filter((id, at) => ids.indexOf(id) !== at)) faults.push(`two elements are #${id}`);
        return faults;
    })()";
    strings(&tab.eval(find).await)
}

/// Walks through the page with the Tab key, at most `stops` stops far. The order is that of the markup; the focus can
/// be seen, stands in the window, and is covered by nothing. The first stop is the link that skips to the content.
pub async fn keyboard_faults(tab: &Tab, stops: usize) -> Vec<String> {
    let look = "(() => {
        const element = document.activeElement;
        if (!element || element === document.body) return null;
        const box = element.getBoundingClientRect();
        const style = getComputedStyle(element);
        const name = `${element.outerHTML.slice(0, 90)} at ${Math.round(box.x)}, ${Math.round(box.y)}`;
        const faults = [];
        // The parts of a field for a date are stops of their own, which the browser marks.
        const isPart = element.dataset.seen && /^(date|time|month|week)/.test(element.type);
        if (/^(date|time|month|week)/.test(element.type)) element.dataset.seen = 'yes';
        const isMarked = isPart || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none';
        if (!isMarked) faults.push(`the focus cannot be seen on ${name}`);
        const inside = box.width > 0 && box.bottom > 0 && box.right > 0 && box.y < innerHeight && box.x < innerWidth;
        if (!inside) faults.push(`the focus is outside the window on ${name}`);
        const first = element.getClientRects()[0] ?? box;
        const [x, y] = [first.x + first.width / 2, first.y + Math.min(first.height, innerHeight) / 2];
        const top = inside ? document.elementFromPoint(x, y) : null;
        const isCovered = top && !element.contains(top) && !top.contains(element);
        if (isCovered) faults.push(`the focus is behind ${top.outerHTML.slice(0, 60)} on ${name}`);
        const place = [...document.querySelectorAll('*')].indexOf(element);
        return {faults, place, name, isPart: Boolean(isPart), skips: element.getAttribute('href') === '#content'};
    })()";
    let mut faults = Vec::new();
    let mut last = -1;
    for stop in 0..stops {
        tab.press("Tab").await;
        let seen = tab.eval(look).await;
        if seen.is_null() {
            faults.extend((stop == 0).then(|| "the keyboard reaches nothing".to_owned()));
            break;
        }
        if stop == 0 && seen["skips"] != true {
            faults.push(format!("the first stop does not skip to the content: {}", seen["name"]));
        }
        faults.extend(strings(&seen["faults"]));
        let place = seen["place"].as_i64().unwrap_or_default();
        if place <= last && seen["isPart"] != true {
            faults.push(format!("the order of the keyboard goes back to {}", seen["name"]));
        }
        last = place;
    }
    faults
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

/// Fails with all faults at once.
#[track_caller]
pub fn assert_faultless(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::Html;
    use axum::routing::get;

    use super::*;
    use crate::support::browser::Browser;

    const BAD: &str = "<!DOCTYPE html><html lang=en><head><title>Bad</title><style>p { color: #ccc }</style></head>
        <body><main><h1>One</h1><h1>Two</h1><p>Pale</p><img src='http://elsewhere.test:9/a.png'>
        <p id=a style='width: 500px' onclick='a()'>Wide</p><p id=a>Again</p><h4>Deep</h4><button></button>
        <p tabindex=0>Odd</p><div role=status><table role=table><tr><td>One<td>Two<tr><td>Three<td>Four</table></div></main>
        <script>console.log('said')</script></body></html>";

    #[tokio::test]
    async fn a_bad_page_has_every_fault() {
        let Some(browser) = Browser::open().await else { return };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().route("/", get(async || Html(BAD)))).into_future());
        let tab = browser.tab(View::WIDE).await;
        let mut faults = check(&tab, &url, "bad").await;
        faults.extend(tab.console());
        let all = faults.join("\n");
        for fault in [
            "color-contrast: p",
            "image-alt: img",
            "at 320 pixels it scrolls sideways: p#a",
            "an inline style on <p",
            "an inline onclick on <p",
            "an inline STYLE",
            "an inline SCRIPT",
            "the title is Bad",
            "there is not one h1",
            "two elements are #a",
            "a heading of level 4 follows one of level 1: \"Deep\"",
            "a reader hears no name of a button",
            "a reader hears no role of what takes the focus: paragraph",
            "a reader hears no name of a table",
            "a reader hears no heads of the columns",
            "a reader hears all of a table or figure at each change of a status",
            "a request to http://elsewhere.test:9/a.png",
            "the policy lacks \"default-src 'none'\"",
            "no nosniff",
            "the referrer policy is",
            "\"said\"",
        ] {
            assert!(all.contains(fault), "{fault:?} was not found:\n{all}");
        }
    }
}
