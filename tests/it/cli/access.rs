//! Keys, workspaces and the audit log on the command line, with and without a server.

use std::path::Path;

use serde_json::{Value, json};

use super::run;
use crate::support::app::{App, text};

fn list(data_dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let printed = run(data_dir, &[arguments, &["--json"]].concat()).unwrap();
    serde_json::from_str(&printed).unwrap()
}

fn create(data_dir: &Path, workspace: &str, arguments: &[&str]) -> Value {
    let fixed = ["keys", "create", "--json", "--workspace", workspace];
    serde_json::from_str(&run(data_dir, &[&fixed, arguments].concat()).unwrap()).unwrap()
}

#[test]
fn keys_and_workspaces_are_listed_newest_first_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let first = create(data, "Acme", &["--scope", "events:write", "--name", "billing", "--expires", "9998-12-31"]);
    let second = create(data, "Globex", &["--test", "--scope", "events:read"]);
    run(data, &["keys", "revoke", "--yes", &text(&second, "id")]).unwrap();
    let keys = list(data, &["keys", "list"]);
    assert_eq!([&keys[0]["id"], &keys[1]["id"]], [&second["id"], &first["id"]]);
    let mut shown = keys[1].clone();
    let members = shown.as_object_mut().unwrap();
    assert!(members.remove("createdAt").is_some() && members.remove("last4").is_some());
    let expected = json!({
        "id": first["id"], "workspaceId": first["workspaceId"], "name": "billing", "mode": "live",
        "scopes": ["events:write"], "expiresAt": "9998-12-31", "revokedAt": null,
        "createdBy": "command_line", "lastUsedAt": null,
    });
    assert_eq!(shown, expected);
    assert_eq!((&keys[0]["mode"], keys[0]["revokedAt"].is_string()), (&json!("test"), true));
    for workspace in ["Acme", &text(&first, "workspaceId")] {
        let of_one = list(data, &["keys", "list", "--workspace", workspace]);
        assert_eq!((of_one.len(), &of_one[0]["id"]), (1, &first["id"]));
    }
    let workspaces = list(data, &["workspaces", "list"]);
    assert_eq!([&workspaces[0]["name"], &workspaces[1]["name"]], ["Globex", "Acme"]);
    let table = run(data, &["keys", "list"]).unwrap();
    assert!(table.lines().nth(2).unwrap().contains("expires 9998-12-31"), "{table}");
    assert!(!table.contains(&text(&first, "key")));
    let unknown = run(data, &["keys", "list", "--workspace", "Initech"]).unwrap_err();
    assert!(unknown.contains("there is no workspace \"Initech\""), "{unknown}");
}

#[test]
fn a_test_key_cannot_manage_workspaces() {
    let directory = tempfile::tempdir().unwrap();
    let create = ["keys", "create", "--workspace", "Acme", "--scope", "workspaces:manage"];
    let refused = run(directory.path(), &[&create[..], &["--test"]].concat()).unwrap_err();
    assert!(refused.contains("workspaces:manage exists only for live keys"), "{refused}");
    assert!(list(directory.path(), &["keys", "list"]).is_empty());
    run(directory.path(), &create).unwrap();
}

#[test]
fn a_key_cannot_expire_in_the_past_or_on_an_invalid_date() {
    let directory = tempfile::tempdir().unwrap();
    let expires =
        |day| run(directory.path(), &["keys", "create", "--workspace", "Acme", "--expires", day]).unwrap_err();
    assert!(expires("2020-01-01").contains("must be a day after today (UTC)"));
    assert!(expires("2026-02-30").contains("must be a date from 1970-01-01 to 9999-12-31, like 2026-05-15"));
    assert!(list(directory.path(), &["keys", "list"]).is_empty());
}

#[tokio::test]
async fn keys_and_the_audit_log_are_read_from_the_server_page_by_page() {
    let app = App::set_up().await.real_time().start().await;
    let data = app.data_dir().to_owned();
    let commands = move || {
        let made = create(&data, "Acme", &["--scope", "audit:read"]);
        for _ in 0..205 {
            create_quickly(&data);
        }
        (made, list(&data, &["audit", "list", "--limit", "203"]), list(&data, &["keys", "list"]))
    };
    let (made, entries, keys) = tokio::task::spawn_blocking(commands).await.unwrap();
    assert_eq!((entries.len(), keys.len()), (203, 207));
    assert_eq!((&entries[0]["action"], &entries[0]["resourceId"]), (&json!("api_key.created"), &keys[0]["id"]));
    assert_eq!((&entries[0]["apiKeyId"], &entries[0]["mode"]), (&Value::Null, &json!("live")));
    assert_eq!(keys[205]["id"], made["id"]);
}

#[tokio::test]
async fn the_audit_log_is_exported_with_and_without_a_server() {
    let mut app = App::set_up().await.real_time().start().await;
    let data = app.data_dir().to_owned();
    let export = async |arguments: &'static [&'static str]| {
        let data = data.clone();
        let printed = move || run(&data, &[&["audit", "export"], arguments].concat()).unwrap();
        let printed = tokio::task::spawn_blocking(printed).await.unwrap();
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let filled = data.clone();
    tokio::task::spawn_blocking(move || (0..205).for_each(|_| create_quickly(&filled))).await.unwrap();
    app.caller().without("authorization").get("/v1/event-types").await.error(401, "invalid_token");
    let of_workspace = export(&["--workspace", "Acme"]).await;
    let oldest = of_workspace.last().unwrap();
    assert_eq!((of_workspace.len(), &oldest["action"]), (207, &json!("workspace.created")));
    assert_eq!(oldest["changes"], json!([{"field": "name", "old": null, "new": "Acme"}]));
    app.stop().await;
    let all = export(&[]).await;
    assert_eq!((all.len(), &all[0]["actor"], &all[0]["workspaceId"]), (208, &json!("unknown"), &Value::Null));
    assert_eq!((&all[0]["address"], &all[0]["refusal"]["count"]), (&json!("127.0.0.1"), &json!(1)));
    assert!(export(&["--until", "2020-01-01T00:00:00Z"]).await.is_empty());
    assert_eq!(export(&["--since", "2020-01-01T00:00:00Z"]).await.len(), 208);
}

/// Creates a key through the admin socket, which is faster than a process.
fn create_quickly(data_dir: &Path) {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(data_dir.join("admin.sock")).unwrap();
    let request = json!({"do": "create_key", "workspace": "Acme", "scopes": [], "test": false});
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("key_created"), "{answer}");
}
