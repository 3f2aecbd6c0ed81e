//! `postrider keys create` and `postrider keys revoke`, with and without a running server.

use serde_json::{Value, json};

use super::new_data_dir;
use crate::support::app::text;
use crate::support::process::{Serving, create_key, path_text, postrider};
use crate::support::wait::eventually;

const DELIVERIES: &str = "/v1/webhook-deliveries";

#[tokio::test]
async fn a_key_created_without_a_server_is_printed_as_json_and_works() {
    let (_parent, data_dir) = new_data_dir();
    let arguments = ["--workspace", "Acme", "--scope", "webhooks:read", "--scope", "events:write"];
    let created = create_key(&data_dir, &arguments).await;
    let members: Vec<&str> = created.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["id", "key", "workspaceId", "scopes"]);
    assert!(text(&created, "id").starts_with("key_"));
    assert!(text(&created, "key").starts_with("scripe_sk_live_"));
    assert!(text(&created, "workspaceId").starts_with("org_"));
    assert_eq!(created["scopes"], json!(["webhooks:read", "events:write"]));

    let server = Serving::start(&data_dir, &[]).await;
    let caller = server.caller().key(&text(&created, "key"));
    assert_eq!(caller.get(DELIVERIES).await.status, 200);
    caller.post("/v1/webhook-endpoints", json!({})).await.error(403, "scope_missing");
}

#[tokio::test]
async fn a_key_created_while_the_server_runs_works_at_once() {
    let (_parent, data_dir) = new_data_dir();
    let server = Serving::start(&data_dir, &[]).await;
    let created = create_key(&data_dir, &["--workspace", "Acme", "--scope", "webhooks:read"]).await;
    let caller = server.caller().key(&text(&created, "key"));
    assert_eq!(caller.get(DELIVERIES).await.status, 200);

    let test = create_key(&data_dir, &["--workspace", "Acme", "--test"]).await;
    assert!(text(&test, "key").starts_with("scripe_sk_test_"));
    assert_eq!(test["workspaceId"], created["workspaceId"], "a name is one workspace");
    assert_eq!(test["scopes"], json!([]));
    let other = create_key(&data_dir, &["--workspace", "Globex"]).await;
    assert_ne!(other["workspaceId"], created["workspaceId"]);
}

#[tokio::test]
async fn without_json_the_key_is_printed_as_text() {
    let (_parent, data_dir) = new_data_dir();
    let arguments = ["keys", "create", "--workspace", "Acme", "--data-dir", path_text(&data_dir)];
    let ended = postrider(&arguments).await;
    assert!(ended.status.success());
    let words: Vec<&str> = ended.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(words, ["key", "id", "workspace", "scopes"]);
    assert!(ended.stdout.contains("(shown only now; store it safely)"));
    assert!(ended.stdout.ends_with("scopes     none: the key may do nothing\n"), "{}", ended.stdout);
}

