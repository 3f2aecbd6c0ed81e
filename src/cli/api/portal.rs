//! `postrider portal`: a link to the portal of a project.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::instant::duration;
use super::super::output;
use super::list::with_kind;
use super::session::ApiOptions;
use super::show::text;

#[derive(Debug, Subcommand)]
pub enum PortalCommand {
    /// Make a portal session and print its link. Needs a key with the scope portal:create.
    Open(OpenOptions),
}

#[derive(Debug, Args)]
pub struct OpenOptions {
    /// Project whose endpoints the session manages.
    #[arg(long = "project", alias = "project-id", value_name = "PROJECT")]
    project: String,
    /// When the session ends: 5m to 24h.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    expires_in: Duration,
    /// The session may look at everything and change nothing.
    #[arg(long)]
    read_only: bool,
    /// Language of the pages: en or de [default: that of the browser]
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// Also open the link in a browser. Other users of this machine may then see it among the processes.
    #[arg(long)]
    browser: bool,
    #[command(flatten)]
    api: ApiOptions,
}

pub async fn run(command: PortalCommand) -> anyhow::Result<()> {
    let PortalCommand::Open(options) = command;
    let mut session = options.api.session()?;
    let mut body = json!({ "projectId": options.project, "expiresIn": options.expires_in.as_secs() });
    if options.read_only {
        body["readOnly"] = true.into();
    }
    if let Some(locale) = &options.locale {
        body["locale"] = locale.as_str().into();
    }
    let raw = session.post("/v1/portal-sessions", &body).await?;
    let link: Value = serde_json::from_str(raw.get())?;
    let url = text(&link, "url");
    let shown = if session.look.is_json { output::one_line(&with_kind("portal_session", &raw)) } else { url.clone() };
    output::only_copy(shown).context("a session was made, but its link was not shown: make another")?;
    session.look.note(format_args!("the session ends at {}", text(&link, "expiresAt")));
    if options.browser {
        open(&url)?;
    }
    Ok(())
}

fn open(url: &str) -> anyhow::Result<()> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().with_context(|| format!("cannot start {program}: open the link yourself"))?;
    anyhow::ensure!(status.success(), "{program} failed: open the link yourself");
    Ok(())
}
