//! A session with a tab, or with a frame of another site: its script, and a record of its console and its requests.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::protocol::{Answer, Connection, Events};
use super::server::wait::eventually;

/// Forgets its record when it ends.
pub struct Session {
    connection: Arc<Connection>,
    id: String,
    events: Arc<Events>,
}

/// A request that a page made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    pub method: String,
    pub url: String,
}

impl Session {
    pub fn new(connection: Arc<Connection>, id: &str) -> Self {
        let events = connection.events(id);
        Self { connection, id: id.to_owned(), events }
    }

    /// Another session of the same browser.
    pub fn beside(&self, id: &str) -> Self {
        Self::new(Arc::clone(&self.connection), id)
    }

    /// Begins the record. What the console holds already is in it.
    pub async fn listen(&self) -> Result<(), String> {
        for domain in ["Runtime", "Log", "Network"] {
            self.try_call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(())
    }

    pub async fn call(&self, method: &str, params: Value) -> Value {
        self.connection.call(Some(&self.id), method, params).await
    }

    pub async fn try_call(&self, method: &str, params: Value) -> Answer {
        self.connection.try_call(Some(&self.id), method, params).await
    }

    /// Sends a call. Calls are carried out in the order in which they are sent.
    pub fn send(&self, method: &str, params: Value) -> oneshot::Receiver<Answer> {
        self.connection.send(Some(&self.id), method, params)
    }

    /// Calls the browser itself, and does not wait for its answer.
    pub fn send_to_browser(&self, method: &str, params: Value) {
        drop(self.connection.send(None, method, params));
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The value of an expression, or of the promise that it is.
    pub async fn eval(&self, expression: &str) -> Value {
        self.try_eval(expression).await.unwrap_or_else(|error| panic!("{expression:.200}: {error}"))
    }

    /// As [`Self::eval`], where the document may be going.
    ///
    /// # Errors
    /// When the script throws, or its document has gone.
    pub async fn try_eval(&self, expression: &str) -> Answer {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.try_call("Runtime.evaluate", params).await?;
        match answer["exceptionDetails"]["exception"]["description"].as_str() {
            Some(thrown) => Err(thrown.to_owned()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// The value of an expression, which must be a string.
    pub async fn text(&self, expression: &str) -> String {
        let value = self.eval(expression).await;
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).to_owned()
    }

    /// Waits until an expression is true, also across a change of the document.
    pub async fn when(&self, expression: &str) {
        eventually(expression, || async { self.try_eval(expression).await.is_ok_and(|is| is == true).then_some(()) })
            .await;
    }

    /// Runs a script that leads to another document, or to the same one anew, and waits until that is complete.
    /// Conditions about the address do not do for this: the old document may meet them, or a half read one.
    pub async fn leave_by(&self, script: &str) {
        self.eval(&format!("window.isOld = true; {script}; 0")).await;
        self.when("!window.isOld && document.readyState === 'complete'").await;
    }

    /// Loads the document again.
    pub async fn reload(&self) {
        self.leave_by("location.reload()").await;
    }

    /// Shows the document before this one. The browser may show it as it was, without loading it.
    pub async fn go_back(&self) {
        self.leave_by("history.back()").await;
    }

    /// Waits until a button has said `Copied` since [`Self::watch_label`]. It does so for two seconds only.
    pub async fn said_copied(&self) {
        self.when("window.labels.includes('Copied')").await;
    }

    /// Notes from now on what the button says.
    pub async fn watch_label(&self, selector: &str) {
        let watch = format!(
            "window.labels = []; {{ const button = document.querySelector({selector:?});
                new MutationObserver(() => labels.push(button.textContent)).observe(button, {{childList: true}}) }}"
        );
        self.eval(&watch).await;
    }

    /// Follows the frames of other sites: each is a session of its own.
    pub async fn attach_frames(&self) {
        let attach = json!({"autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true});
        self.call("Target.setAutoAttach", attach).await;
    }

    /// Waits for a frame of another site whose address begins with `url`, until its document has loaded. The frame must
    /// be directly in this document.
    pub async fn frame(&self, url: &str) -> Self {
        let is_there = format!("location.href.startsWith({url:?}) && document.readyState === 'complete'");
        let find = || async {
            for attached in self.events().named("Target.attachedToTarget", 0).into_iter().rev() {
                let frame = self.beside(attached["sessionId"].as_str().expect("an id"));
                if frame.try_eval(&is_there).await.is_ok_and(|found| found == true) {
                    return Some(frame);
                }
            }
            None
        };
        let frame = eventually(&format!("a frame at {url}"), find).await;
        frame.listen().await.expect("a frame that is there");
        frame.attach_frames().await;
        frame
    }

    /// Messages of the console, and of the browser about the page: refused scripts, failed requests, warnings.
    pub fn console(&self) -> Vec<String> {
        let said = self.events.named("Runtime.consoleAPICalled", 0);
        let threw = self.events.named("Runtime.exceptionThrown", 0);
        let logged = self.events.named("Log.entryAdded", 0);
        let said = said.iter().map(|params| params["args"].to_string());
        let threw = threw.iter().map(|params| params["exceptionDetails"].to_string());
        // Advice that the console hides unless it is asked for is no fault of a page.
        let logged = logged.iter().map(|params| &params["entry"]).filter(|entry| entry["level"] != "verbose");
        let logged = logged.map(|entry| format!("{}: {}", entry["text"], entry["url"]));
        said.chain(threw).chain(logged).collect()
    }

    /// All requests from a position of the events on.
    pub fn requests(&self, from: usize) -> Vec<Requested> {
        let sent = self.events.named("Network.requestWillBeSent", from);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        sent.iter()
            .map(|params| &params["request"])
            .map(|request| Requested { method: text(&request["method"]), url: text(&request["url"]) })
            .collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.forget(&self.id);
    }
}
