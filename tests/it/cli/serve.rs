//! `postrider serve` as a process: settings, logs, master key, locks and shutdown.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::new_data_dir;
use crate::support::app::text;
use crate::support::process::{Serving, command, create_key, path_text, postrider};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver, refuses};
use crate::support::tls::TestCa;
use crate::support::verify::verify_as_integrator;
use crate::support::wait::eventually;

const SCOPES: &[&str] = &["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"];

#[tokio::test]
async fn a_server_process_delivers_a_webhook() {
    let (_parent, data_dir) = new_data_dir();
    let receiver = Receiver::start().await;
    let arguments = ["--allow-target", "127.0.0.1", "--retry-schedule", "1ms,1ms"];
    let server = Serving::start(&data_dir, &arguments).await;
    let caller = server.caller().key(&text(&create_key(&data_dir, SCOPES).await, "key"));
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["job.failed"]});
    let secret = text(&caller.post("/v1/webhook-endpoints", body).await.data(200), "secret");
    receiver.then(Behaviour::status(500)).then(Behaviour::status(500));
    caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    let received = receiver.wait_for(3).await;
    for (index, request) in received.iter().enumerate() {
        verify_as_integrator(&secret, request).unwrap();
        assert_eq!(request.header("scripe-delivery-attempt"), Some(&*(index + 1).to_string()));
    }
    let [key, secret] = [caller.secret().unwrap(), secret.trim_start_matches("whsec_")];
    server.tell_to_stop().await;
    let (status, log) = { server.ended().await };
    assert!(status.success());
    for line in &log {
        assert!(!line.contains(key) && !line.contains(secret), "a secret is logged: {line}");
        assert!(serde_json::from_str::<Value>(line).unwrap()["timestamp"].is_string(), "{line}");
    }
}

/// `trace` also enables the log lines of the libraries.
#[tokio::test]
async fn trace_logs_contain_no_secret_endpoint_options() {
    let (_parent, data_dir) = new_data_dir();
    let receiver = Receiver::start().await;
    let server = Serving::start(&data_dir, &["--allow-target", "127.0.0.1", "--log", "trace"]).await;
    let caller = server.caller().key(&text(&create_key(&data_dir, SCOPES).await, "key"));
    let pem = TestCa::new().client("acme");
    let body = json!({
        "name": "A",
        "url": receiver.url("/"),
        "events": ["job.failed"],
        "headers": {"X-Token": "hush-hush"},
        "signatureSchemes": ["v1", "v1a"],
        "clientCertificate": {"certificate": pem.chain, "privateKey": pem.key},
    });
    caller.post("/v1/webhook-endpoints", body).await.data(200);
    caller
        .post("/v1/webhook-endpoints", json!({"headers": {"X-Token": "hush-hush\n"}}))
        .await
        .error(400, "invalid_request");
    caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    assert_eq!(receiver.wait_for(1).await[0].header("x-token"), Some("hush-hush"));
    server.tell_to_stop().await;
    let (_, log) = server.ended().await;
    assert!(log.iter().any(|line| line.contains("\"DEBUG\"")), "the finer levels are on");
    let key_line = pem.key.lines().nth(1).unwrap();
    for line in &log {
        for secret in ["hush-hush", "whsk_", key_line] {
            assert!(!line.contains(secret), "a secret is logged: {line}");
        }
    }
}

#[tokio::test]
async fn the_log_names_allowed_targets_and_the_proxy_at_the_start() {
    let (_parent, data_dir) = new_data_dir();
    let arguments = ["--allow-target", "127.0.0.0/8,hooks.local", "--egress-proxy", "http://a:hunter2@127.0.0.1:3128"];
    let server = Serving::start(&data_dir, &arguments).await;
    let log: Vec<Value> = server.log().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for target in ["127.0.0.0/8", "hooks.local"] {
        assert!(log.iter().any(|line| line["level"] == "WARN" && line["allow_target"] == target), "{target}: {log:?}");
    }
    assert!(log.iter().any(|line| line["proxy"] == "http://127.0.0.1:3128"), "{log:?}");
    assert!(!server.log().iter().any(|line| line.contains("hunter2")));
}

#[tokio::test]
async fn sigterm_finishes_running_attempts_and_exits_with_success() {
    let (_parent, data_dir) = new_data_dir();
    let receiver = Receiver::start().await;
    let server = Serving::start(&data_dir, &["--allow-target", "127.0.0.1"]).await;
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let caller = server.caller().key(&key);
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["job.failed"]});
    caller.post("/v1/webhook-endpoints", body).await.data(200);
    let gate = Gate::closed();
    receiver.then(Behaviour::Hold(gate.clone(), Answer::status(200)));
    caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    receiver.wait_for(1).await;
    server.tell_to_stop().await;
    let address = server.caller().address();
    eventually("the API to be closed", || async { refuses(address).await.then_some(()) }).await;
    gate.open();
    let (status, log) = server.ended().await;
    assert!(status.success(), "{log:?}");
    assert!(log.last().unwrap().contains("\"message\":\"stopped\""), "{log:?}");

    let server = Serving::start(&data_dir, &[]).await;
    let caller = server.caller().key(&key);
    let delivery = caller.get("/v1/webhook-deliveries").await.data(200)[0].clone();
    assert_eq!((&delivery["status"], &delivery["attemptCount"]), (&json!("delivered"), &json!(1)));
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_with_the_reason() {
    let (_parent, data_dir) = new_data_dir();
    let server = Serving::start(&data_dir, &[]).await;
    let directory = path_text(&data_dir);
    let ended = postrider(&["serve", "--listen", "127.0.0.1:0", "--data-dir", directory]).await;
    let (code, stderr) = ended.failure();
    assert_eq!(code, 1);
    let reason = format!("{directory} is in use by another postrider process");
    assert!(stderr.lines().last().unwrap().contains(&reason), "{stderr}");
    assert_eq!(server.caller().get("/v1/health").await.status, 200, "the first is not disturbed");
    create_key(&data_dir, &["--workspace", "Acme"]).await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (_parent, data_dir) = new_data_dir();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = postrider(&["serve", "--listen", &address, "--data-dir", path_text(&data_dir)]).await;
    let (code, stderr) = ended.failure();
    assert_eq!(code, 1);
    assert!(stderr.lines().last().unwrap().contains(&format!("cannot listen on {address}")), "{stderr}");
}

