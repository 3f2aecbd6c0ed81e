//! `postrider keys`: creates, lists and revokes API keys, and changes the master key.

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::server::admin::{AdminRequest, AdminResponse, CreateKey, KeyCreated, KeyListed, Listing};
use postrider_domain::access::{ApiKeyName, Scope};
use postrider_domain::time::Day;

use super::admin::{list, perform, unexpected};
use super::input::confirm;
use super::options::DataOptions;
use super::output;
use super::rotate_master::{self, RotateMasterOptions};
use super::table::print_rows;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create an API key, and its workspace if it does not exist. The key is shown only once.
    Create(CreateOptions),
    /// List the API keys, newest first. The keys themselves are not shown.
    List(ListOptions),
    /// Revoke an API key permanently.
    Revoke(RevokeOptions),
    /// Change the master key, also while servers run: seals every secret anew. If it is interrupted, run the same
    /// command again to continue.
    RotateMaster(RotateMasterOptions),
}

#[derive(Debug, Args)]
pub struct CreateOptions {
    /// Name or id of the key's workspace. A name that does not exist yet is created.
    #[arg(long, required_unless_present = "operations")]
    workspace: Option<String>,
    /// Create a key for the server's own workspace: it reads the deliveries of operational events.
    #[arg(long, conflicts_with_all = ["workspace", "test"])]
    operations: bool,
    /// Scope of the key. Repeatable. A key without a scope may do nothing.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<String>,
    /// Note about the purpose of the key.
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// Create a test key. It works on endpoints and events of its own, and nothing is sent.
    #[arg(long)]
    test: bool,
    /// Day at which the key stops working, at 00:00 UTC.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    expires: Option<String>,
    /// Print JSON: id, key, workspaceId, scopes.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
}

#[derive(Debug, Args)]
pub struct ListOptions {
    /// Name or id of a workspace [default: all]
    #[arg(long)]
    workspace: Option<String>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
}

#[derive(Debug, Args)]
pub struct RevokeOptions {
    /// Id of the key (key_…), not the key itself.
    id: String,
    /// Also revoke the keys that it made, and those that they made.
    #[arg(long)]
    with_children: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    data: DataOptions,
}

pub async fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create(options) => create(options).await,
        KeysCommand::List(options) => list_keys(options).await,
        KeysCommand::Revoke(options) => revoke(options).await,
        KeysCommand::RotateMaster(options) => rotate_master::run(options).await,
    }
}

async fn create(options: CreateOptions) -> anyhow::Result<()> {
    let CreateOptions { workspace, operations: _, scopes, name, test, expires, json, data } = options;
    let create = CreateKey { workspace, name, scopes, test, expires };
    match perform(&data, AdminRequest::CreateKey(create)).await? {
        AdminResponse::KeyCreated(created) => {
            let text = if json { serde_json::to_string(&created)? } else { description(&created) };
            let lost = || format!("the key {} was created but not shown: revoke it and create another", created.id);
            output::only_copy(text).with_context(lost)
        }
        other => unexpected(other),
    }
}

fn description(created: &KeyCreated) -> String {
    let KeyCreated { key, id, workspace_id, scopes } = created;
    let scopes = if scopes.is_empty() { "none: the key may do nothing".to_owned() } else { scopes.join(", ") };
    format!(
        "key        {key}   (shown only now; store it safely)\n\
         id         {id}\n\
         workspace  {workspace_id}\n\
         scopes     {scopes}"
    )
}

async fn list_keys(options: ListOptions) -> anyhow::Result<()> {
    let ListOptions { workspace, json, data } = options;
    let keys = list(&data, Listing::Keys, workspace, None, |response| match response {
        AdminResponse::Keys { items, next } => Ok((items, next)),
        other => unexpected(other),
    })
    .await?;
    if json {
        return Ok(output::json(serde_json::to_string(&keys)?)?);
    }
    print_rows(
        &["id", "workspace", "mode", "ends in", "created", "state", "scopes", "name"],
        keys.into_iter().map(|key| {
            let state = state_of(&key);
            let scopes = if key.scopes.is_empty() { "none".to_owned() } else { key.scopes.join(",") };
            let name = key.name.unwrap_or_default();
            [key.id, key.workspace_id, key.mode, key.last4, key.created_at, state, scopes, name]
        }),
    )?;
    Ok(())
}

fn state_of(key: &KeyListed) -> String {
    match (&key.revoked_at, &key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(day)) => format!("expires {day}"),
        (None, None) => "active".to_owned(),
    }
}

async fn revoke(options: RevokeOptions) -> anyhow::Result<()> {
    let RevokeOptions { id, with_children, yes, data } = options;
    confirm(&format!("Revoke {id} for good?"), yes)?;
    match perform(&data, AdminRequest::RevokeKey { id, with_children }).await? {
        AdminResponse::KeyRevoked { id, children } => {
            output::line(format_args!("{id} is revoked; it stops working within 5 seconds"))?;
            for child in children {
                output::line(format_args!("{child} is revoked; it was made by it"))?;
            }
            Ok(())
        }
        other => unexpected(other),
    }
}

fn name(text: &str) -> Result<String, String> {
    ApiKeyName::parse(text).map(|name| name.as_str().to_owned()).map_err(|error| error.to_string())
}

fn day(text: &str) -> Result<String, String> {
    Day::parse(text).map(|day| day.to_string()).map_err(|error| error.to_string())
}

fn scope(text: &str) -> Result<String, String> {
    text.parse::<Scope>().map(|scope| scope.to_string()).map_err(|error| error.to_string())
}
