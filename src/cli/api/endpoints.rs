//! `postrider endpoints`: lists, shows, makes, changes and tests endpoints.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use postrider_local::pages::List;

use super::super::input::{self, confirm};
use super::super::instant::duration;
use super::super::output;
use super::super::paint::tone_of;
use super::super::table::{Cell, Column, Row};
use super::endpoint_id;
use super::list::{LimitOption, joined, print_object, with_kind, write_private};
use super::session::{ApiOptions, Session};
use super::show::{fields, text, time};
use super::wait::{Deliveries, WaitOptions};

#[derive(Debug, Subcommand)]
pub enum EndpointsCommand {
    /// List endpoints, newest first.
    List(ListOptions),
    /// Show one endpoint.
    Get(EndpointOptions),
    /// Create an endpoint. Its secret is shown only once.
    Create(CreateOptions),
    /// Send the example of a subscribed event, marked as a test, also to a disabled endpoint.
    Test(TestOptions),
    /// Switch an endpoint on: what waits for it goes on.
    Enable(EndpointOptions),
    /// Switch an endpoint off: its queue is kept.
    Disable(EndpointOptions),
    /// Create a new signing secret. It is shown only once.
    Rotate(RotateOptions),
    /// Delete an endpoint with its queue.
    Delete(DeleteOptions),
}

