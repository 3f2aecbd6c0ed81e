//! `postrider events`: lists and shows events.

use clap::{Args, Subcommand};
use serde_json::Value;

use postrider_local::pages::List;

use super::super::instant::instant_text;
use super::super::output;
use super::super::table::{Cell, Column, Row, print_table};
use super::event_id;
use super::list::{LimitOption, joined, print_object};
use super::session::ApiOptions;
use super::show::{fields, text, time};

#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// List events, newest first.
    List(ListOptions),
    /// Show one event with its data, and the endpoints that do not get it.
    Get(GetOptions),
}

/// Values of a filter are separated by commas, or the flag is repeated.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// Only events with this name. Several: by commas, or repeat the flag.
    #[arg(long = "type", alias = "event", value_name = "EVENT", value_delimiter = ',')]
    types: Vec<String>,
    /// Only events of this project. Several: by commas, or repeat the flag.
    #[arg(long = "project-id", alias = "project", value_name = "PROJECT", value_delimiter = ',')]
    project_ids: Vec<String>,
    /// Only the event that was published under this id. Several: by commas, or repeat the flag.
    #[arg(long = "external-id", value_name = "ID", value_delimiter = ',')]
    external_ids: Vec<String>,
    /// none: only events that matched no endpoint.
    #[arg(long, value_name = "none", value_parser = ["none"])]
    deliveries: Option<String>,
    /// Only events accepted at this time or later: 2h (ago), or 2026-05-15T08:21:00Z.
    #[arg(long, value_name = "TIME", value_parser = instant_text)]
    since: Option<String>,
    /// Only events accepted before this time.
    #[arg(long, value_name = "TIME", value_parser = instant_text)]
    until: Option<String>,
    #[command(flatten)]
    limit: LimitOption,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct GetOptions {
    /// Id of the event (evt_…).
    #[arg(value_parser = event_id)]
    id: String,
    #[command(flatten)]
    api: ApiOptions,
}

const COLUMNS: [Column; 6] = [
    Column::id("id"),
    Column::text("type"),
    Column::fixed("deliveries"),
    Column::spare("created (UTC)"),
    Column::spare("project"),
    Column::spare("external id"),
];

pub async fn run(command: EventsCommand) -> anyhow::Result<()> {
    match command {
        EventsCommand::List(options) => list(options).await,
        EventsCommand::Get(options) => get(options).await,
    }
}

async fn list(options: ListOptions) -> anyhow::Result<()> {
    let list = List::new("/v1/events")
        .filter("type", joined(&options.types))
        .filter("projectId", joined(&options.project_ids))
        .filter("externalId", joined(&options.external_ids))
        .filter("deliveries", options.deliveries.unwrap_or_default())
        .filter("since", options.since.unwrap_or_default())
        .filter("until", options.until.unwrap_or_default());
    options.limit.print(&mut options.api.session()?, &list, "event", &COLUMNS, row).await
}

fn row(event: &Value) -> Row {
    vec![
        Cell::plain(text(event, "id")),
        Cell::plain(text(event, "type")),
        Cell::plain(text(event, "deliveries")),
        Cell::plain(time(event, "createdAt")),
        Cell::plain(text(event, "projectId")),
        Cell::plain(text(event, "externalId")),
    ]
}

async fn get(options: GetOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let raw = session.get(&format!("/v1/events/{}", options.id)).await?;
    if session.look.is_json {
        return print_object("event", &raw);
    }
    let event: Value = serde_json::from_str(raw.get())?;
    let members = [
        ("id", "id"),
        ("type", "type"),
        ("project", "projectId"),
        ("external id", "externalId"),
        ("mode", "mode"),
        ("occurred", "occurredAt"),
        ("created", "createdAt"),
        ("deliveries", "deliveries"),
        ("reason", "reason"),
    ];
    fields(session.look, &event, &members)?;
    output::painted_line(format_args!("{:<13}{}", "page", session.page_url(&format!("/events/{}", options.id))))?;
    let skipped = event["skipped"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !skipped.is_empty() {
        output::painted_line("\nendpoints that do not get it")?;
        let row =
            |one: &Value| ["endpointId", "reason", "deliveryId"].map(|member| Cell::plain(text(one, member))).to_vec();
        let columns = [Column::id("endpoint"), Column::fixed("reason"), Column::id("delivery")];
        print_table(&columns, skipped.iter().map(row).collect(), session.look)?;
    }
    output::painted_line("\ndata")?;
    for line in serde_json::to_string_pretty(&event["data"])?.lines() {
        output::line(line)?;
    }
    Ok(())
}
