//! `postrider health`: its exit code while the server runs, when it is degraded, and when there is none.

use super::new_data_dir;
use crate::support::process::{Serving, path_text, postrider};
use crate::support::receiver::{Behaviour, Receiver};

#[tokio::test]
async fn a_running_server_is_healthy_by_socket_and_by_url() {
    let (_parent, data_dir) = new_data_dir();
    let server = Serving::start(&data_dir, &[]).await;
    let url = format!("http://{}", server.caller().address());
    for arguments in [["--data-dir", path_text(&data_dir)], ["--url", url.as_str()]] {
        let ended = postrider(&[&["health"], arguments.as_slice()].concat()).await;
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(ended.stdout, "ok\n");
    }
}

#[tokio::test]
async fn without_a_server_the_check_fails_and_says_which_was_asked() {
    let (_parent, data_dir) = new_data_dir();
    let ended = postrider(&["health", "--data-dir", path_text(&data_dir)]).await;
    let (code, message) = ended.failure();
    assert_eq!(code, 1);
    assert!(message.starts_with("postrider: no server runs with this data directory ("), "{message}");
    assert!(!data_dir.exists(), "a check creates nothing");

    let ended = postrider(&["health", "--url", "127.0.0.1:1"]).await;
    let (code, message) = ended.failure();
    assert_eq!(code, 1);
    assert!(message.starts_with("postrider: \"127.0.0.1:1\" is not a base URL of the form https://host"), "{message}");
}

#[tokio::test]
async fn a_degraded_server_fails_the_check() {
    let receiver = Receiver::start().await;
    receiver.then(Behaviour::status(503));
    let base = receiver.url("/");
    let ended = postrider(&["health", "--url", base.trim_end_matches('/')]).await;
    let expected = "postrider: degraded: the server cannot read or write its store; its log has the cause";
    assert_eq!(ended.failure(), (1, expected));
}