#[derive(Debug, Args)]
pub struct ListOptions {
    /// Only endpoints of this project. Several: by commas, or repeat the flag.
    #[arg(long = "project-id", alias = "project", value_name = "PROJECT", value_delimiter = ',')]
    project_ids: Vec<String>,
    /// Only endpoints that are active (true) or not (false).
    #[arg(long, value_name = "BOOL")]
    is_active: Option<bool>,
    /// Only endpoints that subscribe to this event. Several: by commas, or repeat the flag.
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
    events: Vec<String>,
    /// Only endpoints in this state: ok, failing, paused, disabled, off. Several: by commas, or repeat the flag.
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    states: Vec<String>,
    /// Only endpoints with this text in their name or host.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    #[command(flatten)]
    limit: LimitOption,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct EndpointOptions {
    /// Id of the endpoint (whe_…).
    #[arg(value_parser = endpoint_id)]
    id: String,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct CreateOptions {
    /// Name of the endpoint.
    #[arg(long, required_unless_present = "data")]
    name: Option<String>,
    /// Where its events go.
    #[arg(long = "endpoint-url", value_name = "URL", required_unless_present = "data")]
    endpoint_url: Option<String>,
    /// Event that it subscribes to. Several: by commas, or repeat the flag.
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', required_unless_present = "data")]
    events: Vec<String>,
    /// Project of the endpoint [default: events of every project]
    #[arg(long = "project-id", alias = "project", value_name = "PROJECT")]
    project_id: Option<String>,
    /// JSON object with further options, by the API's names: @FILE, - for standard input, or the JSON itself.
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Write the secret to this new file, of mode 0600, and do not print it.
    #[arg(long, value_name = "FILE")]
    write_secret: Option<PathBuf>,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct TestOptions {
    /// Id of the endpoint (whe_…).
    #[arg(value_parser = endpoint_id)]
    id: String,
    /// A subscribed event [default: the first]
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct RotateOptions {
    /// Id of the endpoint (whe_…).
    #[arg(value_parser = endpoint_id)]
    id: String,
    /// For this time, new deliveries carry signatures of both secrets.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    overlap: Option<Duration>,
    /// Sign queued deliveries with the new secret too.
    #[arg(long)]
    revoke_queued: bool,
    /// Write the secret to this new file, of mode 0600, and do not print it.
    #[arg(long, value_name = "FILE")]
    write_secret: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct DeleteOptions {
    /// Id of the endpoint (whe_…).
    #[arg(value_parser = endpoint_id)]
    id: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    api: ApiOptions,
}

const COLUMNS: [Column; 6] = [
    Column::id("id"),
    Column::fixed("state"),
    Column::text("name"),
    Column::text("url"),
    Column::spare("project"),
    Column::spare("events"),
];

pub async fn run(command: EndpointsCommand) -> anyhow::Result<()> {
    match command {
        EndpointsCommand::List(options) => list(options).await,
        EndpointsCommand::Get(EndpointOptions { id, api }) => {
            let mut session = api.session()?;
            let endpoint = session.get(&path(&id)).await?;
            show(&session, endpoint.get())
        }
        EndpointsCommand::Create(options) => create(options).await,
        EndpointsCommand::Test(options) => test(options).await,
        EndpointsCommand::Enable(options) => switch(options, true).await,
        EndpointsCommand::Disable(options) => switch(options, false).await,
        EndpointsCommand::Rotate(options) => rotate(options).await,
        EndpointsCommand::Delete(DeleteOptions { id, yes, api }) => {
            confirm(&format!("Delete {id} with its queue?"), yes)?;
            let mut session = api.session()?;
            session.delete(&path(&id)).await?;
            session.look.note(format_args!("{id} is deleted"));
            Ok(())
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/webhook-endpoints/{id}")
}

async fn list(options: ListOptions) -> anyhow::Result<()> {
    let list = List::new("/v1/webhook-endpoints")
        .filter("projectId", joined(&options.project_ids))
        .filter("isActive", options.is_active.map(|is| is.to_string()).unwrap_or_default())
        .filter("event", joined(&options.events))
        .filter("state", joined(&options.states))
        .filter("q", options.q.unwrap_or_default());
    options.limit.print(&mut options.api.session()?, &list, "endpoint", &COLUMNS, row).await
}

fn row(endpoint: &Value) -> Row {
    let state = state(endpoint);
    vec![
        Cell::plain(text(endpoint, "id")),
        Cell::toned(tone_of(&state), state),
        Cell::plain(text(endpoint, "name")),
        Cell::plain(text(endpoint, "url")),
        Cell::plain(text(endpoint, "projectId")),
        Cell::plain(text(endpoint, "events")),
    ]
}

/// Off, or the health of one that is on.
fn state(endpoint: &Value) -> String {
    let reason = text(endpoint, "disabledReason");
    match (endpoint["isActive"] == true, reason.is_empty()) {
        (true, _) => text(&endpoint["health"], "state"),
        (false, true) => "off".to_owned(),
        (false, false) => reason,
    }
}

fn show(session: &Session, raw: &str) -> anyhow::Result<()> {
    let mut endpoint: Value = serde_json::from_str(raw)?;
    if session.look.is_json {
        return print_object("endpoint", &serde_json::value::to_raw_value(&endpoint)?);
    }
    endpoint["state"] = state(&endpoint).into();
    endpoint["headerNames"] =
        endpoint["headers"].as_object().map(|headers| headers.keys().cloned().collect::<Vec<_>>().join(",")).into();
    endpoint["retries"] = endpoint["health"]["failures"].clone();
    endpoint["updated"] = time(&endpoint, "updatedAt").into();
    endpoint["created"] = time(&endpoint, "createdAt").into();
    let members = [
        ("id", "id"),
        ("state", "state"),
        ("name", "name"),
        ("url", "url"),
        ("events", "events"),
        ("project", "projectId"),
        ("mode", "mode"),
        ("secret ends in", "secretLast4"),
        ("failures", "retries"),
        ("headers", "headerNames"),
        ("signatures", "signatureSchemes"),
        ("public key", "publicKey"),
        ("ordering", "ordering"),
        ("trace forwarding", "traceForwarding"),
        ("timeout (s)", "timeoutSeconds"),
        ("retries (s)", "retrySchedule"),
        ("created (UTC)", "created"),
        ("updated (UTC)", "updated"),
    ];
    fields(session.look, &endpoint, &members)
}

async fn create(options: CreateOptions) -> anyhow::Result<()> {
    let mut body: Map<String, Value> = match &options.data {
        Some(data) => serde_json::from_str(&input::text(input::bytes(data)?)?)
            .map_err(|error| super::super::exit::Fault::Usage(format!("--data is no JSON object: {error}")))?,
        None => Map::new(),
    };
    let given = [
        ("name", options.name.map(Value::from)),
        ("url", options.endpoint_url.map(Value::from)),
        ("events", (!options.events.is_empty()).then(|| options.events.into())),
        ("projectId", options.project_id.map(Value::from)),
    ];
    body.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let mut session = options.api.session()?;
    let made = session.post("/v1/webhook-endpoints", &body.into()).await?;
    let id = text(&serde_json::from_str(made.get())?, "id");
    show_secret(&session, made.get(), options.write_secret, "the endpoint")
        .with_context(|| format!("{id} was created, but its secret is not kept: rotate it"))
}

async fn rotate(options: RotateOptions) -> anyhow::Result<()> {
    confirm(&format!("Replace the secret of {}? Its receiver must know the new one.", options.id), options.yes)?;
    let mut body = json!({ "revokeQueued": options.revoke_queued });
    if let Some(overlap) = options.overlap {
        body["overlapSeconds"] = overlap.as_secs().into();
    }
    let mut session = options.api.session()?;
    let rotated = session.post_once(&format!("{}/rotate-secret", path(&options.id)), &body).await?;
    show_secret(&session, rotated.get(), options.write_secret, "the secret")
        .with_context(|| format!("{} has a new secret, but it is not kept: rotate it again", options.id))
}

/// Shows an endpoint with its secret, or keeps the secret in a file.
fn show_secret(session: &Session, raw: &str, file: Option<PathBuf>, what: &str) -> anyhow::Result<()> {
    let mut endpoint: Value = serde_json::from_str(raw)?;
    let secret = text(&endpoint, "secret");
    if let Some(file) = file {
        write_private(&file, &secret)?;
        if let Some(members) = endpoint.as_object_mut() {
            members.shift_remove("secret");
        }
        session.look.note(format_args!("the secret is in {}", file.display()));
        return show(session, &endpoint.to_string());
    }
    let text = if session.look.is_json {
        with_kind("endpoint", &serde_json::value::to_raw_value(&endpoint)?)
    } else {
        format!("id      {}\nsecret  {secret}   (shown only now; store it safely)", text(&endpoint, "id"))
    };
    output::only_copy(text).with_context(|| format!("{what} was made but not shown"))
}

async fn switch(options: EndpointOptions, is_active: bool) -> anyhow::Result<()> {
    let EndpointOptions { id, api } = options;
    let mut session = api.session()?;
    let endpoint = session.patch(&path(&id), &json!({ "isActive": is_active })).await?;
    if session.look.is_json {
        return print_object("endpoint", &endpoint);
    }
    Ok(output::line(format_args!("{id} is {}", if is_active { "on" } else { "off" }))?)
}

async fn test(options: TestOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let body = json!({ "event": options.event });
    let delivery = session.post(&format!("{}/test", path(&options.id)), &body).await?;
    let id = text(&serde_json::from_str(delivery.get())?, "id");
    if options.wait.until().is_none() {
        if session.look.is_json {
            return print_object("delivery", &delivery);
        }
        output::line(format_args!("{id}  {}", session.page_url(&format!("/deliveries/{id}"))))?;
    }
    options.wait.wait_for(&mut session, Deliveries::Ids(&[id])).await
}
