//! `/v1/webhook-endpoints/{endpointId}/replay`, and the replay jobs.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::{EndpointId, ReplayId};
use postrider_domain::permission::Permission;
use postrider_domain::replay::{REPLAYABLE, REPLAYED_BY_DEFAULT, Replay, ReplayCount, ReplayRange};
use postrider_domain::time::Timestamp;
use postrider_service::fields::{boolean, string};
use postrider_service::{JsonBody, ServiceError};

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
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplayView {
    id: ReplayId,
    endpoint_id: EndpointId,
    status: &'static str,
    since: Timestamp,
    until: Timestamp,
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
        Self {
            id: replay.id,
            endpoint_id: replay.endpoint_id,
            status: replay.status.as_str(),
            since: replay.range.since,
            until: replay.range.until,
            statuses: replay.range.statuses.iter().map(|status| status.as_str()).collect(),
            total: replay.total,
            replayed: replay.replayed,
            unavailable: replay.unavailable,
            created_at: replay.id.created_at(),
            completed_at: replay.completed_at,
            mode: replay.mode.as_str(),
        }
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

/// A replay to start, or only to count.
struct ReplayCommand {
    range: ReplayRange,
    dry_run: bool,
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let endpoint_id = call.id(3)?;
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
    let page = call.service().list_replays(&call.principal, call.id(3)?, page).await?;
    Ok(answer(200, list(&page, ReplayView::new)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let replay = call.service().get_replay(&call.principal, call.id(3)?, call.id(5)?).await?;
    Ok(answer(200, single(ReplayView::new(&replay))))
}

async fn stop(call: Call, body: Body) -> Result<Response, Failure> {
    let (endpoint_id, id) = (call.id(3)?, call.id(5)?);
    let write = Write::begin(call, body, BodyRule::Optional, render).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().stop_replay(write.principal(), endpoint_id, id, &write.idempotent).await).await
}

/// 202: the replay continues in the background.
fn render_started(replay: &Replay) -> (u16, Bytes) {
    (202, single(ReplayView::new(replay)))
}

fn render(replay: &Replay) -> (u16, Bytes) {
    (200, single(ReplayView::new(replay)))
}