#[tokio::test]
async fn only_the_owner_can_read_a_new_master_key_and_its_directory() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme"]).await;
    let mode = |name: &str| std::fs::metadata(data_dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("master.key"), 0o600);
    assert_eq!(mode("") & 0o077, 0, "nobody else may look into the directory");
    let key = std::fs::read_to_string(data_dir.join("master.key")).unwrap();
    assert_eq!(key.trim().len(), 64);
    let _server = Serving::start(&data_dir, &[]).await;
    assert_eq!(mode("admin.sock"), 0o600);
}

#[tokio::test]
async fn a_store_opens_only_with_the_master_key_it_was_created_with() {
    let (parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme"]).await;
    let directory = path_text(&data_dir).to_owned();
    let serve = async |more: &[&str]| {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--data-dir", &*directory];
        arguments.extend_from_slice(more);
        let ended = postrider(&arguments).await;
        ended.failure().1.lines().last().unwrap().to_owned()
    };
    let key_file = data_dir.join("master.key");
    let kept = std::fs::read(&key_file).unwrap();

    std::fs::write(&key_file, "00".repeat(32)).unwrap();
    let message = serve(&[]).await;
    let reason = "the store and the master key do not belong together: the store was made with the master key ";
    assert!(message.contains(reason), "{message}");

    std::fs::write(&key_file, "not a key").unwrap();
    assert!(serve(&[]).await.ends_with("does not hold 64 hexadecimal digits"));

    std::fs::remove_file(&key_file).unwrap();
    let message = serve(&[]).await;
    assert!(message.ends_with("is missing, but the store was created with a key: restore the file"), "{message}");
    assert!(!key_file.exists(), "no other key takes its place");

    let elsewhere = parent.path().join("elsewhere.key");
    let message = serve(&["--master-key-file", path_text(&elsewhere)]).await;
    assert!(message.contains(&format!("cannot read the master key file {}", elsewhere.display())), "{message}");
    assert!(!elsewhere.exists(), "a key is made in the data directory alone");

    std::fs::write(&elsewhere, kept).unwrap();
    let server = Serving::start(&data_dir, &["--master-key-file", path_text(&elsewhere)]).await;
    assert_eq!(server.caller().get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn settings_can_come_from_the_environment() {
    let (_parent, data_dir) = new_data_dir();
    let receiver = Receiver::start().await;
    let mut command = command(&["serve"]);
    command
        .env("POSTRIDER_LISTEN", "127.0.0.1:0")
        .env("POSTRIDER_DATA_DIR", &data_dir)
        .env("POSTRIDER_LOG_FORMAT", "json")
        .env("POSTRIDER_ALLOW_TARGET", "10.9.8.7,127.0.0.0/8")
        .env("POSTRIDER_RETRY_SCHEDULE", "1ms");
    let server = Serving::of(command).await;
    let caller = server.caller().key(&text(&create_key(&data_dir, SCOPES).await, "key"));
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["job.failed"]});
    caller.post("/v1/webhook-endpoints", body).await.data(200);
    receiver.then(Behaviour::status(500));
    caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    receiver.wait_for(2).await;
}

#[tokio::test]
async fn an_invalid_setting_is_reported_with_its_flag() {
    let wrong = [
        (["--allow-target", "ftp://example.com"], "--allow-target"),
        (["--allow-target", "0.0.0.0/0"], "is too wide"),
        (["--deny-target", "http://a"], "--deny-target"),
        (["--allow-target", "10.0.0.1/8"], "did you mean 10.0.0.0/8?"),
        (["--retry-schedule", "soon"], "\"soon\" is not a duration like 500ms, 5s, 30m or 2h"),
        (["--dns-server", "resolver"], "is not an address like 127.0.0.1 or 127.0.0.1:5353"),
        (["--listen", "8080"], "--listen"),
        (["--log-format", "xml"], "must be text or json"),
    ];
    for (arguments, reason) in wrong {
        let ended = postrider(&["serve", arguments[0], arguments[1]]).await;
        let (code, stderr) = ended.failure();
        assert_eq!(code, 2);
        assert!(stderr.contains(reason) && stderr.contains(arguments[0]), "{stderr}");
    }
}

#[tokio::test]
async fn a_data_directory_too_deep_for_a_socket_is_not_created() {
    let (parent, _) = new_data_dir();
    let data_dir = parent.path().join("d".repeat(120));
    let ended = postrider(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()]).await;
    assert!(!ended.status.success() && ended.stderr.contains("use a shorter --data-dir"), "{}", ended.stderr);
    assert!(!data_dir.exists());
}
