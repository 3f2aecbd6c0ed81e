//! `postrider verify`: captured requests, right and wrong, in each form that it reads.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::support::process::{Ended, command, path_text, postrider};
use crate::support::wait::bounded;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT: &str = "2021-02-25T15:02:10Z";
const BODY: &str = r#"{"test": 2432232314}"#;
/// Of the test vector of Standard Webhooks.
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        files.write("secret", &format!("{SECRET}\n"));
        files
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: &str) -> String {
        path_text(&self.directory.path().join(name)).to_owned()
    }

    /// Verifies a request in a file, at the time of the vector.
    async fn verify(&self, request: &str, more: &[&str]) -> Ended {
        let (secret, request) = (self.path("secret"), self.write("request", request));
        let mut arguments = vec!["verify", "--secret-file", &secret, "--request", path_text(&request), "--at", AT];
        arguments.extend_from_slice(more);
        postrider(&arguments).await
    }
}

fn raw(body: &str) -> String {
    format!(
        "POST /hooks HTTP/1.1\r\nHost: localhost\r\nwebhook-id: {ID}\r\nwebhook-timestamp: 1614265330\r\n\
         webhook-signature: {SIGNATURE}\r\n\r\n{body}"
    )
}

fn headers() -> Value {
    json!([
        {"name": "webhook-id", "value": ID},
        {"name": "webhook-timestamp", "value": "1614265330"},
        {"name": "webhook-signature", "value": SIGNATURE},
    ])
}

