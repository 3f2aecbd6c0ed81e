//! `postrider deliveries`: lists, shows, retries and skips deliveries.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use postrider_domain::limits;
use postrider_local::pages::List;

use super::super::exit::Fault;
use super::super::instant::instant_text;
use super::super::output;
use super::super::paint::{Look, tone_of};
use super::super::table::{Cell, Column, print_table};
use super::list::{LimitOption, joined, print_object, with_kind};
use super::session::ApiOptions;
use super::show::{DELIVERY_COLUMNS, delivery_row, fields, text, time};
use super::wait::{Deliveries, WaitOptions};
use super::{delivery_id, event_id};

#[derive(Debug, Subcommand)]
pub enum DeliveriesCommand {
    /// List deliveries, newest first.
    List(ListOptions),
    /// Show one delivery with its attempts and what comes next.
    Get(GetOptions),
    /// Send deliveries again: each gets a new delivery of the same bytes.
    Retry(RetryOptions),
    /// Skip a failed delivery that blocks its endpoint's strict order.
    Skip(SkipOptions),
}

/// The filters of the delivery log, by the API's names.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters (several values: by commas, or repeat the flag)")]
pub struct DeliveryFilters {
    /// Only deliveries to this endpoint.
    #[arg(long = "endpoint-id", alias = "endpoint", value_name = "ENDPOINT", value_delimiter = ',', value_parser = super::endpoint_id)]
    pub endpoint_ids: Vec<String>,
    /// Only deliveries of this event.
    #[arg(long = "event-id", value_name = "ID", value_delimiter = ',', value_parser = event_id)]
    pub event_ids: Vec<String>,
    /// Only deliveries of events with this name.
    #[arg(long = "event-type", alias = "event", value_name = "EVENT", value_delimiter = ',')]
    pub event_types: Vec<String>,
    /// Only deliveries of events of this project.
    #[arg(long = "project-id", alias = "project", value_name = "PROJECT", value_delimiter = ',')]
    pub project_ids: Vec<String>,
    /// Only deliveries with this status: pending, delivered, failed, skipped, cancelled, simulated.
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',')]
    pub statuses: Vec<String>,
    /// Only deliveries with this cause: event, retry, replay, test.
    #[arg(long = "cause", value_name = "CAUSE", value_delimiter = ',')]
    pub causes: Vec<String>,
    /// Only deliveries whose last attempt ended so: http_error, timeout, dns_failed …
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',')]
    pub outcomes: Vec<String>,
    /// Only deliveries whose last attempt was answered with this status, or class of statuses: 503, 5xx.
    #[arg(long = "response-status", value_name = "STATUS", value_delimiter = ',')]
    pub response_statuses: Vec<String>,
    /// Only deliveries created at this time or later: 2h (ago), or 2026-05-15T08:21:00Z.
    #[arg(long, value_name = "TIME", value_parser = instant_text)]
    pub since: Option<String>,
    /// Only deliveries created before this time.
    #[arg(long, value_name = "TIME", value_parser = instant_text)]
    pub until: Option<String>,
}

