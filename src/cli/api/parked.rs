//! `postrider parked`: messages of sources that could not become events.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use postrider_domain::source::SourceName;
use postrider_local::pages::List;

use super::super::output;
use super::super::table::{Cell, Column, Row};
use super::list::{LimitOption, print_object};
use super::parked_message_id;
use super::session::ApiOptions;
use super::show::{fields, text, time};

#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// List parked messages, newest first.
    List(ListOptions),
    /// Show one parked message with its headers and body.
    Get(GetOptions),
    /// Make events of parked messages whose reason is gone.
    Retry(IdsOptions),
    /// Remove parked messages for good.
    Discard(IdsOptions),
}

#[derive(Debug, Args)]
pub struct ListOptions {
    /// Only messages of this source.
    #[arg(long, value_name = "NAME", value_parser = SourceName::parse)]
    source: Option<SourceName>,
    #[command(flatten)]
    limit: LimitOption,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct GetOptions {
    /// Id of the parked message (pkm_…).
    #[arg(value_parser = parked_message_id)]
    id: String,
    /// Print the bytes of the body and nothing else.
    #[arg(long)]
    body: bool,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct IdsOptions {
    /// Ids of the parked messages (pkm_…).
    #[arg(value_parser = parked_message_id, required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    api: ApiOptions,
}

const COLUMNS: [Column; 6] = [
    Column::id("id"),
    Column::fixed("reason"),
    Column::fixed("source"),
    Column::fixed("bytes"),
    Column::fixed("parked (UTC)"),
    Column::text("detail"),
];

pub async fn run(command: ParkedCommand) -> anyhow::Result<()> {
    match command {
        ParkedCommand::List(ListOptions { source, limit, api }) => {
            let source = source.map(|name| name.to_string()).unwrap_or_default();
            let list = List::new("/v1/parked-messages").filter("source", source);
            limit.print(&mut api.session()?, &list, "parked_message", &COLUMNS, row).await
        }
        ParkedCommand::Get(options) => get(options).await,
        ParkedCommand::Retry(IdsOptions { ids, api }) => {
            let mut session = api.session()?;
            for id in ids {
                let receipt = session.post(&format!("/v1/parked-messages/{id}/retry"), &json!({})).await?;
                if session.look.is_json {
                    print_object("event", &receipt)?;
                } else {
                    let receipt: Value = serde_json::from_str(receipt.get())?;
                    output::line(format_args!("{id} is now {}", text(&receipt, "id")))?;
                }
            }
            Ok(())
        }
        ParkedCommand::Discard(IdsOptions { ids, api }) => {
            let mut session = api.session()?;
            for id in ids {
                session.delete(&format!("/v1/parked-messages/{id}")).await?;
                session.look.note(format_args!("{id} is discarded"));
            }
            Ok(())
        }
    }
}

fn row(parked: &Value) -> Row {
    vec![
        Cell::plain(text(parked, "id")),
        Cell::plain(text(parked, "reason")),
        Cell::plain(text(parked, "source")),
        Cell::plain(text(parked, "bodyBytes")),
        Cell::plain(time(parked, "parkedAt")),
        Cell::plain(text(parked, "detail")),
    ]
}

async fn get(options: GetOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let raw = session.get(&format!("/v1/parked-messages/{}", options.id)).await?;
    let mut parked: Value = serde_json::from_str(raw.get())?;
    let body = BASE64_STANDARD.decode(text(&parked, "body")).context("the server's answer has no body in base64")?;
    if options.body {
        return Ok(output::bytes(&body)?);
    }
    if session.look.is_json {
        return print_object("parked_message", &raw);
    }
    parked["parkedAt"] = time(&parked, "parkedAt").into();
    let members = [
        ("id", "id"),
        ("source", "source"),
        ("reason", "reason"),
        ("detail", "detail"),
        ("project", "projectId"),
        ("subject", "subject"),
        ("sequence", "sequence"),
        ("message id", "messageId"),
        ("bytes", "bodyBytes"),
        ("truncated", "truncated"),
        ("parked", "parkedAt"),
    ];
    fields(session.look, &parked, &members)?;
    for header in parked["headers"].as_array().into_iter().flatten() {
        output::line(format_args!("header {}: {}", text(header, "name"), text(header, "value")))?;
    }
    output::line("")?;
    for line in String::from_utf8_lossy(&body).lines() {
        output::line(line)?;
    }
    Ok(())
}
