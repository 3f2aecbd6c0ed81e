//! `/v1/webhook-endpoints/{endpointId}/replay`, `/v1/webhook-deliveries/replay`, and the replay jobs.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::{EndpointId, ReplayId};
use postrider_domain::list_filter::ListFilter;
use postrider_domain::permission::Permission;
use postrider_domain::replay::{REPLAYABLE, REPLAYED_BY_DEFAULT, Replay, ReplayCount, ReplayRange};
use postrider_domain::time::Timestamp;
use postrider_service::fields::{Fields, boolean, string};
use postrider_service::{JsonBody, ServiceError, known_event};

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing, read_body};
use super::call::Call;
use super::error::Failure;
use super::openapi::replay as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ONE: &str = "/webhook-endpoints/{endpointId}/replays/{replayId}";
    vec![
        Route::post(
            "/webhook-endpoints/{endpointId}/replay",
            Access::Needs(Permission::ReplaysWrite),
            create,
            openapi::create(catalogue),
        ),
        Route::get(
            "/webhook-endpoints/{endpointId}/replays",
            Access::Needs(Permission::DeliveriesRead),
            index,
            openapi::index(catalogue),
        ),
        Route::get(ONE, Access::Needs(Permission::DeliveriesRead), show, openapi::show(catalogue)),
        Route::post(
            "/webhook-endpoints/{endpointId}/replays/{replayId}/stop",
            Access::Needs(Permission::ReplaysWrite),
            stop,
            openapi::stop(catalogue),
        ),
        Route::post(
            "/webhook-deliveries/replay",
            Access::Needs(Permission::ReplaysWrite),
            create_filtered,
            openapi::create_filtered(catalogue),
        ),
        Route::get("/replays", Access::Needs(Permission::DeliveriesRead), index_all, openapi::index_all(catalogue)),
        Route::get(
            "/replays/{replayId}",
            Access::Needs(Permission::DeliveriesRead),
            show_any,
            openapi::show_any(catalogue),
        ),
        Route::post(
            "/replays/{replayId}/stop",
            Access::Needs(Permission::ReplaysWrite),
            stop_any,
            openapi::stop_any(catalogue),
        ),
    ]
}

/// A replay of an endpoint.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplayView {
    id: ReplayId,
    endpoint_id: Option<EndpointId>,
    status: &'static str,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    statuses: Vec<&'static str>,
    total: u64,
    replayed: u64,
    unavailable: u64,
    created_at: Timestamp,
    completed_at: Option<Timestamp>,
    mode: &'static str,
}

impl ReplayView {
    fn new(replay: &Replay) -> Self {
        let DeliveryFilter { since, until, statuses, .. } = replay.selection.filter();
        Self {
            id: replay.id,
            endpoint_id: replay.selection.endpoint_id(),
            status: replay.status.as_str(),
            since,
            until,
            statuses: statuses.into_iter().map(DeliveryStatus::as_str).collect(),
            total: replay.total,
            replayed: replay.replayed,
            unavailable: replay.unavailable,
            created_at: replay.id.created_at(),
            completed_at: replay.completed_at,
            mode: replay.mode.as_str(),
        }
    }
}

/// Any replay. That of an endpoint has the filter that finds the same deliveries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobView {
    id: ReplayId,
    endpoint_id: Option<EndpointId>,
    filter: FilterView,
    status: &'static str,
    total: u64,
    counted_to: Option<Timestamp>,
    replayed: u64,
    unavailable: u64,
    created_at: Timestamp,
    completed_at: Option<Timestamp>,
    mode: &'static str,
}

impl JobView {
    fn new(replay: &Replay) -> Self {
        Self {
            id: replay.id,
            endpoint_id: replay.selection.endpoint_id(),
            filter: FilterView(replay.selection.filter()),
            status: replay.status.as_str(),
            total: replay.total,
            counted_to: replay.counted_to,
            replayed: replay.replayed,
            unavailable: replay.unavailable,
            created_at: replay.id.created_at(),
            completed_at: replay.completed_at,
            mode: replay.mode.as_str(),
        }
    }
}

/// An object of the parameters that are set: an instant, or an array of values.
struct FilterView(DeliveryFilter);

