//! `postrider erase`: takes the content of events out of the store.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::server::admin::{AdminRequest, AdminResponse};
use crate::server::erase_request::{EraseWhat, ErasureListed};
use postrider_domain::erasure::{ErasureStatus, PendingDeliveries};

use super::admin::{Access, unexpected};
use super::options::DataOptions;
use super::output;

#[derive(Debug, Subcommand)]
pub enum EraseCommand {
    /// Erase the content of one event: its data, its requests and the answers to them.
    Event(EventOptions),
    /// Erase the content of all events of a project, in live and in test mode.
    Project(ProjectOptions),
}

#[derive(Debug, Args)]
pub struct EventOptions {
    /// Id of the event (evt_…).
    id: String,
    #[command(flatten)]
    options: EraseOptions,
}

#[derive(Debug, Args)]
pub struct ProjectOptions {
    /// The projectId that the events carry.
    id: String,
    /// Name or id of the workspace.
    #[arg(long)]
    workspace: String,
    #[command(flatten)]
    options: EraseOptions,
}

#[derive(Debug, Args)]
pub struct EraseOptions {
    /// What happens to deliveries that have not ended: cancel, or finish them first.
    #[arg(long, value_name = "WHAT", default_value = "cancel", value_parser = pending)]
    pending: String,
    /// Wait until the content is gone.
    #[arg(long)]
    wait: bool,
    /// Do not ask. Needed where standard input is not a terminal.
    #[arg(long)]
    yes: bool,
    /// Print a JSON array of the erasures.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
}

/// How often the command looks whether the server is done.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub async fn run(command: EraseCommand) -> anyhow::Result<()> {
    let (what, named, options) = match command {
        EraseCommand::Event(EventOptions { id, options }) => {
            let named = format!("the content of the event {id}");
            (EraseWhat::Event(id), named, options)
        }
        EraseCommand::Project(ProjectOptions { id, workspace, options }) => {
            let named = format!("the content of all events of the project {id} in the workspace {workspace}");
            (EraseWhat::Project { id, workspace }, named, options)
        }
    };
    let EraseOptions { pending, wait, yes, json, data } = options;
    if !yes {
        confirm(&named)?;
    }
    let mut access = Access::new(&data)?;
    let mut erasures = perform(&mut access, AdminRequest::Erase { what, pending }).await?;
    if wait {
        erasures = follow(&mut access, erasures).await?;
    }
    let has_server = access.has_server();
    access.close().await;
    if json {
        output::json(serde_json::to_string(&erasures)?)?;
    } else {
        erasures.iter().try_for_each(|erasure| output::line(description(erasure)))?;
    }
    if !wait && !has_server {
        output::note("No server runs here: one that starts later does it, or run the same command with --wait.");
    }
    if erasures.iter().any(|erasure| erasure.needs_compact) {
        output::note(
            "An older version wrote this store and may have left copies of content in the file. Rewrite it once: stop \
             the server and run `postrider store compact`.",
        );
    }
    Ok(())
}

fn confirm(named: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("erasing cannot be undone: add --yes to erase {named}");
    }
    let mut screen = io::stderr();
    write!(screen, "Erase {named}? This cannot be undone. Type yes to go on: ")?;
    screen.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { bail!("nothing was erased") }
}

/// Waits for the ends of all erasures. Takes their steps itself if no server does.
async fn follow(access: &mut Access, started: Vec<ErasureListed>) -> anyhow::Result<Vec<ErasureListed>> {
    let mut ended = Vec::new();
    for erasure in started {
        let mut shown = String::new();
        ended.push(loop {
            let request = AdminRequest::Erasure { id: erasure.id.clone() };
            let Some(now) = perform(access, request).await?.pop() else { bail!("the erasure {} is gone", erasure.id) };
            if now.status == ErasureStatus::Erased.as_str() {
                break now;
            }
            let text = format!("{} {}", now.status, now.waiting);
            if text != shown {
                output::note(description(&now));
                shown = text;
            }
            if !access.advance_erasures().await? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }
    Ok(ended)
}

async fn perform(access: &mut Access, request: AdminRequest) -> anyhow::Result<Vec<ErasureListed>> {
    match access.perform(request).await? {
        AdminResponse::Erasures { items } => Ok(items),
        other => unexpected(other),
    }
}

fn description(erasure: &ErasureListed) -> String {
    let ErasureListed { id, target, mode, status, events, attempts, cancelled, answers, waiting, .. } = erasure;
    let waits = if *waiting > 0 { format!("; {waiting} wait for deliveries to end") } else { String::new() };
    format!(
        "{id}  {target}  {mode}  {status}: {events} events, {attempts} attempts and {answers} remembered answers erased, \
         {cancelled} deliveries cancelled{waits}"
    )
}

fn pending(text: &str) -> Result<String, String> {
    PendingDeliveries::parse(text).map(|pending| pending.as_str().to_owned())
}
