//! `postrider dashboard`: signs in to the dashboard without an API key.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use postrider_domain::access::Scope;

use crate::config::Settings;
use crate::server::admin::{AdminRequest, AdminResponse, CreateLogin, LoginCreated};

use super::admin::{Access, unexpected};
use super::options::LoginOptions;
use super::output;

#[derive(Debug, Subcommand)]
pub enum DashboardCommand {
    /// Print a link that signs in to the dashboard. It works once, within 5 minutes.
    Login(LoginArguments),
}

#[derive(Debug, Args)]
pub struct LoginArguments {
    /// Name or id of the workspace to sign in to.
    #[arg(long, required_unless_present = "operations")]
    workspace: Option<String>,
    /// Sign in to the server's own workspace, to read the deliveries of operational events.
    #[arg(long, conflicts_with_all = ["workspace", "test"])]
    operations: bool,
    /// Scope of the session. Repeatable [default: all but workspaces:manage; with --operations the reading ones]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<String>,
    /// Sign in to test mode.
    #[arg(long)]
    test: bool,
    /// Print JSON: url, expiresAt, scopes.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: LoginOptions,
}

/// The link as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkListed<'l> {
    url: &'l str,
    expires_at: &'l str,
    scopes: &'l [String],
}

pub async fn run(command: DashboardCommand) -> anyhow::Result<()> {
    let DashboardCommand::Login(LoginArguments { workspace, operations: _, scopes, test, json, server }) = command;
    let settings = server.settings()?;
    let own_url = public_url(&settings);
    let request = AdminRequest::CreateLogin(CreateLogin { workspace, scopes, test });
    let created = match Access::of(settings).perform_once(request).await? {
        AdminResponse::LoginCreated(created) => created,
        other => return unexpected(other),
    };
    let url = link(created.public_url.as_deref().unwrap_or(&own_url), &created.code);
    let LoginCreated { expires_at, valid_seconds, scopes, .. } = &created;
    let text = if json {
        serde_json::to_string(&LinkListed { url: &url, expires_at, scopes })?
    } else {
        format!(
            "{url}\n\nOpen this link to sign in. It works once, within {}. The session may: {}",
            validity(*valid_seconds),
            scopes.join(", ")
        )
    };
    output::only_copy(text).context("a link was created but not shown: create another")
}

/// The link of a login code.
pub fn link(public_url: &str, code: &str) -> String {
    format!("{}/dashboard/login?code={code}", public_url.trim_end_matches('/'))
}

/// `5 minutes`.
pub fn validity(seconds: u64) -> String {
    match seconds {
        60 => "1 minute".to_owned(),
        seconds if seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

/// What a server with these settings would call itself. A running one says it itself: its port may have been free for
/// the system to choose.
fn public_url(settings: &Settings) -> String {
    let scheme = if settings.tls_cert_file.is_some() { "https" } else { "http" };
    settings.public_url.clone().unwrap_or_else(|| format!("{scheme}://{}", settings.listen))
}

fn scope(text: &str) -> Result<String, String> {
    text.parse::<Scope>().map(|scope| scope.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_below_the_public_url() {
        let ours = "https://hooks.example.com/postrider/dashboard/login?code=ab";
        for base in ["https://hooks.example.com/postrider", "https://hooks.example.com/postrider/"] {
            assert_eq!(link(base, "ab"), ours);
        }
        assert_eq!([300, 60, 90].map(validity), ["5 minutes", "1 minute", "90 seconds"]);
    }
}
