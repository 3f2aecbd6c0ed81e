//! `/v1/webhook-endpoints/{endpointId}/replay` and the jobs it makes.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::access::{Principal, needs};
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::{EndpointId, ReplayId};
use postrider_domain::replay::{REPLAYABLE, REPLAYED_BY_DEFAULT, Replay, ReplayCount, ReplayRange};
use postrider_domain::time::Timestamp;
use postrider_service::{Service, ServiceError};

use super::body::{BodyRule, JsonBody, boolean, string};
use super::call::{Call, internal};
use super::error::Failure;
use super::idempotency::{Write, answer};
use super::openapi::replay as openapi;
use super::paging::{Query, list, single};
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ONE: &str = "/webhook-endpoints/{endpointId}/replays/{replayId}";
    vec![
        Route::post("/webhook-endpoints/{endpointId}/replay", create, openapi::create(catalogue)),
        Route::get("/webhook-endpoints/{endpointId}/replays", index, openapi::index(catalogue)),
        Route::get(ONE, show, openapi::show(catalogue)),
        Route::post("/webhook-endpoints/{endpointId}/replays/{replayId}/stop", stop, openapi::stop(catalogue)),
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

/// What was asked for: the job, or only its size.
struct ReplayCommand {
    range: ReplayRange,
    dry_run: bool,
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    call.require(needs::ENDPOINT_WRITE)?;
    let endpoint_id = call.id(3)?;
    let body = JsonBody::read(&call.headers, body, BodyRule::Required).await?;
    if let Ok(ReplayCommand { range, dry_run: true }) = parse(&call, &body) {
        let ReplayCount { total, unavailable } =
            call.service().count_replay(&call.principal, endpoint_id, &range).await?;
        return Ok(answer(200, single(CountView { dry_run: true, total, unavailable })));
    }
    Write {
        body: BodyRule::Required,
        parse: |call: &Call, body: &JsonBody| parse(call, body),
        effect: async move |service: Arc<Service>, principal: Principal, command: ReplayCommand, remember| {
            service.start_replay(&principal, endpoint_id, command.range, remember).await
        },
        render: |replay: &Replay| (202, single(ReplayView::new(replay))),
    }
    .run_read(call, body)
    .await
}

fn parse(call: &Call, body: &JsonBody) -> Result<ReplayCommand, ServiceError> {
    let mut fields = body.fields()?;
    let since = fields.required("since", string(Timestamp::parse));
    let until = fields.nullable("until", string(Timestamp::parse));
    let statuses = fields.nullable("statuses", statuses);
    let dry_run = fields.nullable("dryRun", boolean).unwrap_or_default();
    // What is yet to come is not there to be replayed, so the answer does not pretend that it will be.
    let now = call.service().clock().now();
    let until = until.map_or(now, |until| until.min(now));
    fields.finish()?;
    let since = since.ok_or_else(|| internal("a required parameter is neither there nor at fault"))?;
    if since >= until {
        return Err(ServiceError::unprocessable("since", "must be earlier than until, which is now at the latest"));
    }
    let statuses = statuses.unwrap_or_else(|| REPLAYED_BY_DEFAULT.to_vec());
    Ok(ReplayCommand { range: ReplayRange { since, until, statuses }, dry_run })
}

/// At least one status that can be replayed; each is taken once.
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
    call.require(needs::ENDPOINT_WRITE)?;
    let (endpoint_id, id) = (call.id(3)?, call.id(5)?);
    Write {
        body: BodyRule::Optional,
        parse: |_: &Call, body: &JsonBody| body.fields()?.finish(),
        effect: async move |service: Arc<Service>, principal: Principal, (), remember| {
            service.stop_replay(&principal, endpoint_id, id, remember).await
        },
        render: |replay: &Replay| (200, single(ReplayView::new(replay))),
    }
    .run(call, body)
    .await
}
