//! A tab: how it is looked at, navigation and input.

use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::browser::directory;
use super::protocol::Connection;
use super::server::wait::bounded;
use super::session::Session;

/// How a reader looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub width: u32,
    pub scheme: &'static str,
    pub script: bool,
}

/// A document that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub url: String,
    pub status: u64,
    /// By names in lower case.
    pub headers: Value,
}

pub struct Tab {
    session: Session,
    target: String,
}

impl View {
    pub const WIDE: Self = Self { width: 1280, scheme: "light", script: true };
    /// The width at which WCAG 2.1 requires that a page needs no scrolling in two dimensions.
    pub const NARROW: Self = Self { width: 320, ..Self::WIDE };

    pub const fn dark(self) -> Self {
        Self { scheme: "dark", ..self }
    }

    pub const fn without_script(self) -> Self {
        Self { script: false, ..self }
    }
}

impl Tab {
    pub async fn attach(connection: Arc<Connection>, target: String, view: View) -> Self {
        let params = json!({"targetId": target, "flatten": true});
        let attached = connection.call(None, "Target.attachToTarget", params).await;
        let session = Session::new(connection, attached["sessionId"].as_str().expect("an id"));
        let tab = Self { session, target };
        tab.listen().await.expect("a tab that is there");
        tab.call("Page.enable", json!({})).await;
        tab.call("Page.setLifecycleEventsEnabled", json!({"enabled": true})).await;
        tab.attach_frames().await;
        // Else only one tab of the browser has the focus, and tests run side by side.
        tab.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true})).await;
        tab.show(view).await;
        tab
    }

    /// Looks at the page in another way. Whether script runs changes with the next document.
    pub async fn show(&self, view: View) {
        let height = if view.width < 600 { 640 } else { 900 };
        let size = json!({"width": view.width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !view.script})).await;
        self.prefer("prefers-color-scheme", view.scheme).await;
    }

    /// Sets a feature that style sheets can ask for.
    pub async fn prefer(&self, feature: &str, value: &str) {
        let features = json!({"media": "", "features": [{"name": feature, "value": value}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Shows the page as it is printed on a sheet of A4.
    pub async fn show_as_print(&self) {
        self.show(View { width: 718, ..View::WIDE }).await;
        self.call("Emulation.setEmulatedMedia", json!({"media": "print"})).await;
    }

    /// Opens an address and waits until the page has loaded.
    pub async fn go(&self, url: &str) -> Loaded {
        let from = self.events().count();
        let answer = self.call("Page.navigate", json!({"url": url})).await;
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        // The document before this one may still be loading.
        self.loaded_since(from, |loader| answer["loaderId"].is_null() || *loader == answer["loaderId"]).await
    }

    /// Does something that leads to another page, and waits until that has loaded.
    pub async fn go_by(&self, action: impl Future<Output = ()>) -> Loaded {
        let before = self.call("Page.getFrameTree", json!({})).await["frameTree"]["frame"]["loaderId"].take();
        let from = self.events().count();
        action.await;
        self.loaded_since(from, |loader| *loader != before).await
    }

    async fn loaded_since(&self, from: usize, is_loader: impl Fn(&Value) -> bool) -> Loaded {
        let frame = self.target.clone();
        let is_ours = |params: &Value| params["frameId"] == frame.as_str();
        let is_load = |params: &Value| is_ours(params) && params["name"] == "load" && is_loader(&params["loaderId"]);
        let is_document = |params: &Value| is_ours(params) && params["type"] == "Document";
        let mut answered = self.events().named("Network.responseReceived", from);
        let shown = self.events().wait("Page.lifecycleEvent", from, is_load).await;
        answered.extend(self.events().named("Network.responseReceived", from));
        let document = answered.iter().rfind(|params| is_document(params) && params["loaderId"] == shown["loaderId"]);
        let response = document.map_or(&Value::Null, |params| &params["response"]);
        let headers = response["headers"].as_object().into_iter().flatten();
        Loaded {
            url: response["url"].as_str().unwrap_or_default().to_owned(),
            status: response["status"].as_u64().unwrap_or_default(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
        }
    }

    /// Clicks with the mouse in the middle of an element.
    pub async fn click(&self, selector: &str) {
        self.clicks(selector, 1).await;
    }

    /// Clicks several times in a row, as a double click is.
    pub async fn clicks(&self, selector: &str, count: u32) {
        self.clicks_on(&format!("document.querySelector({selector:?})"), count).await;
    }

    /// As [`Self::clicks`], on the element that an expression finds. A refresh of the page may replace it at any time,
    /// so it must not be marked beforehand.
    pub async fn clicks_on(&self, element: &str, count: u32) {
        let place = format!(
            "(() => {{ const element = {element};
                if (!element) return null;
                element.scrollIntoView({{block: 'center', behavior: 'instant'}});
                // A link over two lines has a box of its own for each.
                const box = element.getClientRects()[0];
                return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.eval(&place).await;
        assert!(place.is_array(), "no {element} on the page: {}", self.text("document.body.innerText").await);
        self.click_at(place[0].as_f64().expect("a number"), place[1].as_f64().expect("a number"), count).await;
    }

    /// Clicks several times at a place in the window.
    pub async fn click_at(&self, x: f64, y: f64, count: u32) {
        // The page that the first click leads to must not get the second one: requests wait until all clicks are done.
        if count > 1 {
            self.call("Fetch.enable", json!({})).await;
        }
        let mut answers = Vec::new();
        for click in 1..=count {
            for kind in ["mousePressed", "mouseReleased"] {
                let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": click});
                answers.push(self.send("Input.dispatchMouseEvent", event));
            }
        }
        for answer in answers {
            let answered = bounded("an answer to a click", answer).await.expect("a browser that runs");
            assert!(answered.is_ok(), "{answered:?}");
        }
        if count > 1 {
            // Lets the requests go on.
            self.call("Fetch.disable", json!({})).await;
        }
    }

    /// Pastes from the clipboard into the element that has the focus.
    pub async fn paste(&self) {
        let event = json!({"type": "rawKeyDown", "key": "v", "modifiers": 2, "commands": ["paste"]});
        self.call("Input.dispatchKeyEvent", event).await;
    }

    /// Minimises the window of the tab.
    pub async fn hide(&self) {
        self.call("Emulation.setFocusEmulationEnabled", json!({"enabled": false})).await;
        self.set_window("minimized").await;
    }

    /// Shows the window again after [`Self::hide`].
    pub async fn show_window(&self) {
        self.set_window("normal").await;
        self.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true})).await;
    }

    async fn set_window(&self, state: &str) {
        let window = self.call("Browser.getWindowForTarget", json!({})).await;
        let bounds = json!({"windowId": window["windowId"], "bounds": {"windowState": state}});
        self.call("Browser.setWindowBounds", bounds).await;
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, or `Shift+Tab`.
    pub async fn press(&self, key: &str) {
        let (modifiers, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (8, key));
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            "Escape" => (27, None),
            " " => (32, Some(" ")),
            other => panic!("no key {other}"),
        };
        let kind = if text.is_some() { "keyDown" } else { "rawKeyDown" };
        let mut down = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers});
        if let Some(text) = text {
            down["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers});
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// Types into the element that has the focus.
    pub async fn write(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Replaces the value of a field, as a reader would.
    pub async fn fill(&self, selector: &str, text: &str) {
        let select = format!(
            "(() => {{ const field = document.querySelector({selector:?}); field.focus();
            field.select && field.select(); return field === document.activeElement; }})()"
        );
        assert_eq!(self.eval(&select).await, true, "{selector} takes no focus");
        self.write(text).await;
    }

    /// Writes a picture of the whole page to `browser/<name>.png` in the target directory.
    pub async fn picture(&self, name: &str) {
        self.picture_of(name, 4000).await;
    }

    /// As [`Self::picture`], of the top of the page.
    pub async fn picture_of(&self, name: &str, height: u32) {
        // A tab behind another one of its window is not painted.
        self.call("Page.bringToFront", json!({})).await;
        let size = self.eval(&format!("[innerWidth, Math.min(document.documentElement.scrollHeight, {height})]")).await;
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let params = json!({"clip": clip, "format": "png", "captureBeyondViewport": true});
        let made = self.call("Page.captureScreenshot", params).await;
        let bytes = BASE64_STANDARD.decode(made["data"].as_str().expect("a picture")).expect("base64");
        let file = directory().join(format!("{name}.png"));
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        std::fs::write(file, bytes).expect("a file");
    }
}

impl Deref for Tab {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        self.session.send_to_browser("Target.closeTarget", json!({"targetId": self.target}));
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::Html;
    use axum::routing::get;

    use super::*;
    use crate::support::browser::Browser;

    const FORM: &str = "<!DOCTYPE html><form action=/sent><input name=q value=old><button>Send</button></form>
        <output>0</output><script>onclick = () => ++document.querySelector('output').textContent</script>";

    #[tokio::test]
    async fn a_tab_fills_and_sends_a_form_with_and_without_script() {
        let Some(browser) = Browser::open().await else { return };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/", get(async || Html(FORM))).route("/sent", get(async || Html("sent")));
        tokio::spawn(axum::serve(listener, router).into_future());
        let tab = browser.tab(View::WIDE).await;
        for (view, clicks) in [(View::WIDE, "2"), (View::WIDE.without_script(), "0")] {
            tab.show(view).await;
            tab.go(&url).await;
            tab.clicks("output", 2).await;
            assert_eq!(tab.text("document.querySelector('output').textContent").await, clicks);
            tab.fill("input", "new").await;
            let loaded = tab.go_by(tab.click("button")).await;
            assert_eq!((loaded.url, loaded.status), (format!("{url}/sent?q=new"), 200));
        }
    }
}
