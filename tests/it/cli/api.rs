//! The commands that call a server over its API: what they print, to whom, and with which exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::app::{App, Endpoint, text};
use crate::support::process::{Ended, command, path_text};
use crate::support::receiver::{Answer, Receiver, ReservedPort};
use crate::support::wait::{bounded, eventually};

/// A server that delivers to a receiver, and the command line of its user.
struct Desk {
    app: App,
    receiver: Receiver,
    endpoint: Endpoint,
}

impl Desk {
    async fn new() -> Self {
        let app = App::set_up().await.allow("127.0.0.0/8").real_time().start().await;
        let receiver = Receiver::start().await;
        let endpoint = app.endpoint_to(&receiver, &["job.failed", "post.created"]).await;
        Self { app, receiver, endpoint }
    }

    fn url(&self) -> String {
        format!("http://{}", self.app.server().address())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("POSTRIDER_URL", self.url()).env("POSTRIDER_API_KEY", self.app.caller().secret().unwrap());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments)).await
    }

    /// Runs a command that must succeed. Returns its lines of JSON.
    async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Publishes an event and waits for the end of its delivery. Returns the delivery.
    async fn delivered(&self, event: &str) -> Value {
        let id = self.app.publish(event, json!({})).await;
        self.app.delivery_when(&id, "ends", |delivery| delivery["status"] != "pending").await
    }
}

