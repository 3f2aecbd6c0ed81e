//! `postrider replay` and `postrider replays`: send deliveries again, of an endpoint or by filter.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use postrider_local::pages::List;

use super::super::exit::Fault;
use super::super::input::confirm;
use super::super::instant::duration;
use super::super::output;
use super::super::paint::tone_of;
use super::super::table::{Cell, Column, Row};
use super::deliveries::DeliveryFilters;
use super::list::{LimitOption, print_object};
use super::session::{ApiOptions, Session};
use super::show::{fields, text, time};
use super::wait::Deadline;
use super::{endpoint_id, replay_id};

#[derive(Debug, Args)]
pub struct ReplayOptions {
    /// Id of the endpoint (whe_…). Without it, a filter says what is sent again.
    #[arg(value_parser = endpoint_id, conflicts_with = "endpoint_ids")]
    endpoint: Option<String>,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Wait until everything is queued again. Exit 1 if the replay was stopped.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most; then exit 6.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", requires = "wait")]
    timeout: std::time::Duration,
    #[command(flatten)]
    filters: DeliveryFilters,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Subcommand)]
pub enum ReplaysCommand {
    /// List replays, newest first.
    List(ListOptions),
    /// Show how far one replay is.
    Get(OneOptions),
    /// Stop a replay. What it has queued goes on.
    Stop(OneOptions),
}

#[derive(Debug, Args)]
pub struct ListOptions {
    #[command(flatten)]
    limit: LimitOption,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct OneOptions {
    /// Id of the replay (rpl_…).
    #[arg(value_parser = replay_id)]
    id: String,
    #[command(flatten)]
    api: ApiOptions,
}

const COLUMNS: [Column; 7] = [
    Column::id("id"),
    Column::fixed("status"),
    Column::fixed("queued"),
    Column::fixed("of"),
    Column::spare("unavailable"),
    Column::spare("endpoint"),
    Column::spare("created (UTC)"),
];

/// Sends deliveries again, after a count and a question.
pub async fn run(options: ReplayOptions) -> anyhow::Result<()> {
    let request = Request::of(&options)?;
    let mut session = options.api.session()?;
    let counted = session.post(&request.path, &request.body(true)).await?;
    let count: Value = serde_json::from_str(counted.get())?;
    if options.dry_run {
        if session.look.is_json {
            return print_object("replay_count", &counted);
        }
        return Ok(output::line(described(&count))?);
    }
    confirm(&format!("{}. Send them again?", described(&count)), options.yes)?;
    let started = session.post(&request.path, &request.body(false)).await?;
    let id = text(&serde_json::from_str(started.get())?, "id");
    if !options.wait {
        if session.look.is_json {
            return print_object("replay", &started);
        }
        return Ok(output::line(format_args!("{id}  {}", described(&count)))?);
    }
    session.look.note(format_args!("{id} is running"));
    wait(&mut session, &id, Deadline::after(options.timeout)).await
}

async fn wait(session: &mut Session, id: &str, mut deadline: Deadline) -> anyhow::Result<()> {
    loop {
        let raw = session.get(&format!("/v1/replays/{id}")).await?;
        let replay: Value = serde_json::from_str(raw.get())?;
        if replay["status"] != "running" {
            show(session, raw.get())?;
            return if replay["status"] == "completed" { Ok(()) } else { Err(Fault::Shown.into()) };
        }
        deadline.pause(&format!("end of {id}")).await?;
    }
}

/// What is asked of the server.
struct Request {
    path: String,
    body: Map<String, Value>,
}

impl Request {
    fn of(options: &ReplayOptions) -> anyhow::Result<Self> {
        let filters = &options.filters;
        // Without a bound somebody sends the whole log again by mistake.
        if filters.since.is_none() && filters.event_ids.is_empty() {
            return Err(Fault::Usage("say from when: --since 2h, or which events: --event-id".to_owned()).into());
        }
        let only_statuses = filters.lists().iter().all(|(name, values)| *name == "status" || values.is_empty());
        match &options.endpoint {
            Some(endpoint) if only_statuses => {
                let mut body = Map::new();
                body.insert("since".to_owned(), json!(filters.since));
                body.insert("until".to_owned(), json!(filters.until));
                if !filters.statuses.is_empty() {
                    body.insert("statuses".to_owned(), json!(filters.statuses));
                }
                Ok(Self { path: format!("/v1/webhook-endpoints/{endpoint}/replay"), body })
            }
            endpoint => {
                let mut filter = Map::new();
                for (name, values) in filters.lists().into_iter().filter(|(_, values)| !values.is_empty()) {
                    filter.insert(name.to_owned(), json!(values));
                }
                for (name, value) in [("endpointId", endpoint), ("since", &filters.since), ("until", &filters.until)] {
                    filter.extend(value.iter().map(|value| (name.to_owned(), json!(value))));
                }
                let body = Map::from_iter([("filter".to_owned(), filter.into())]);
                Ok(Self { path: "/v1/webhook-deliveries/replay".to_owned(), body })
            }
        }
    }

    fn body(&self, is_dry_run: bool) -> Value {
        let mut body = self.body.clone();
        body.insert("dryRun".to_owned(), is_dry_run.into());
        body.into()
    }
}

fn described(count: &Value) -> String {
    let (total, unavailable) =
        (count["total"].as_u64().unwrap_or_default(), count["unavailable"].as_u64().unwrap_or_default());
    let counted = if text(count, "countedTo").is_empty() { "" } else { "more than " };
    let noun = if total == 1 { "delivery" } else { "deliveries" };
    let missing = if unavailable > 0 { format!(" ({unavailable} without a payload)") } else { String::new() };
    format!("{counted}{total} {noun}{missing}")
}

/// Lists, shows and stops replays.
pub async fn run_jobs(command: ReplaysCommand) -> anyhow::Result<()> {
    match command {
        ReplaysCommand::List(ListOptions { limit, api }) => {
            limit.print(&mut api.session()?, &List::new("/v1/replays"), "replay", &COLUMNS, row).await
        }
        ReplaysCommand::Get(OneOptions { id, api }) => {
            let mut session = api.session()?;
            let replay = session.get(&format!("/v1/replays/{id}")).await?;
            show(&session, replay.get())
        }
        ReplaysCommand::Stop(OneOptions { id, api }) => {
            let mut session = api.session()?;
            let replay = session.post(&format!("/v1/replays/{id}/stop"), &json!({})).await?;
            show(&session, replay.get())
        }
    }
}

fn row(replay: &Value) -> Row {
    let status = text(replay, "status");
    vec![
        Cell::plain(text(replay, "id")),
        Cell::toned(tone_of(&status), status),
        Cell::plain(text(replay, "replayed")),
        Cell::plain(text(replay, "total")),
        Cell::plain(text(replay, "unavailable")),
        Cell::plain(text(replay, "endpointId")),
        Cell::plain(time(replay, "createdAt")),
    ]
}

fn show(session: &Session, raw: &str) -> anyhow::Result<()> {
    let mut replay: Value = serde_json::from_str(raw)?;
    if session.look.is_json {
        return print_object("replay", &serde_json::value::to_raw_value(&replay)?);
    }
    replay["filter"] = replay["filter"].to_string().into();
    let members = [
        ("id", "id"),
        ("status", "status"),
        ("endpoint", "endpointId"),
        ("filter", "filter"),
        ("found", "total"),
        ("queued again", "replayed"),
        ("unavailable", "unavailable"),
        ("created", "createdAt"),
        ("completed", "completedAt"),
    ];
    fields(session.look, &replay, &members)
}
