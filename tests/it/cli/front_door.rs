//! The listener of a server process: deliveries while callers use up its connections, and its certificate.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::new_data_dir;
use crate::support::app::text;
use crate::support::process::{Serving, command, create_key, path_text, postrider};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver, try_connect};
use crate::support::tls::TestCa;
use crate::support::wait::{bounded, eventually};

const SCOPES: &[&str] =
    &["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write", "--scope", "webhooks:read"];

/// A server that may have this many files open.
fn with_open_files(count: u32, arguments: &[&str]) -> Command {
    let server = command(arguments);
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {count}; exec \"$0\" \"$@\"")).arg(server.as_std().get_program());
    limited.args(arguments).env_clear().kill_on_drop(true);
    limited
}

#[tokio::test]
async fn deliveries_go_on_when_callers_use_up_all_connections() {
    let (_parent, data_dir) = new_data_dir();
    let receiver = Receiver::start().await;
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir", path_text(&data_dir)];
    let more = ["--allow-target", "127.0.0.1", "--retry-schedule", "1ms"];
    let server = Serving::of(with_open_files(200, &[&arguments[..], &more].concat())).await;
    let caller = server.caller().key(&text(&create_key(&data_dir, SCOPES).await, "key"));
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["job.failed"]});
    caller.post("/v1/webhook-endpoints", body).await.data(200);
    let gate = Gate::closed();
    // The second attempt needs a new connection: the answer to the first closes its own.
    receiver.then(Behaviour::Hold(gate.clone(), Answer::status(500).header("connection", "close")));
    caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    receiver.wait_for(1).await;
    let mut half_sent = Vec::new();
    for _ in 0..250 {
        let mut client = try_connect(caller.address()).await.unwrap();
        client.write_all(b"GET /v1/health HTTP/1.1\r\nhost").await.unwrap();
        half_sent.push(client);
    }
    gate.open();
    receiver.wait_for(2).await;
    drop(half_sent);
    let delivered = async || {
        let log = caller.get("/v1/webhook-deliveries?status=delivered").await.data(200);
        log[0]["id"].as_str().map(str::to_owned)
    };
    let id = eventually("the delivery in the log", delivered).await;
    let delivery = caller.get(&format!("/v1/webhook-deliveries/{id}")).await.data(200);
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 2, "{delivery:#}");
    assert!(!server.log().iter().any(|line| line.contains("cannot accept a connection")), "files are left");
}

#[tokio::test]
async fn a_hang_up_reads_the_certificate_again_and_ends_nothing() {
    let (parent, data_dir) = new_data_dir();
    let (chain, key) = (parent.path().join("tls.pem"), parent.path().join("tls.key"));
    let (chain_pem, key_pem) = TestCa::new().leaf_pem(&["127.0.0.1"]);
    std::fs::write(&chain, chain_pem).unwrap();
    std::fs::write(&key, key_pem).unwrap();
    let files = ["--tls-cert-file", path_text(&chain), "--tls-key-file", path_text(&key)];

    let half = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path_text(&data_dir), files[0], files[1]];
    let ended = postrider(&half).await;
    assert!(ended.failure().1.contains("--tls-cert-file and --tls-key-file belong together"), "{}", ended.stderr);

    let server = Serving::start(&data_dir, &files).await;
    let logged = async |text: &str| {
        let found = async || server.log().iter().any(|line| line.contains(text)).then_some(());
        eventually(text, found).await;
    };
    server.hang_up().await;
    logged("the certificate has been read again").await;
    std::fs::write(&key, "nonsense").unwrap();
    server.hang_up().await;
    logged("cannot use the new certificate; keeping the old one").await;
    server.tell_to_stop().await;
    assert!(bounded("the end", server.ended()).await.0.success());

    let plain = Serving::start(&data_dir, &[]).await;
    plain.hang_up().await;
    assert_eq!(plain.caller().get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn a_changed_certificate_is_read_again_without_a_hang_up() {
    let (parent, data_dir) = new_data_dir();
    let (chain, key) = (parent.path().join("tls.pem"), parent.path().join("tls.key"));
    let replace = || {
        let (chain_pem, key_pem) = TestCa::new().leaf_pem(&["127.0.0.1"]);
        std::fs::write(&chain, chain_pem).unwrap();
        std::fs::write(&key, key_pem).unwrap();
    };
    replace();
    let files = ["--tls-cert-file", path_text(&chain), "--tls-key-file", path_text(&key)];
    let server = Serving::start(&data_dir, &files).await;
    replace();
    let read_again =
        async || server.log().iter().any(|line| line.contains("the certificate has been read again")).then_some(());
    eventually("the new certificate in the log", read_again).await;
}
