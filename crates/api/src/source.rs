//! `/v1/sources`.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use postrider_domain::event_type::Catalogue;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::{ServiceError, SourceReport};

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing};
use super::call::Call;
use super::error::Failure;
use super::openapi::source as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const READ: Access = Access::Needs(Permission::EventsRead);
    const WRITE: Access = Access::Needs(Permission::EventsPublish);
    vec![
        Route::get("/sources", READ, index, openapi::index(catalogue)),
        Route::get("/sources/{sourceName}", READ, show, openapi::show(catalogue)),
        Route::post("/sources/{sourceName}/pause", WRITE, pause, openapi::pause(catalogue)),
        Route::post("/sources/{sourceName}/resume", WRITE, resume, openapi::resume(catalogue)),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceView<'s> {
    name: &'s str,
    kind: &'static str,
    mode: &'static str,
    state: &'static str,
    error: Option<&'s str>,
    since: Timestamp,
    last_message_at: Option<Timestamp>,
    accepted: u64,
    repeated: u64,
    parked: u64,
    parked_messages: u64,
    parked_max: u32,
}

impl<'s> SourceView<'s> {
    fn new(report: &'s SourceReport) -> Self {
        Self {
            name: &report.name,
            kind: report.kind.as_str(),
            mode: report.mode.as_str(),
            state: report.state.as_str(),
            error: report.error.as_deref(),
            since: report.since,
            last_message_at: report.last_message_at,
            accepted: report.counts.accepted,
            repeated: report.counts.repeated,
            parked: report.counts.parked,
            parked_messages: report.parked_messages,
            parked_max: report.parked_max,
        }
    }
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let page = call.service().list_sources(&call.principal, page).await?;
    Ok(answer(200, list(&page, SourceView::new)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let report = call.service().get_source(&call.principal, &name_in(&call)?).await?;
    Ok(answer(200, single(SourceView::new(&report))))
}

async fn pause(call: Call, body: Body) -> Result<Response, Failure> {
    set_paused(call, body, true).await
}

async fn resume(call: Call, body: Body) -> Result<Response, Failure> {
    set_paused(call, body, false).await
}

async fn set_paused(call: Call, body: Body, is_paused: bool) -> Result<Response, Failure> {
    let name = name_in(&call)?;
    let write = Write::begin(call, body, BodyRule::Optional, render).await?;
    write.check(parse_nothing(&write.body)).await?;
    let set = write.service().set_source_paused(write.principal(), &name, is_paused, &write.idempotent).await;
    write.answer(set).await
}

fn render(report: &SourceReport) -> (u16, Bytes) {
    (200, single(SourceView::new(report)))
}

/// A name needs no escapes, so a path with one names nothing.
fn name_in(call: &Call) -> Result<String, ServiceError> {
    call.id(3)
}
