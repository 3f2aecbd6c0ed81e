//! The Chrome DevTools Protocol over two pipes: JSON messages that end with a NUL byte, as `--remote-debugging-pipe`
//! defines them. No port is opened, and the browser ends when this process does.
//!
//! Threads read the pipe, because each test has a runtime of its own and all of them share the browser.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::server::wait::{bounded_or, within};

/// The longest wait for an answer: axe-core looks at all 18,000 elements of the API reference in one call.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result of a call, or why the browser refused it.
pub type Answer = Result<Value, String>;

/// The connection to a browser. Its sessions are tabs, frames of other sites, and the browser itself.
pub struct Connection {
    next_id: AtomicU64,
    to_browser: Mutex<Box<dyn Write + Send>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    sessions: Mutex<HashMap<String, Arc<Events>>>,
}

/// What the browser reported in a session, in order.
pub struct Events {
    all: Mutex<Vec<Value>>,
    count: watch::Sender<usize>,
}

impl Connection {
    pub fn new(to_browser: impl Write + Send + 'static, from_browser: impl Read + Send + 'static) -> Arc<Self> {
        let connection = Arc::new(Self {
            next_id: AtomicU64::new(1),
            to_browser: Mutex::new(Box::new(to_browser)),
            waiting: Mutex::default(),
            sessions: Mutex::default(),
        });
        let reading = Arc::clone(&connection);
        std::thread::spawn(move || reading.read(BufReader::new(from_browser)));
        connection
    }

    /// Calls a method of the browser, or of a session.
    ///
    /// # Panics
    /// When the browser refuses it.
    pub async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.try_call(session, method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// As [`Self::call`], for what may have gone meanwhile, such as a frame.
    ///
    /// # Errors
    /// When the browser refuses it.
    pub async fn try_call(&self, session: Option<&str>, method: &str, params: Value) -> Answer {
        let answer = self.send(session, method, params);
        within(PATIENCE, answer, || format!("an answer to {method}")).await.expect("a browser that runs")
    }

    /// Sends a call. Its answer may be dropped.
    pub fn send(&self, session: Option<&str>, method: &str, params: Value) -> oneshot::Receiver<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, answered);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let mut to_browser = lock(&self.to_browser);
        to_browser.write_all(&bytes).and_then(|()| to_browser.flush()).expect("a browser that reads");
        answer
    }

    /// The events of a session. They are kept from its first one on.
    pub fn events(&self, session: &str) -> Arc<Events> {
        Arc::clone(lock(&self.sessions).entry(session.to_owned()).or_insert_with(|| Arc::new(Events::new())))
    }

    pub fn forget(&self, session: &str) {
        lock(&self.sessions).remove(session);
    }

    fn read(&self, mut from_browser: BufReader<impl Read>) {
        let mut message = Vec::new();
        while from_browser.read_until(0, &mut message).is_ok_and(|bytes| bytes > 0) {
            message.pop();
            let message: Value = serde_json::from_slice(&std::mem::take(&mut message)).expect("JSON from the browser");
            if let Some(id) = message["id"].as_u64() {
                let waiting = lock(&self.waiting).remove(&id);
                let answer = match message.get("error") {
                    Some(error) => Err(error["message"].to_string()),
                    None => Ok(message["result"].clone()),
                };
                // A test that failed does not wait any more.
                let _unheard = waiting.map(|waiting| waiting.send(answer));
            } else {
                self.events(message["sessionId"].as_str().unwrap_or_default()).add(message);
            }
        }
        lock(&self.waiting).clear();
    }
}

impl Events {
    fn new() -> Self {
        Self { all: Mutex::default(), count: watch::Sender::new(0) }
    }

    fn add(&self, event: Value) {
        let mut all = lock(&self.all);
        all.push(event);
        self.count.send_replace(all.len());
    }

    /// How many there are. Events that come later have this position or a higher one.
    pub fn count(&self) -> usize {
        lock(&self.all).len()
    }

    /// The parameters of all events of this name, from a position on.
    pub fn named(&self, method: &str, from: usize) -> Vec<Value> {
        let all = lock(&self.all);
        all[from.min(all.len())..]
            .iter()
            .filter(|event| event["method"] == method)
            .map(|event| event["params"].clone())
            .collect()
    }

    /// Waits for an event of this name that meets a condition, from a position on. Returns its parameters.
    pub async fn wait(&self, method: &str, from: usize, condition: impl Fn(&Value) -> bool) -> Value {
        let mut count = self.count.subscribe();
        let find = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = self.named(method, from).into_iter().find(|params| condition(params)) {
                    return found;
                }
                count.changed().await.expect("the sender is ours");
            }
        };
        let explain = || format!("{method}; there were {:?}", self.names(from));
        bounded_or(find, explain).await
    }

    fn names(&self, from: usize) -> Vec<String> {
        let all = lock(&self.all);
        let name = |event: &Value| format!("{} {}", event["method"], event["params"]["name"]);
        all[from.min(all.len())..].iter().take(40).map(name).collect()
    }
}

/// A test that panicked with the lock leaves a state that is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