#[tokio::test]
async fn a_right_request_shows_a_good_mark_for_each_step() {
    let ended = Files::new().verify(&raw(BODY), &[]).await;
    assert!(ended.status.success(), "{ended:?}");
    insta::assert_snapshot!(ended.stdout, @"
    Secret         ✓ The secret has the right form.
    Headers        ✓ The three headers are there.
    Time           ✓ The timestamp is within 5 minutes of now.
    Signature      ✓ The signature fits secret, headers and body.

    It verifies.
    ");
}

#[tokio::test]
async fn a_changed_body_is_explained_with_code_for_five_frameworks() {
    let ended = Files::new().verify(&raw(r#"{"test":2432232314}"#), &[]).await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(1), ""));
    insta::assert_snapshot!(ended.stdout, @r#"
    Secret         ✓ The secret has the right form.
    Headers        ✓ The three headers are there.
    Time           ✓ The timestamp is within 5 minutes of now.
    Signature      ✗ The signature does not fit secret, headers and body.
    Cause          ✗ The signature fits when the body is JSON that was parsed and written again with a space after commas and colons, as of Python.

    It does not verify, and the cause is known.

    Take the body as the bytes that arrived:
      Express  app.post("/webhooks", express.raw({ type: "*/*" }), handler)  // before any express.json()
      Flask    body = request.get_data()  # not request.json, not request.form
      Rails    body = request.raw_post  # not params
      Spring   @RequestBody byte[] body  // not a class, not a Map
      Axum     body: Bytes  // the last argument, not Json<T>
    "#);
}

#[tokio::test]
async fn each_form_of_a_request_is_read() {
    let files = Files::new();
    let har = json!({"log": {"entries": [{"request": {"headers": headers(), "postData": {"text": BODY}}}]}});
    let line = json!({"kind": "event", "headers": headers(), "body_b64": "eyJ0ZXN0IjogMjQzMjIzMjMxNH0="});
    for request in [har.to_string(), line.to_string(), raw(BODY).replace("\r\n", "\n")] {
        let ended = files.verify(&request, &[]).await;
        assert!(ended.status.success(), "{request}: {ended:?}");
    }
    let delivery =
        files.write("delivery", &json!({"id": "dlv_1", "attempts": [{"requestHeaders": headers()}]}).to_string());
    let (secret, body) = (files.path("secret"), format!("@{}", path_text(&files.write("body", BODY))));
    let of_delivery =
        ["verify", "--secret-file", &secret, "--delivery", path_text(&delivery), "--body", &body, "--at", AT];
    assert!(postrider(&of_delivery).await.status.success());
    let parts = [
        ["verify", "--secret-file", &secret, "--id", ID, "--timestamp", "1614265330"].as_slice(),
        &["--signature", SIGNATURE, "--body", BODY, "--at", AT],
    ]
    .concat();
    assert!(postrider(&parts).await.status.success());
}

#[tokio::test]
async fn a_previous_secret_is_named_as_the_cause() {
    let files = Files::new();
    let previous = files.write("previous", SECRET);
    files.write("secret", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n");
    let more = ["--previous-secret-file", path_text(&previous), "--output", "json"];
    let ended = files.verify(&raw(BODY), &more).await;
    assert_eq!(ended.status.code(), Some(1));
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&found["kind"], &found["verdict"]), (&json!("verification"), &json!("cause_found")));
    let cause = found["findings"].as_array().unwrap().iter().find(|finding| finding["step"] == "cause").unwrap();
    assert_eq!(cause["text"], "The signature fits when the key is that of secret 1 of the other secrets.");
    assert!(found["advice"][0]["code"]["Express"].as_str().unwrap().contains("base64"));
    assert!(!ended.stdout.contains("C2FVsB") && !ended.stdout.contains("MfKQ9r"), "no secret is printed");
}

#[tokio::test]
async fn an_old_request_fails_until_the_time_fits() {
    let files = Files::new();
    let late = ["--at", "2021-02-25T16:02:10Z"];
    let secret = files.path("secret");
    let request = files.write("request", &raw(BODY));
    let verify = async |more: &[&str]| {
        let all = [&["verify", "--secret-file", &secret, "--request", path_text(&request)], more].concat();
        postrider(&all).await
    };
    let ended = verify(&late).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.contains("Time           ✗ The request is 60 minutes old."), "{}", ended.stdout);
    assert!(verify(&[late.as_slice(), &["--tolerance", "1h"]].concat()).await.status.success());
}

#[tokio::test]
async fn a_request_cannot_steer_the_terminal() {
    let evil = raw(BODY).replace(ID, "a\u{1b}]52;c;aGk=\u{7}\u{1b}]8;;http://x\u{1b}\\\u{202e}\u{1b}[2J");
    for form in ["human", "json"] {
        let ended = Files::new().verify(&evil, &["--output", form, "--color", "never"]).await;
        assert_eq!(ended.status.code(), Some(1));
        let shown = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}', '\r']), "{shown:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_of_usage() {
    let files = Files::new();
    let no_request = files.verify("hello", &[]).await;
    assert_eq!(no_request.status.code(), Some(2));
    assert!(no_request.stderr.contains("request holds no headers"), "{}", no_request.stderr);
    let no_body = files.verify(raw("").trim_end(), &[]).await;
    assert!(no_body.stderr.contains("--body @FILE") && no_body.status.code() == Some(2), "{}", no_body.stderr);
    let secret = files.path("secret");
    let nothing = postrider(&["verify", "--secret-file", &secret]).await;
    assert_eq!(nothing.status.code(), Some(2));
    let twice = postrider(&["verify", "--secret-file", "-", "--request", "-"]).await;
    assert!(twice.stderr.contains("only one of the files can be -"), "{}", twice.stderr);
    let missing = files.path("missing");
    let unread = postrider(&["verify", "--secret-file", &missing, "--request", "-"]).await;
    assert!(unread.status.code() == Some(1) && unread.stderr.contains("cannot read the file"), "{}", unread.stderr);
}

#[tokio::test]
async fn a_secret_comes_from_standard_input_and_is_never_shown() {
    let files = Files::new();
    let request = files.write("request", &raw(BODY));
    let arguments = ["verify", "--secret-file", "-", "--request", path_text(Path::new(&request)), "--at", AT];
    let mut child =
        command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{SECRET}\r\n").as_bytes()).await.unwrap();
    drop(stdin);
    let ended = bounded("the end of a command", child.wait_with_output()).await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    assert!(!String::from_utf8_lossy(&ended.stdout).contains("MfKQ9r"));
}
