//! `postrider audit`: the audit log.

use std::io::Write as _;

use clap::{Args, Subcommand};

use crate::server::admin::{AdminRequest, AdminResponse, AuditListed, Listing, RefusalListed};
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

use super::admin::{Access, list, unexpected};
use super::options::DataOptions;
use super::output;
use super::table::print_rows;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the newest entries of the audit log.
    List(ListOptions),
    /// Write the audit log to standard output as NDJSON, newest first: one entry a line.
    Export(ExportOptions),
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

#[derive(Debug, Args)]
pub struct ExportOptions {
    /// Only entries from this instant on, as in 2026-05-15T08:21:00Z.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<String>,
    /// Only entries before this instant.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<String>,
    /// Name or id of a workspace [default: all]
    #[arg(long)]
    workspace: Option<String>,
    #[command(flatten)]
    data: DataOptions,
}

pub async fn run(command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::List(options) => show(options).await,
        AuditCommand::Export(options) => export(options).await,
    }
}

async fn show(options: ListOptions) -> anyhow::Result<()> {
    let ListOptions { workspace, limit, json, data } = options;
    let most = usize::try_from(limit)?;
    let entries = list(&data, Listing::Audit, workspace, Some(most), |response| match response {
        AdminResponse::Audit { items, next } => Ok((items, next)),
        other => unexpected(other),
    })
    .await?;
    if json {
        return Ok(output::json(output::one_line(&serde_json::to_string(&entries)?))?);
    }
    print_rows(
        &["when", "who", "from", "mode", "what", "on", "workspace", "request", "details"],
        entries.into_iter().map(|entry| {
            let details = details_of(&entry);
            let who = entry.api_key_id.or(entry.session_id).unwrap_or_else(|| entry.actor.replace('_', " "));
            let [from, on, workspace, request] =
                [entry.address, entry.resource_id, entry.workspace_id, entry.request_id].map(Option::unwrap_or_default);
            [entry.created_at, who, from, entry.mode, entry.action, on, workspace, request, details]
        }),
    )?;
    Ok(())
}

/// The names of the fields that a write changed, or why and how often requests were refused.
fn details_of(entry: &AuditListed) -> String {
    match &entry.refusal {
        Some(RefusalListed { reason, route, count }) => {
            format!("{count} × {reason}{}", route.as_deref().map(|route| format!(" at {route}")).unwrap_or_default())
        }
        None => entry.changes.iter().map(|change| change.field.as_str()).collect::<Vec<_>>().join(","),
    }
}

/// Streams page by page. Entries that are added meanwhile are newer than the first line and are left out.
async fn export(options: ExportOptions) -> anyhow::Result<()> {
    let ExportOptions { since, until, workspace, data } = options;
    let mut access = Access::new(&data)?;
    let mut cursor = None;
    loop {
        let request = AdminRequest::List {
            what: Listing::Audit,
            workspace: workspace.clone(),
            limit: limits::PAGE_MAX,
            cursor,
            since: since.clone(),
            until: until.clone(),
        };
        let (entries, next) = match access.perform(request).await? {
            AdminResponse::Audit { items, next } => (items, next),
            other => unexpected(other)?,
        };
        let mut page = String::new();
        for entry in &entries {
            page.push_str(&output::one_line(&serde_json::to_string(entry)?));
            page.push('\n');
        }
        let mut output = std::io::stdout().lock();
        match output.write_all(page.as_bytes()).and_then(|()| output.flush()) {
            // The reader has seen enough, as in `| head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    access.close().await;
    Ok(())
}

fn instant(text: &str) -> Result<String, String> {
    Timestamp::parse(text).map(|at| at.to_string()).map_err(|error| error.to_string())
}
