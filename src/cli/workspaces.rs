//! `postrider workspaces`: lists workspaces.

use clap::{Args, Subcommand};

use crate::server::admin::{AdminResponse, Listing};

use super::admin::{list, unexpected};
use super::options::DataOptions;
use super::output;
use super::table::print_rows;

#[derive(Debug, Subcommand)]
pub enum WorkspacesCommand {
    /// List the workspaces, newest first.
    List(ListOptions),
}

#[derive(Debug, Args)]
pub struct ListOptions {
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
}

pub async fn run(command: WorkspacesCommand) -> anyhow::Result<()> {
    let WorkspacesCommand::List(ListOptions { json, data }) = command;
    let workspaces = list(&data, Listing::Workspaces, None, None, |response| match response {
        AdminResponse::Workspaces { items, next } => Ok((items, next)),
        other => unexpected(other),
    })
    .await?;
    if json {
        return Ok(output::json(serde_json::to_string(&workspaces)?)?);
    }
    print_rows(
        &["id", "created", "name"],
        workspaces.into_iter().map(|workspace| [workspace.id, workspace.created_at, workspace.name]),
    )?;
    Ok(())
}
