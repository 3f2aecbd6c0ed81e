//! `DELETE /v1/events/{eventId}` and `/v1/erasures`.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use postrider_domain::endpoint::ProjectId;
use postrider_domain::erasure::{Erasure, ErasureTarget, PendingDeliveries};
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::{EndpointId, ErasureId, EventId};
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::fields::string;
use postrider_service::{JsonBody, ServiceError};

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing};
use super::call::Call;
use super::error::Failure;
use super::openapi::erasure as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

const ACCESS: Access = Access::Needs(Permission::EventsErase);

pub fn routes(_: &Catalogue) -> Vec<Route> {
    vec![
        Route::delete("/events/{eventId}", ACCESS, erase_event, openapi::erase_event()),
        Route::post("/erasures", ACCESS, create, openapi::create()),
        Route::get("/erasures", ACCESS, index, openapi::index()),
        Route::get("/erasures/{erasureId}", ACCESS, show, openapi::show()),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErasureView {
    id: ErasureId,
    event_id: Option<EventId>,
    project_id: Option<String>,
    endpoint_id: Option<EndpointId>,
    pending: &'static str,
    status: &'static str,
    events: u64,
    attempts: u64,
    cancelled: u64,
    answers: u64,
    waiting: u64,
    needs_compact: bool,
    created_at: Timestamp,
    completed_at: Option<Timestamp>,
    mode: &'static str,
}

impl ErasureView {
    fn new(erasure: &Erasure) -> Self {
        let (mut event_id, mut project_id, mut endpoint_id) = (None, None, None);
        match &erasure.target {
            ErasureTarget::Event(id) => event_id = Some(*id),
            ErasureTarget::Project(project) => project_id = Some(project.as_str().to_owned()),
            ErasureTarget::Endpoint(id) => endpoint_id = Some(*id),
        }
        Self {
            id: erasure.id,
            event_id,
            project_id,
            endpoint_id,
            pending: erasure.pending.as_str(),
            status: erasure.status.as_str(),
            events: erasure.events,
            attempts: erasure.attempts,
            cancelled: erasure.cancelled,
            answers: erasure.answers,
            waiting: erasure.waiting,
            needs_compact: erasure.needs_compact,
            created_at: erasure.id.created_at(),
            completed_at: erasure.completed_at,
            mode: erasure.mode.as_str(),
        }
    }
}

async fn erase_event(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let mut query = Query::parse(&call.uri);
    let pending = query.optional("pending", PendingDeliveries::parse).unwrap_or_default();
    query.finish()?;
    let write = Write::begin(call, body, BodyRule::Optional, render).await?;
    write.check(parse_nothing(&write.body)).await?;
    let target = ErasureTarget::Event(id);
    write.answer(write.service().erase(write.principal(), target, pending, &write.idempotent).await).await
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let write = Write::begin(call, body, BodyRule::Required, render_started).await?;
    let (target, pending) = write.check(parse(&write.body)).await?;
    write.answer(write.service().erase(write.principal(), target, pending, &write.idempotent).await).await
}

fn parse(body: &JsonBody) -> Result<(ErasureTarget, PendingDeliveries), ServiceError> {
    let mut fields = body.fields()?;
    let project = fields.nullable("projectId", string(ProjectId::parse));
    let endpoint = fields.nullable("endpointId", string(endpoint_id));
    let pending = fields.nullable("pending", string(PendingDeliveries::parse)).unwrap_or_default();
    fields.finish()?;
    let target = match (project, endpoint) {
        (Some(project), None) => ErasureTarget::Project(project),
        (None, Some(endpoint)) => ErasureTarget::Endpoint(endpoint),
        (None, None) => return Err(ServiceError::unprocessable("projectId", "give either this or endpointId")),
        (Some(_), Some(_)) => return Err(ServiceError::unprocessable("endpointId", "cannot be given with projectId")),
    };
    Ok((target, pending))
}

fn endpoint_id(text: &str) -> Result<EndpointId, &'static str> {
    text.parse().map_err(|_| "must be the id of an endpoint, which looks like whe_a1b2c3d4e5f6g7h8")
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let page = call.service().list_erasures(&call.principal, page).await?;
    Ok(answer(200, list(&page, ErasureView::new)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let erasure = call.service().get_erasure(&call.principal, call.id(3)?).await?;
    Ok(answer(200, single(ErasureView::new(&erasure))))
}

fn render(erasure: &Erasure) -> (u16, Bytes) {
    (200, single(ErasureView::new(erasure)))
}

/// 202: the erasure continues in the background.
fn render_started(erasure: &Erasure) -> (u16, Bytes) {
    (202, single(ErasureView::new(erasure)))
}
