//! `postrider dashboard login`, with and without a running server.

use std::path::Path;

use serde_json::{Value, json};

use super::run;
use crate::server::session::origin;
use crate::support::app::App;

fn login(data_dir: &Path, arguments: &[&str]) -> Result<String, String> {
    run(data_dir, &[&["dashboard", "login"], arguments].concat())
}

fn code_in(link: &str) -> &str {
    link.split_once("/dashboard/login?code=").unwrap().1.lines().next().unwrap()
}

#[tokio::test]
async fn a_link_of_a_running_server_has_its_address_and_signs_in_once() {
    let app = App::start().await;
    let data = app.setup().settings.data_dir.clone();
    let printed = {
        let data = data.clone();
        tokio::task::spawn_blocking(move || login(&data, &["--workspace", "Acme", "--scope", "audit:read", "--test"]))
            .await
            .unwrap()
            .unwrap()
    };
    let start = format!("http://{}/dashboard/login?code=", app.server().address());
    assert!(printed.starts_with(&start), "{printed}");
    assert!(printed.contains("once, within 5 minutes. The session may: audit:read"), "{printed}");
    let service = app.server().service();
    let session = service.sign_in_by_code(code_in(&printed), origin()).await.unwrap();
    assert_eq!(
        (session.principal.scopes.to_string(), session.principal.tenant.mode.as_str()),
        ("audit:read".into(), "test")
    );
    assert!(service.sign_in_by_code(code_in(&printed), origin()).await.is_err());
}

#[test]
fn without_a_server_a_link_has_the_url_of_the_settings() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    run(data, &["keys", "create", "--workspace", "Acme"]).unwrap();
    let public = ["--workspace", "Acme", "--json", "--public-url", "https://hooks.example.com/sub/"];
    let printed: Value = serde_json::from_str(&login(data, &public).unwrap()).unwrap();
    let url = printed["url"].as_str().unwrap();
    assert!(url.starts_with("https://hooks.example.com/sub/dashboard/login?code="), "{url}");
    assert_eq!(code_in(url).len(), 64);
    let scopes = printed["scopes"].as_array().unwrap();
    assert!(scopes.contains(&json!("webhooks:manage")) && !scopes.contains(&json!("workspaces:manage")), "{scopes:?}");
    let listening = login(data, &["--workspace", "Acme", "--listen", "127.0.0.1:9999"]).unwrap();
    assert!(listening.starts_with("http://127.0.0.1:9999/dashboard/login?code="), "{listening}");
}

#[test]
fn a_link_needs_a_workspace_and_scopes_that_it_can_have() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let refused = |arguments: &[&str], why: &str| {
        let fault = login(data, arguments).unwrap_err();
        assert!(fault.contains(why), "{arguments:?}: {fault}");
    };
    refused(&["--workspace", "Initech"], "there is no workspace \"Initech\"");
    refused(&["--operations"], "there is no workspace \"operations\"");
    run(data, &["keys", "create", "--operations"]).unwrap();
    let reading: Value = serde_json::from_str(&login(data, &["--operations", "--json"]).unwrap()).unwrap();
    assert_eq!(reading["scopes"], json!(["webhooks:read", "events:read", "audit:read"]));
    refused(&["--operations", "--scope", "keys:manage"], "may have only webhooks:read, events:read, audit:read");
    refused(&["--workspace", "Initech", "--scope", "webhooks:everything"], "there is no scope");
    refused(&[], "--workspace");
}
