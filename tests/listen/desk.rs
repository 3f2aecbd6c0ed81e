//! A developer's desk: `postrider listen` in a process, and what it prints.

use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::support::app::{App, text};
use crate::support::process::command;
use crate::support::wait::bounded_or;

/// A running `postrider listen` that prints NDJSON.
pub struct Listen {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: JoinHandle<String>,
    /// What it has printed so far.
    seen: Vec<Value>,
    pub listener_id: String,
}

/// A server that can send to loopback, on the machine's clock.
pub async fn server() -> App {
    App::set_up().await.allow("127.0.0.0/8").real_time().start().await
}

pub fn listen_command(url: &str, key: &str, arguments: &[&str]) -> Command {
    let mut command = command(&[&["listen"], arguments].concat());
    command.env("POSTRIDER_URL", url).env("POSTRIDER_API_KEY", key);
    command
}

impl Listen {
    /// Returns once it is ready.
    pub async fn start(app: &App, arguments: &[&str]) -> Self {
        let url = format!("http://{}", app.server().address());
        Self::at(&url, app.caller().secret().expect("a key"), arguments).await
    }

    pub async fn at(url: &str, key: &str, arguments: &[&str]) -> Self {
        let mut command = listen_command(url, key, &[arguments, &["--output", "json"]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a binary");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut stderr = child.stderr.take().expect("a pipe");
        let errors = tokio::spawn(async move {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text).await;
            text
        });
        let mut listen = Self { child, lines, errors, seen: Vec::new(), listener_id: String::new() };
        let ready = listen.next_of("ready").await;
        listen.listener_id = text(&ready, "listenerId");
        listen
    }

    /// The next line of this kind. Lines of other kinds are passed.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let line = bounded_or(self.lines.next_line(), || format!("a line {kind:?}; there were {:#?}", self.seen));
            let line = line.await.expect("output in UTF-8");
            let Some(line) = line else { panic!("it ended before a line {kind:?}; there were {:#?}", self.seen) };
            let value: Value = serde_json::from_str(&line).expect("a line of JSON");
            self.seen.push(value.clone());
            if value["kind"] == kind {
                return value;
            }
        }
    }

    /// Sends a signal by its name, such as `-INT`.
    pub async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("a process that runs").to_string();
        let killing = Command::new("kill").args([signal, &id]).status();
        assert!(killing.await.expect("the kill command").success());
    }

    /// Waits for the end. Returns the exit status and what it said on standard error.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = bounded_or(self.child.wait(), || "the end of the command".to_owned()).await.expect("a process");
        (status, self.errors.await.expect("a reader"))
    }
}
