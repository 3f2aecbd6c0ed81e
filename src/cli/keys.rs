//! `postrider keys`: API keys of a data directory, through its server while one runs.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::clock::SystemClock;
use crate::domain::access::Scope;
use crate::server::admin::{self, AdminError, AdminRequest, AdminResponse};
use crate::server::{CatalogueFrom, Office};

use super::options::DataOptions;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make an API key, and its workspace if it is new. The key is shown once.
    Create(CreateOptions),
    /// Revoke an API key for good.
    Revoke(RevokeOptions),
}

#[derive(Debug, Args)]
pub struct CreateOptions {
    /// Name of the workspace that the key is for.
    #[arg(long)]
    workspace: String,
    /// What the key may do. Repeatable; a key without a scope may do nothing.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<String>,
    /// Make a test key: the same routes, and nothing is sent.
    #[arg(long)]
    test: bool,
    /// Print JSON: id, key, workspaceId, scopes.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
}

#[derive(Debug, Args)]
pub struct RevokeOptions {
    /// The key's id, key_…, not the key itself.
    id: String,
    #[command(flatten)]
    data: DataOptions,
}

pub async fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create(options) => create(options).await,
        KeysCommand::Revoke(options) => revoke(options).await,
    }
}

async fn create(options: CreateOptions) -> anyhow::Result<()> {
    let CreateOptions { workspace, scopes, test, json, data } = options;
    match perform(&data, AdminRequest::CreateKey { workspace, scopes, test }).await? {
        AdminResponse::KeyCreated(created) if json => println!("{}", serde_json::to_string(&created)?),
        AdminResponse::KeyCreated(created) => {
            println!("key        {}   (shown only now; keep it safe)", created.key);
            println!("id         {}", created.id);
            println!("workspace  {}", created.workspace_id);
            let scopes = created.scopes.join(", ");
            println!("scopes     {}", if scopes.is_empty() { "none" } else { &scopes });
        }
        other => unexpected(other)?,
    }
    Ok(())
}

async fn revoke(options: RevokeOptions) -> anyhow::Result<()> {
    match perform(&options.data, AdminRequest::RevokeKey { id: options.id }).await? {
        AdminResponse::KeyRevoked { id } => println!("{id} is revoked; it stops working within 5 seconds"),
        other => unexpected(other)?,
    }
    Ok(())
}

fn unexpected(response: AdminResponse) -> anyhow::Result<()> {
    match response {
        AdminResponse::Refused { message } => bail!("{message}"),
        other => bail!("the server answered something else than was asked: {other:?}"),
    }
}

/// Asks the running server, or opens the directory when there is none.
async fn perform(data: &DataOptions, request: AdminRequest) -> anyhow::Result<AdminResponse> {
    let settings = data.settings()?;
    match admin::ask(&settings.admin_socket_path(), &request).await {
        Ok(response) => return Ok(response),
        Err(AdminError::NoServer) => {}
        Err(error) => return Err(error).context("asking the running server"),
    }
    let office = Office::open(&settings, Arc::new(SystemClock), CatalogueFrom::Store).await?;
    let response = admin::execute(&office.service, request).await;
    office.close().await;
    Ok(response)
}

fn scope(text: &str) -> Result<String, String> {
    text.parse::<Scope>().map(|scope| scope.to_string()).map_err(|error| error.to_string())
}