impl Serialize for FilterView {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.pairs().into_iter().map(|(name, text)| {
            let value = match name {
                "since" | "until" => serde_json::Value::from(text),
                _ => text.split(',').collect::<Vec<_>>().into(),
            };
            (name, value)
        }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountView {
    dry_run: bool,
    total: u64,
    unavailable: u64,
}

impl CountView {
    fn new(count: ReplayCount) -> Self {
        Self { dry_run: true, total: count.total, unavailable: count.unavailable }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FilteredCountView {
    dry_run: bool,
    filter: FilterView,
    total: u64,
    unavailable: u64,
    counted_to: Option<Timestamp>,
}

/// A replay to start, or only to count.
struct ReplayCommand {
    range: ReplayRange,
    dry_run: bool,
}

pub async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let endpoint_id = call.endpoint_id()?;
    let body = read_body(&call.headers, body, BodyRule::Required).await?;
    let command = parse(&call, &body);
    if let Ok(ReplayCommand { range, dry_run: true }) = &command {
        let count = call.service().count_replay(&call.principal, endpoint_id, range).await?;
        return Ok(answer(200, single(CountView::new(count))));
    }
    let write = Write::begin_with(call, body, render_started).await?;
    let range = write.check(command).await?.range;
    let started = write.service().start_replay(write.principal(), endpoint_id, range, &write.idempotent).await;
    write.answer(started).await
}

fn parse(call: &Call, body: &JsonBody) -> Result<ReplayCommand, ServiceError> {
    let mut fields = body.fields()?;
    let since = fields.required("since", string(Timestamp::parse));
    let until = fields.nullable("until", string(Timestamp::parse));
    let statuses = fields.nullable("statuses", statuses);
    let dry_run = fields.nullable("dryRun", boolean).unwrap_or_default();
    // Later deliveries do not exist yet. The answer shows the range that is really replayed.
    let now = call.service().clock().now();
    let until = until.map_or(now, |until| until.min(now));
    let since = fields.finish_with(since)?;
    if since >= until {
        return Err(ServiceError::unprocessable("since", "must be earlier than until, which is now at the latest"));
    }
    let statuses = statuses.unwrap_or_else(|| REPLAYED_BY_DEFAULT.to_vec());
    Ok(ReplayCommand { range: ReplayRange { since, until, statuses }, dry_run })
}

/// At least one status that can be replayed. Repeated ones count once.
fn statuses(raw: &RawValue) -> Result<Vec<DeliveryStatus>, String> {
    let names: Vec<String> = serde_json::from_str(raw.get()).map_err(|_| "must be an array of statuses".to_owned())?;
    if names.is_empty() {
        return Err("must name at least one status".to_owned());
    }
    let mut statuses = Vec::new();
    for name in names {
        let status = DeliveryStatus::parse(&name)
            .filter(|status| REPLAYABLE.contains(status))
            .ok_or_else(|| format!("each must be one of {}", REPLAYABLE.map(DeliveryStatus::as_str).join(", ")))?;
        if !statuses.contains(&status) {
            statuses.push(status);
        }
    }
    Ok(statuses)
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let page = call.service().list_replays(&call.principal, Some(call.endpoint_id()?), page).await?;
    Ok(answer(200, list(&page, ReplayView::new)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let replay = call.service().get_replay(&call.principal, Some(call.endpoint_id()?), call.id(5)?).await?;
    Ok(answer(200, single(ReplayView::new(&replay))))
}

async fn stop(call: Call, body: Body) -> Result<Response, Failure> {
    let (endpoint_id, id) = (call.endpoint_id()?, call.id(5)?);
    let write = Write::begin(call, body, BodyRule::Optional, render).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().stop_replay(write.principal(), Some(endpoint_id), id, &write.idempotent).await).await
}

async fn create_filtered(call: Call, body: Body) -> Result<Response, Failure> {
    let body = read_body(&call.headers, body, BodyRule::Required).await?;
    let command = parse_filtered(&call, &body);
    if let Ok((filter, true)) = command {
        let (filter, count) = call.service().count_filtered(&call.principal, filter).await?;
        let ReplayCount { total, unavailable, counted_to } = count;
        let view = FilteredCountView { dry_run: true, filter: FilterView(filter), total, unavailable, counted_to };
        return Ok(answer(200, single(view)));
    }
    let write = Write::begin_with(call, body, render_started_job).await?;
    let (filter, _) = write.check(command).await?;
    let started = write.service().start_filtered(write.principal(), filter, &write.idempotent).await;
    write.answer(started).await
}

fn parse_filtered(call: &Call, body: &JsonBody) -> Result<(DeliveryFilter, bool), ServiceError> {
    let mut fields = body.fields()?;
    let filter = fields.required("filter", Ok);
    let dry_run = fields.nullable("dryRun", boolean).unwrap_or_default();
    let mut parameters = Fields::inside(fields.finish_with(filter)?, "filter".to_owned())?;
    let catalogue = call.service().catalogue();
    let mut filter = DeliveryFilter::default();
    for name in DeliveryFilter::NAMES {
        let Some(text) = parameters.optional(name, one_or_more) else { continue };
        if let Err(fault) = filter.set(name, &text, &|event| known_event(catalogue, event)) {
            parameters.fault(name, fault);
        }
    }
    parameters.finish()?;
    Ok((filter, dry_run))
}

/// A text as in a query, or an array of texts.
fn one_or_more(raw: &RawValue) -> Result<String, String> {
    if let Ok(text) = serde_json::from_str::<String>(raw.get()) {
        return Ok(text);
    }
    let texts = serde_json::from_str::<Vec<String>>(raw.get()).ok().filter(|texts| !texts.is_empty());
    texts.map(|texts| texts.join(",")).ok_or_else(|| "must be a string or an array of at least one string".to_owned())
}

async fn index_all(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let page = call.service().list_replays(&call.principal, None, page).await?;
    Ok(answer(200, list(&page, JobView::new)))
}

async fn show_any(call: Call) -> Result<Response, Failure> {
    let replay = call.service().get_replay(&call.principal, None, call.id(3)?).await?;
    Ok(answer(200, single(JobView::new(&replay))))
}

async fn stop_any(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, render_job).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().stop_replay(write.principal(), None, id, &write.idempotent).await).await
}

/// 202: the replay continues in the background.
fn render_started(replay: &Replay) -> (u16, Bytes) {
    (202, single(ReplayView::new(replay)))
}

fn render(replay: &Replay) -> (u16, Bytes) {
    (200, single(ReplayView::new(replay)))
}

fn render_started_job(replay: &Replay) -> (u16, Bytes) {
    (202, single(JobView::new(replay)))
}

fn render_job(replay: &Replay) -> (u16, Bytes) {
    (200, single(JobView::new(replay)))
}
