//! `postrider audit`: the audit log.

use clap::{Args, Subcommand};

use crate::server::admin::{AdminResponse, Listing};

use super::admin::{list, unexpected};
use super::options::DataOptions;
use super::output;
use super::table::print_rows;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the newest entries of the audit log.
    List(ListOptions),
}

#[derive(Debug, Args)]
pub struct ListOptions {
    /// Name or id of a workspace [default: all]
    #[arg(long)]
    workspace: Option<String>,
    /// Maximum number of entries.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
}

pub async fn run(command: AuditCommand) -> anyhow::Result<()> {
    let AuditCommand::List(ListOptions { workspace, limit, json, data }) = command;
    let most = usize::try_from(limit)?;
    let entries = list(&data, Listing::Audit, workspace, Some(most), |response| match response {
        AdminResponse::Audit { items, next } => Ok((items, next)),
        other => unexpected(other),
    })
    .await?;
    if json {
        return Ok(output::json(serde_json::to_string(&entries)?)?);
    }
    print_rows(
        &["when", "who", "mode", "what", "on", "workspace", "request"],
        entries.into_iter().map(|entry| {
            let who = entry.api_key_id.unwrap_or_else(|| "command line".to_owned());
            let request = entry.request_id.unwrap_or_default();
            [entry.created_at, who, entry.mode, entry.action, entry.resource_id, entry.workspace_id, request]
        }),
    )?;
    Ok(())
}