#[derive(Debug, Args)]
pub struct ListOptions {
    #[command(flatten)]
    limit: LimitOption,
    #[command(flatten)]
    filters: DeliveryFilters,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct GetOptions {
    /// Id of the delivery (dlv_…).
    #[arg(value_parser = delivery_id)]
    id: String,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct RetryOptions {
    /// Ids of the deliveries (dlv_…).
    #[arg(required = true, value_parser = delivery_id)]
    ids: Vec<String>,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct SkipOptions {
    /// Id of the delivery (dlv_…).
    #[arg(value_parser = delivery_id)]
    id: String,
    #[command(flatten)]
    api: ApiOptions,
}

impl DeliveryFilters {
    /// The filters with a list of values, by the API's names.
    pub fn lists(&self) -> [(&'static str, &[String]); 8] {
        [
            ("endpointId", &self.endpoint_ids),
            ("eventId", &self.event_ids),
            ("eventType", &self.event_types),
            ("projectId", &self.project_ids),
            ("status", &self.statuses),
            ("cause", &self.causes),
            ("outcome", &self.outcomes),
            ("responseStatus", &self.response_statuses),
        ]
    }

    fn list(&self) -> List {
        let list = List::new("/v1/webhook-deliveries");
        let list = self.lists().into_iter().fold(list, |list, (name, values)| list.filter(name, joined(values)));
        list.filter("since", self.since.clone().unwrap_or_default())
            .filter("until", self.until.clone().unwrap_or_default())
    }
}

pub async fn run(command: DeliveriesCommand) -> anyhow::Result<()> {
    match command {
        DeliveriesCommand::List(ListOptions { filters, limit, api }) => {
            limit.print(&mut api.session()?, &filters.list(), "delivery", &DELIVERY_COLUMNS, delivery_row).await
        }
        DeliveriesCommand::Get(options) => get(options).await,
        DeliveriesCommand::Retry(options) => retry(options).await,
        DeliveriesCommand::Skip(options) => skip(options).await,
    }
}

async fn get(options: GetOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let raw = session.get(&format!("/v1/webhook-deliveries/{}", options.id)).await?;
    if session.look.is_json {
        return print_object("delivery", &raw);
    }
    let delivery: Value = serde_json::from_str(raw.get())?;
    show(session.look, &delivery)?;
    let page = session.page_url(&format!("/deliveries/{}", options.id));
    Ok(output::painted_line(format_args!("\n{page}"))?)
}

fn show(look: Look, delivery: &Value) -> anyhow::Result<()> {
    let members = [
        ("id", "id"),
        ("status", "status"),
        ("reason", "reason"),
        ("event", "eventId"),
        ("event type", "eventType"),
        ("endpoint", "endpointId"),
        ("project", "projectId"),
        ("mode", "mode"),
        ("cause", "cause"),
        ("retry of", "retryOf"),
        ("created", "createdAt"),
        ("completed", "completedAt"),
        ("next attempt", "nextAttemptAt"),
    ];
    fields(look, delivery, &members)?;
    let explanation = &delivery["explanation"];
    if delivery["status"] == "pending" {
        let told = [("waits for", "cause"), ("then", "next"), ("gives up", "givesUpAt"), ("behind", "waitsFor")];
        fields(look, explanation, &told)?;
    }
    let attempts = delivery["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if attempts.is_empty() {
        return Ok(());
    }
    output::painted_line("")?;
    let columns = [
        Column::fixed("#"),
        Column::fixed("started (UTC)"),
        Column::fixed("outcome"),
        Column::fixed("status"),
        Column::fixed("ms"),
        Column::text("error"),
    ];
    let row = |attempt: &Value| {
        let outcome = text(attempt, "outcome");
        vec![
            Cell::plain(text(attempt, "number")),
            Cell::plain(time(attempt, "startedAt")),
            Cell::toned(tone_of(&outcome), outcome),
            Cell::plain(text(attempt, "responseStatus")),
            Cell::plain(text(attempt, "durationMs")),
            Cell::plain(text(attempt, "error")),
        ]
    };
    print_table(&columns, attempts.iter().map(row).collect(), look)?;
    let last = attempts.iter().rev().map(|attempt| text(attempt, "responseBody")).find(|body| !body.is_empty());
    if let Some(body) = last {
        output::painted_line("\nthe last answer's body")?;
        for line in body.lines() {
            output::line(line)?;
        }
    }
    Ok(())
}

async fn retry(options: RetryOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let (mut made, mut refused, mut not_found) = (Vec::new(), 0, 0);
    for ids in options.ids.chunks(limits::PAGE_MAX as usize) {
        let results = session.post("/v1/webhook-deliveries/retry", &json!({ "ids": ids })).await?;
        let results: Vec<Value> = serde_json::from_str(results.get())?;
        for result in results {
            let (id, new) = (text(&result, "id"), text(&result["delivery"], "id"));
            if session.look.is_json {
                output::json_line(&with_kind("retry", &serde_json::value::to_raw_value(&result)?))?;
            } else if new.is_empty() {
                let why = text(&result["error"], "message");
                output::line(format_args!("{id}  not retried: {why}"))?;
            } else {
                output::line(format_args!("{id}  {new}"))?;
            }
            if new.is_empty() {
                refused += 1;
                not_found += usize::from(result["error"]["code"] == "not_found");
            } else {
                made.push(new);
            }
        }
    }
    if not_found == options.ids.len() {
        return Err(Fault::NotFound("none of these deliveries was found".to_owned()).into());
    }
    options.wait.wait_for(&mut session, Deliveries::Ids(&made)).await?;
    if refused > 0 { Err(Fault::Shown.into()) } else { Ok(()) }
}

async fn skip(options: SkipOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let raw = session.post(&format!("/v1/webhook-deliveries/{}/skip", options.id), &json!({})).await?;
    if session.look.is_json {
        return print_object("delivery", &raw);
    }
    Ok(output::line(format_args!("{} is skipped: the deliveries behind it go on", options.id))?)
}