async fn ended(mut command: Command) -> Ended {
    let output = bounded("a command that ends", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The output with what differs from run to run replaced.
fn redacted(text: &str, desk: &Desk) -> String {
    let mut out = text.replace(&desk.url(), "URL").replace(&desk.app.server().address().to_string(), "ADDRESS");
    out = out.replace(&desk.receiver.url(""), "RECEIVER");
    for (prefix, letters) in [("whe_", 16), ("evt_", 20), ("dlv_", 20), ("rpl_", 20), ("req_", 16), ("org_", 16)] {
        let mut rest = std::mem::take(&mut out);
        while let Some(at) = rest.find(prefix) {
            let end = at + prefix.len() + letters;
            out.push_str(&rest[..at + prefix.len()]);
            out.push_str(&"x".repeat(letters));
            rest = rest.split_off(end);
        }
        out.push_str(&rest);
    }
    let digits = out.char_indices().map(|(at, c)| if is_in_time(&out, at) && c.is_ascii_digit() { '0' } else { c });
    digits.collect()
}

/// Whether a character belongs to a date or a time of day.
fn is_in_time(text: &str, at: usize) -> bool {
    let word = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | 'T' | 'Z' | '.');
    let begin = text[..at].rfind(|c| !word(c)).map_or(0, |before| before + 1);
    let end = text[at..].find(|c| !word(c)).map_or(text.len(), |after| at + after);
    let word = text.get(begin..end).unwrap_or_default();
    word.len() >= 8 && word.matches([':', '-']).count() >= 2
}

#[tokio::test]
async fn lists_are_tables_for_people_with_whole_ids() {
    let desk = Desk::new().await;
    desk.delivered("job.failed").await;
    let shown = async |what: &str| redacted(&desk.run(&[what, "list"]).await.stdout, &desk);
    insta::assert_snapshot!(shown("events").await, @r"
    id                        type        deliveries  created (UTC)        project  external id
    evt_xxxxxxxxxxxxxxxxxxxx  job.failed  1           0000-00-00 00:00:00  -        -
    ");
    insta::assert_snapshot!(shown("deliveries").await, @r"
    id                        status     answer  event       endpoint              attempts  created (UTC)        next (UTC)
    dlv_xxxxxxxxxxxxxxxxxxxx  delivered  200     job.failed  whe_xxxxxxxxxxxxxxxx  1         0000-00-00 00:00:00  -
    ");
    insta::assert_snapshot!(shown("endpoints").await, @r"
    id                    state  name        url                          project  events
    whe_xxxxxxxxxxxxxxxx  ok     A receiver  RECEIVER/hook  -        job.failed,post.created
    ");
}

#[tokio::test]
async fn lists_in_json_have_a_line_for_each_item_up_to_the_limit() {
    let desk = Desk::new().await;
    let events: Vec<Value> = (0..205).map(|_| json!({"type": "note.created", "data": {}})).collect();
    desk.app.post("/v1/events/batch", json!({ "events": events })).await.data(202);
    let all = desk.json(&["events", "list", "--limit", "1000"]).await;
    assert_eq!(all.len(), 205);
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((members(&all[0])[..2].to_vec(), &all[0]["kind"]), (vec!["kind".into(), "id".into()], &json!("event")));
    assert_eq!(desk.json(&["events", "list", "--limit", "202"]).await, all[..202]);
    assert_eq!(desk.json(&["events", "list"]).await, all[..50]);
    let one = desk.json(&["events", "get", &text(&all[0], "id")]).await;
    assert_eq!((one.len(), &one[0]["kind"], &one[0]["data"]), (1, &json!("event"), &json!({})));
    assert_eq!(desk.json(&["events", "list", "--type", "job.failed,post.created"]).await, [Value::Null; 0]);
    assert_eq!(desk.json(&["events", "list", "--since", "1h", "--deliveries", "none", "--limit", "3"]).await.len(), 3);
    let later = desk.run(&["events", "list", "--until", "1h"]).await;
    assert_eq!((later.stdout.as_str(), later.stderr.as_str()), ("", "nothing found\n"));
}

#[tokio::test]
async fn data_is_printed_with_its_tokens_on_one_line() {
    let desk = Desk::new().await;
    let body = "{\"type\":\"note.created\",\"data\":{\n \"big\": 12345678901234567890123,\r\n \"one\": 1.0}}";
    let id = text(&desk.app.caller().post_text("/v1/events", body).await.data(202), "id");
    let shown = desk.run(&["events", "get", &id, "--output", "json"]).await;
    assert_eq!(shown.stdout.lines().count(), 1);
    assert!(shown.stdout.contains(r#""data":{"big":12345678901234567890123,"one":1.0}"#), "{}", shown.stdout);
}

#[tokio::test]
async fn one_delivery_shows_its_attempts_and_the_last_answer() {
    let desk = Desk::new().await;
    desk.receiver.otherwise(Answer::status(410).body("gone\u{1b}[2J\u{1b}]52;c;aGk=\u{7}\u{202e}\r"));
    let event = desk.app.publish("job.failed", json!({})).await;
    let delivery = desk.app.attempted(&event, 1).await;
    let ended = desk.run(&["deliveries", "get", &text(&delivery, "id")]).await;
    assert!(ended.stdout.contains("gone") && ended.stdout.contains("\nthe last answer's body\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains(r"gone\u{1b}[2J\u{1b}]52;c;aGk=\u{7}\u{202e}"), "{}", ended.stdout);
    for form in ["human", "json"] {
        let ended = desk.run(&["deliveries", "get", &text(&delivery, "id"), "--output", form]).await;
        assert!(!ended.stdout.contains(['\u{1b}', '\u{7}', '\u{202e}', '\r']), "{:?}", ended.stdout);
    }
}

#[tokio::test]
async fn a_retry_waits_for_the_new_delivery_and_says_how_it_went() {
    let desk = Desk::new().await;
    let delivery = text(&desk.delivered("job.failed").await, "id");
    let good = desk.json(&["deliveries", "retry", &delivery, "--wait"]).await;
    assert_eq!(
        (&good[0]["kind"], &good[0]["id"], &good[0]["error"]),
        (&json!("retry"), &json!(delivery), &Value::Null)
    );
    assert_eq!((&good[1]["id"], &good[1]["status"]), (&good[0]["delivery"]["id"], &json!("delivered")));

    desk.receiver.otherwise(Answer::status(500));
    let bad = desk.run(&["deliveries", "retry", &delivery, "--wait"]).await;
    assert_eq!(bad.status.code(), Some(1));
    assert!(bad.stdout.contains("pending  500"), "the first attempt is enough: {}", bad.stdout);
    let late = desk.run(&["deliveries", "retry", &delivery, "--wait=end", "--timeout", "100ms"]).await;
    assert_eq!(late.status.code(), Some(6));
    assert!(late.stderr.contains("within 0.1 s: raise --timeout"), "{}", late.stderr);

    let missing = "dlv_00000000000000000000";
    assert_eq!(desk.run(&["deliveries", "retry", missing]).await.failure().0, 4);
    assert_eq!(desk.run(&["deliveries", "retry", missing, &delivery]).await.failure().0, 1);
}

#[tokio::test]
async fn an_endpoint_is_made_switched_tested_rotated_and_deleted() {
    let desk = Desk::new().await;
    let url = desk.receiver.url("/new");
    let made = ["endpoints", "create", "--name", "New", "--endpoint-url", &url, "--event", "post.created,job.failed"];
    let made = desk.json(&made).await.remove(0);
    let id = text(&made, "id");
    assert!(text(&made, "secret").starts_with("whsec_"));
    assert_eq!(made["events"], json!(["post.created", "job.failed"]));
    let off = desk.run(&["endpoints", "disable", &id]).await;
    assert_eq!(off.stdout, format!("{id} is off\n"));
    let listed = desk.json(&["endpoints", "list", "--is-active", "false", "--state", "off"]).await;
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(id)));
    assert_eq!(desk.run(&["endpoints", "enable", &id]).await.stdout, format!("{id} is on\n"));
    let tested = desk.json(&["endpoints", "test", &id, "--event", "job.failed", "--wait"]).await;
    assert_eq!((&tested[0]["cause"], &tested[0]["status"]), (&json!("test"), &json!("delivered")));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let rotate = ["endpoints", "rotate", &id, "--overlap", "1h", "--write-secret", path_text(&file), "--yes"];
    let rotated = desk.run(&rotate).await;
    assert!(rotated.status.success() && !rotated.stdout.contains("whsec_"), "{rotated:?}");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.starts_with("whsec_") && !kept.contains(&text(&made, "secret")));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    for write in [["endpoints", "rotate", &id], ["endpoints", "delete", &id]] {
        let (code, stderr) = { desk.run(&write).await }.failure_text();
        assert!(code == 2 && stderr.contains("add --yes"), "{stderr}");
    }
    assert!(desk.run(&["endpoints", "delete", &id, "--yes"]).await.status.success());
    assert_eq!(desk.run(&["endpoints", "get", &id]).await.failure().0, 4);
}

impl Ended {
    fn failure_text(self) -> (i32, String) {
        let (code, text) = self.failure();
        (code, text.to_owned())
    }
}

#[tokio::test]
async fn a_replay_counts_asks_and_waits() {
    let desk = Desk::new().await;
    let id = desk.endpoint.id.clone();
    desk.delivered("job.failed").await;
    let by_endpoint = ["replay", &id, "--since", "1h", "--status", "delivered"];
    let counted = desk.run(&[&by_endpoint[..], &["--dry-run"]].concat()).await;
    assert_eq!(counted.stdout, "1 delivery\n");
    let (code, stderr) = desk.run(&by_endpoint).await.failure_text();
    assert!(code == 2 && stderr.contains("1 delivery. Send them again? Without a terminal, add --yes"), "{stderr}");
    let done = desk.json(&[&by_endpoint[..], &["--yes", "--wait"]].concat()).await;
    assert_eq!(
        (&done[0]["kind"], &done[0]["status"], &done[0]["replayed"]),
        (&json!("replay"), &json!("completed"), &json!(1))
    );
    desk.receiver.wait_for(2).await;
    desk.delivered("post.created").await;

    let filter =
        ["replay", "--since", "1h", "--event-type", "post.created", "--cause", "event", "--response-status", "2xx"];
    let done = desk.json(&[&filter[..], &["--yes", "--wait"]].concat()).await;
    assert_eq!((&done[0]["endpointId"], &done[0]["total"]), (&Value::Null, &json!(1)));
    desk.receiver.wait_for(4).await;
    let listed = desk.json(&["replays", "list"]).await;
    assert_eq!((listed.len(), &listed[0]["id"]), (2, &done[0]["id"]));
    let shown = desk.run(&["replays", "get", &text(&done[0], "id")]).await;
    assert!(shown.stdout.contains("completed"), "{}", shown.stdout);
    let stopped = desk.run(&["replays", "stop", &text(&done[0], "id")]).await;
    assert!(!stopped.status.success() || stopped.stdout.contains("completed"), "{stopped:?}");
    let unbounded = desk.run(&["replay", "--event-type", "job.failed"]).await.failure_text();
    assert!(unbounded.0 == 2 && unbounded.1.contains("--since 2h"), "{unbounded:?}");
}

#[tokio::test]
async fn a_trigger_sends_the_example_with_what_was_set() {
    let desk = Desk::new().await;
    let set = ["--set", "title=Hello", "--set", "createdAt=2026-05-15T08:21:00.000Z"];
    let sent = desk.json(&[&["trigger", "post.created", "--wait"], &set[..]].concat()).await;
    assert_eq!(sent.len(), 2);
    assert_eq!((&sent[0]["kind"], &sent[1]["kind"]), (&json!("event"), &json!("delivery")));
    assert_eq!((&sent[1]["eventId"], &sent[1]["status"]), (&sent[0]["id"], &json!("delivered")));
    let received = desk.receiver.wait_for(1).await[0].json();
    assert_eq!(received["data"]["title"], "Hello");
    assert!(received["data"]["id"].as_str().unwrap().starts_with("post_"), "the rest is the catalogue's example");

    let several = desk.run(&["trigger", "job.failed", "--count", "3", "--every", "1ms"]).await;
    assert!(several.status.success(), "{}", several.stderr);
    insta::assert_snapshot!(redacted(&several.stdout, &desk), @r"
    evt_xxxxxxxxxxxxxxxxxxxx  1 delivery  URL/dashboard/events/evt_xxxxxxxxxxxxxxxxxxxx
    evt_xxxxxxxxxxxxxxxxxxxx  1 delivery  URL/dashboard/events/evt_xxxxxxxxxxxxxxxxxxxx
    evt_xxxxxxxxxxxxxxxxxxxx  1 delivery  URL/dashboard/events/evt_xxxxxxxxxxxxxxxxxxxx
    ");
    let alone = desk.json(&["trigger", "job.failed", "--endpoint", &desk.endpoint.id, "--wait"]).await;
    assert_eq!((alone.len(), &alone[0]["cause"]), (1, &json!("test")));
}

#[tokio::test]
async fn a_trigger_checks_the_data_before_it_sends() {
    let desk = Desk::new().await;
    let wrong = desk.run(&["trigger", "job.failed", "--set", "attemptCount=many"]).await.failure_text();
    assert!(wrong.0 == 1 && wrong.1.contains("does not fit the schema of job.failed"), "{wrong:?}");
    assert!(wrong.1.contains("data.attemptCount"), "{wrong:?}");
    for (arguments, fault) in [
        (["--data", "[1]"], "is no JSON object"),
        (["--data", "{"], "is no JSON object"),
        (["--set", "id.x=1"], "no object and no list"),
        (["--set", "x"], "PATH=VALUE"),
    ] {
        let (code, stderr) = desk.run(&[&["trigger", "job.failed"], &arguments[..]].concat()).await.failure_text();
        assert!(code == 2 && stderr.contains(fault), "{stderr}");
    }
    let unknown = desk.run(&["trigger", "job.lost"]).await.failure_text();
    assert!(unknown.0 == 2 && unknown.1.contains("The events are note.created, post.created"), "{unknown:?}");
    assert!(desk.json(&["events", "list"]).await.is_empty(), "nothing was sent");
    let dry = desk.run(&["trigger", "post.created", "--project", "proj_1", "--dry-run"]).await;
    let body: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&body["type"], &body["projectId"]), (&json!("post.created"), &json!("proj_1")));
    assert!(desk.json(&["events", "list"]).await.is_empty(), "a dry run sends nothing");
    let listed = desk.json(&["trigger", "--list"]).await;
    assert_eq!(
        (listed.len(), &listed[0]["kind"], &listed[0]["name"]),
        (9, &json!("event_type"), &json!("note.created"))
    );
    assert!(listed[0]["schema"].is_object() && listed[0]["example"].is_object());
}

#[tokio::test]
async fn data_with_line_ends_of_windows_is_sent_without_them() {
    let desk = Desk::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data.json");
    let types = desk.app.get("/v1/event-types").await.data(200);
    let mut data = types.as_array().unwrap().iter().find(|one| one["name"] == "job.failed").unwrap()["example"].clone();
    data["errorMessage"] = "a\r\nb".into();
    let pretty = serde_json::to_string_pretty(&data).unwrap().replace('\n', "\r\n");
    fs::write(&file, format!("\u{feff}{pretty}\r\n")).unwrap();
    let sent = desk.run(&["trigger", "job.failed", "--data", &format!("@{}", path_text(&file))]).await;
    assert!(sent.status.success(), "{}", sent.stderr);
    let received = desk.receiver.wait_for(1).await;
    let body = String::from_utf8(received[0].body.clone()).unwrap();
    assert!(body.ends_with(&format!("\"data\":{data}}}")) && body.contains(r"a\r\nb"), "{body}");

    let mut piped = desk.command(&["trigger", "job.failed", "--data", "-", "--wait"]);
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(pretty.as_bytes()).await.unwrap();
    assert!(bounded("a trigger", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_failed_first_attempt_of_a_trigger_is_exit_1() {
    let desk = Desk::new().await;
    desk.receiver.otherwise(Answer::status(500));
    assert_eq!(desk.run(&["trigger", "job.failed", "--wait"]).await.status.code(), Some(1));
    let late = desk.run(&["trigger", "job.failed", "--wait=end", "--timeout", "50ms"]).await;
    assert_eq!(late.status.code(), Some(6));
    let nobody = desk.run(&["trigger", "note.created", "--wait"]).await;
    assert!(nobody.status.success() && nobody.stderr.contains("no endpoint gets this event"), "{nobody:?}");
}

#[tokio::test]
async fn a_portal_link_is_printed_for_a_key_that_may_make_it() {
    let desk = Desk::new().await;
    assert_eq!(desk.run(&["portal", "open", "--project", "proj_1"]).await.failure().0, 3);
    let key =
        desk.app.create_key("Acme", Mode::Live, &[Scope::PortalCreate, Scope::WebhooksManage, Scope::EventsRead], None);
    let key = desk.app.caller_with(key.await);
    let mut open = desk.command(&["portal", "open", "--project", "proj_1", "--read-only", "--expires-in", "10m"]);
    let opened = ended({
        open.env("POSTRIDER_API_KEY", key.secret().unwrap());
        open
    })
    .await;
    assert!(opened.status.success(), "{}", opened.stderr);
    assert!(opened.stdout.starts_with("http") && opened.stdout.contains("/portal/"), "{}", opened.stdout);
}

/// What is run, how, and the exit code with a part of the error.
type Row<'r> = (&'r str, Vec<&'r str>, Vec<(&'r str, String)>, i32, &'r str);

#[tokio::test]
async fn every_failure_has_its_exit_code() {
    let desk = Desk::new().await;
    let weak = desk.app.caller_of("Acme", &[Scope::EventsWrite]).await.secret().unwrap().to_owned();
    let closed = ReservedPort::reserve();
    let away = format!("http://{}", closed.address());
    let key = |key: &str| vec![("POSTRIDER_API_KEY", key.to_owned())];
    let url = |url: &str| vec![("POSTRIDER_URL", url.to_owned())];
    let evt = "evt_00000000000000000000";
    let rows: Vec<Row<'_>> = vec![
        ("done", vec!["events", "list"], vec![], 0, ""),
        ("refused by the server", vec!["events", "list", "--type", "job.lost"], vec![], 1, "type"),
        ("unknown flag", vec!["events", "list", "--colour"], vec![], 2, "--colour"),
        ("no id", vec!["events", "get", "../audit-log"], vec![], 2, "expected evt_"),
        ("no time", vec!["events", "list", "--since", "soon"], vec![], 2, "2h"),
        ("a write without a yes", vec!["endpoints", "delete", &desk.endpoint.id], vec![], 2, "--yes"),
        ("no base URL", vec!["events", "list"], url("127.0.0.1"), 2, "is not a base URL"),
        ("no key", vec!["events", "list"], key(""), 3, "POSTRIDER_API_KEY"),
        ("an unknown key", vec!["events", "list"], key("scripe_sk_live_no"), 3, "invalid_token"),
        ("a scope that is missing", vec!["events", "list"], key(&weak), 3, "scope_missing"),
        ("not found", vec!["events", "get", evt], vec![], 4, "not_found"),
        ("nobody listens", vec!["events", "list"], url(&away), 5, "cannot connect to"),
        ("nobody listens to tail", vec!["tail"], url(&away), 5, "cannot connect to"),
        ("time is up", vec!["trigger", "job.failed", "--wait=end", "--timeout", "0s"], vec![], 6, "--timeout"),
    ];
    desk.receiver.otherwise(Answer::status(500));
    for (what, arguments, environment, code, part) in rows {
        let mut command = desk.command(&arguments);
        command.envs(environment);
        let ended = ended(command).await;
        assert_eq!(ended.status.code(), Some(code), "{what}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{what}: {}", ended.stderr);
        assert!(code == 0 || !ended.stdout.contains("error"), "{what}: errors go to standard error");
    }
}

#[tokio::test]
async fn the_key_comes_from_a_file_standard_input_or_the_profile() {
    let desk = Desk::new().await;
    let (url, key) = (desk.url(), desk.app.caller().secret().unwrap().to_owned());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    fs::write(&file, format!("{key}\r\n")).unwrap();
    let list = ["events", "list", "--url", &url];
    let by_file = ended(command(&[&list[..], &["--api-key-file", path_text(&file)]].concat())).await;
    assert!(by_file.status.success(), "{}", by_file.stderr);
    let mut piped = command(&[&list[..], &["--api-key-file", "-"]].concat());
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).await.unwrap();
    assert!(bounded("a list", child.wait()).await.unwrap().success());

    let home = directory.path().join("postrider");
    fs::create_dir(&home).unwrap();
    let profile = home.join("profile.toml");
    fs::write(&profile, format!("url = \"{url}\"\napi_key = \"{key}\"\n")).unwrap();
    let with_profile = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("XDG_CONFIG_HOME", directory.path());
        ended(command)
    };
    fs::set_permissions(&profile, fs::Permissions::from_mode(0o644)).unwrap();
    let open = with_profile(&["events", "list"]).await;
    assert!(
        !open.status.success() && open.stderr.contains("chmod 600") && !open.stderr.contains(&key),
        "{}",
        open.stderr
    );
    fs::set_permissions(&profile, fs::Permissions::from_mode(0o600)).unwrap();
    let listed = with_profile(&["events", "list"]).await;
    assert!(listed.status.success(), "{}", listed.stderr);
    let elsewhere = with_profile(&["events", "list", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(elsewhere.status.code(), Some(3));
    assert!(elsewhere.stderr.contains("for another server"), "{}", elsewhere.stderr);
}

#[tokio::test]
async fn the_key_is_in_no_argument_note_or_error() {
    let desk = Desk::new().await;
    let key = desk.app.caller().secret().unwrap().to_owned();
    for arguments in
        [&["events", "list", "-v"][..], &["events", "get", "evt_00000000000000000000", "-v"], &["tail", "--event", "x"]]
    {
        let ended = desk.run(arguments).await;
        assert!(!ended.stderr.contains(&key) && !ended.stdout.contains(&key), "{ended:?}");
    }
    // A key that does not fit a header is not repeated either.
    let mut bad = desk.command(&["events", "list"]);
    bad.env("POSTRIDER_API_KEY", "hush hush");
    let bad = ended(bad).await;
    assert!(bad.status.code() == Some(2) && !bad.stderr.contains("hush"), "{}", bad.stderr);
    let flags = ended(command(&["events", "list", "--help"])).await.stdout;
    assert!(!flags.contains("--api-key ") && !flags.contains("--key"), "{flags}");
    let mut tail = desk.command(&["tail"]);
    let mut child = tail.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let arguments = format!("/proc/{}/cmdline", child.id().unwrap());
    assert!(!fs::read_to_string(arguments).unwrap().contains(&key));
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    let server = Receiver::start().await;
    let limited = r#"{"error":{"code":"rate_limited","message":"Slow down.","request_id":"req_x"}}"#;
    let page = r#"{"data":[],"pagination":{"next_cursor":null,"has_more":false}}"#;
    let json = |status: u16, body: &str| Answer::status(status).header("content-type", "application/json").body(body);
    server.then(json(429, limited).header("retry-after", "0")).then(json(200, page));
    let mut list = command(&["events", "list", "--url", &server.url("")]);
    list.env("POSTRIDER_API_KEY", "k");
    let listed = ended(list).await;
    assert!(listed.status.success() && listed.stderr.contains("429 rate_limited: asking again"), "{listed:?}");
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn colours_are_for_terminals_unless_they_are_forced() {
    let desk = Desk::new().await;
    desk.delivered("job.failed").await;
    for (arguments, is_coloured) in [
        (&["deliveries", "list"][..], false),
        (&["deliveries", "list", "--color", "always"], true),
        (&["deliveries", "list", "--color", "never"], false),
        (&["deliveries", "list", "--color", "always", "--output", "json"], false),
    ] {
        let shown = desk.run(arguments).await;
        assert!(
            shown.status.success() && shown.stdout.contains('\u{1b}') == is_coloured,
            "{arguments:?}: {}",
            shown.stdout
        );
    }
}

#[tokio::test]
async fn completions_and_man_pages_name_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = ended(command(&["completions", shell])).await;
        assert!(script.status.success() && script.stdout.contains("deliveries"), "{shell}");
    }
    assert_eq!(ended(command(&["completions", "tcsh"])).await.failure().0, 2);
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    assert!(ended(command(&["man", "--dir", path_text(&pages)])).await.status.success());
    let page = fs::read_to_string(pages.join("postrider-deliveries-retry.1")).unwrap();
    assert!(page.contains("postrider deliveries retry") && page.contains("timeout"), "{page}");
    let first = ended(command(&["man"])).await.stdout;
    assert!(first.contains(".TH postrider 1") && first.contains("postrider\\-verify(1)"), "{first}");
}

#[tokio::test]
async fn the_wait_of_a_command_ends_with_the_server() {
    let desk = Desk::new().await;
    desk.receiver.otherwise(Answer::status(500));
    let mut waiting = desk.command(&["trigger", "job.failed", "--wait=end", "--timeout", "60s"]);
    let mut child = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the first attempt", || async { (!desk.receiver.received().is_empty()).then_some(()) }).await;
    let mut app = desk.app;
    app.stop().await;
    assert_eq!(bounded("the end of the wait", child.wait()).await.unwrap().code(), Some(5));
}