#[tokio::test]
async fn a_key_revoked_while_the_server_runs_stops_working() {
    let (_parent, data_dir) = new_data_dir();
    let server = Serving::start(&data_dir, &[]).await;
    let created = create_key(&data_dir, &["--workspace", "Acme", "--scope", "webhooks:read"]).await;
    let caller = server.caller().key(&text(&created, "key"));
    assert_eq!(caller.get(DELIVERIES).await.status, 200);
    let id = text(&created, "id");
    let ended = postrider(&["keys", "revoke", "--yes", &id, "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stdout, format!("{id} is revoked; it stops working within 5 seconds\n"));
    let refused = || async { (caller.get(DELIVERIES).await.status == 401).then_some(()) };
    eventually("the key to stop", refused).await;
    caller.get(DELIVERIES).await.error(401, "key_revoked");
}

#[tokio::test]
async fn a_key_revoked_without_a_server_is_refused_by_the_next() {
    let (_parent, data_dir) = new_data_dir();
    let created = create_key(&data_dir, &["--workspace", "Acme", "--scope", "webhooks:read"]).await;
    let id = text(&created, "id");
    let ended = postrider(&["keys", "revoke", "--yes", &id, "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let server = Serving::start(&data_dir, &[]).await;
    server.caller().key(&text(&created, "key")).get(DELIVERIES).await.error(401, "key_revoked");
}

#[tokio::test]
async fn keys_can_be_created_after_a_server_was_killed() {
    let (_parent, data_dir) = new_data_dir();
    Serving::start(&data_dir, &[]).await.kill().await;
    assert!(data_dir.join("admin.sock").exists(), "a dead socket is left");
    let created: Value = create_key(&data_dir, &["--workspace", "Acme"]).await;
    assert!(text(&created, "id").starts_with("key_"));
}

#[tokio::test]
async fn failures_print_the_reason_with_and_without_a_server() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme"]).await;
    let directory = path_text(&data_dir);
    let mut server = None;
    for with_server in [false, true] {
        if with_server {
            server = Some(Serving::start(&data_dir, &[]).await);
        }
        let ended = postrider(&["keys", "revoke", "--yes", "key_0000000000000000", "--data-dir", directory]).await;
        assert_eq!(ended.failure(), (1, "postrider: there is no API key key_0000000000000000"));
        let ended = postrider(&["keys", "revoke", "--yes", "scripe_sk_live_x", "--data-dir", directory]).await;
        let expected = "postrider: \"scripe_sk_live_x\" is not the id of an API key; one looks like key_…";
        assert_eq!(ended.failure(), (1, expected));
        let ended = postrider(&["keys", "create", "--workspace", "", "--data-dir", directory]).await;
        assert!(ended.failure().1.starts_with("postrider: the workspace's name"), "{}", ended.stderr);
    }
    drop(server);
    let ended = postrider(&["keys", "create", "--workspace", "Acme", "--scope", "all", "--data-dir", directory]).await;
    let (code, stderr) = ended.failure();
    assert_eq!(code, 2);
    assert!(stderr.contains("there is no scope \"all\"; the scopes are webhooks:manage, webhooks:read"), "{stderr}");
    assert_eq!(ended.stdout, "");
}

#[tokio::test]
async fn a_workspace_is_named_by_its_name_or_its_id() {
    let (_parent, data_dir) = new_data_dir();
    let created = create_key(&data_dir, &["--workspace", "Acme"]).await;
    let id = text(&created, "workspaceId");
    assert_eq!(text(&create_key(&data_dir, &["--workspace", &id]).await, "workspaceId"), id);
    let directory = path_text(&data_dir);
    let refused = async |arguments: &[&str]| {
        let mut all = vec!["keys", "create", "--data-dir", directory];
        all.extend(arguments);
        let ended = postrider(&all).await;
        let (code, stderr) = ended.failure();
        (code, stderr.to_owned())
    };
    let missing = refused(&["--workspace", "org_0000000000000000"]).await;
    assert_eq!(missing, (1, "postrider: there is no workspace org_0000000000000000".to_owned()));
    let own = refused(&["--workspace", "operations"]).await.1;
    assert!(own.ends_with("which belongs to the server (use --operations)"), "{own}");
    let manage = refused(&["--operations", "--scope", "webhooks:manage"]).await.1;
    assert!(manage.contains("may have only webhooks:read, events:read, audit:read"), "{manage}");
    assert_eq!(refused(&["--operations", "--workspace", "Acme"]).await.0, 2);
    assert_eq!(refused(&[]).await.0, 2);

    let own = create_key(&data_dir, &["--operations", "--scope", "webhooks:read"]).await;
    assert_ne!(own["workspaceId"], created["workspaceId"]);
    let server = Serving::start(&data_dir, &[]).await;
    assert_eq!(server.caller().key(&text(&own, "key")).get(DELIVERIES).await.status, 200);
}

#[tokio::test]
async fn a_key_is_revoked_with_the_keys_that_it_made() {
    let (_parent, data_dir) = new_data_dir();
    let server = Serving::start(&data_dir, &[]).await;
    let created = create_key(&data_dir, &["--workspace", "Acme", "--scope", "keys:manage"]).await;
    let caller = server.caller().key(&text(&created, "key"));
    let child = caller.post("/v1/api-keys", json!({"scopes": ["keys:manage"]})).await.data(200);
    let id = text(&created, "id");
    let ended =
        postrider(&["keys", "revoke", "--yes", &id, "--with-children", "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let expected = format!(
        "{id} is revoked; it stops working within 5 seconds\n{} is revoked; it was made by it\n",
        text(&child, "id")
    );
    assert_eq!(ended.stdout, expected);
    let child = server.caller().key(&text(&child, "key"));
    let refused = || async { (child.get("/v1/api-keys").await.status == 401).then_some(()) };
    eventually("the child to stop", refused).await;
}

#[tokio::test]
async fn everything_in_the_data_directory_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_parent, data_dir) = new_data_dir();
    std::fs::create_dir(&data_dir).unwrap();
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let server = Serving::start(&data_dir, &["--operator-webhook-url", "https://operations.example.com/"]).await;
    create_key(&data_dir, &["--workspace", "Acme"]).await;
    assert_eq!(mode(&data_dir), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&data_dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort_unstable();
    let expected = [
        "admin.sock",
        "lock",
        "master.key",
        "operator-webhook.secret",
        "postrider.db",
        "postrider.db-shm",
        "postrider.db-wal",
        "reserve",
    ];
    assert_eq!(names, expected);
    drop(server);
}
