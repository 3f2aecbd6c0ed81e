//! `/v1/events`.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::domain::access::{Principal, needs};
use crate::domain::endpoint::{OpaqueId, ProjectId};
use crate::domain::event::EventReceipt;
use crate::domain::event_type::{Catalogue, EventTypeName};
use crate::domain::id::EventId;
use crate::domain::time::Timestamp;
use crate::service::{PublishEvent, Service, ServiceError};

use super::body::{BodyRule, JsonBody, object, string};
use super::call::{Call, internal};
use super::endpoint::unknown_event;
use super::error::Failure;
use super::idempotency::{Write, with_replayed};
use super::openapi::event as openapi;
use super::paging::single;
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![Route::post("/events", publish, openapi::publish(catalogue))]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptView<'r> {
    id: EventId,
    external_id: Option<&'r str>,
    #[serde(rename = "type")]
    event_type: &'r EventTypeName,
    project_id: Option<&'r str>,
    created_at: Timestamp,
    deliveries: u32,
}

impl<'r> ReceiptView<'r> {
    fn new(receipt: &'r EventReceipt) -> Self {
        Self {
            id: receipt.id,
            external_id: receipt.external_id.as_deref(),
            event_type: &receipt.event_type,
            project_id: receipt.project_id.as_deref(),
            created_at: receipt.id.created_at(),
            deliveries: receipt.deliveries,
        }
    }
}

async fn publish(call: Call, body: Body) -> Result<Response, Failure> {
    call.require(needs::PUBLISH)?;
    let response = Write {
        body: BodyRule::Required,
        parse: |call: &Call, body: &JsonBody| parse_event(call.service().catalogue(), body),
        effect: async |service: Arc<Service>, principal: Principal, event, remember| {
            service.publish_events(&principal, vec![event], remember).await
        },
        render: render_receipt,
    }
    .run(call, body)
    .await?;
    // See `render_receipt`: of the answers to a publish, only a repeated one is a 200.
    Ok(if response.status() == StatusCode::OK { with_replayed(response, true) } else { response })
}

fn parse_event(catalogue: &Catalogue, body: &JsonBody) -> Result<PublishEvent, ServiceError> {
    let mut fields = body.fields()?;
    let find = |name: &str| match catalogue.find(name) {
        Some(event) => Ok(event.name.clone()),
        None => Err(unknown_event(catalogue, name)),
    };
    let event_type = fields.required("type", string(find));
    let data = fields.required("data", object);
    let project_id = fields.nullable("projectId", string(ProjectId::parse));
    let external_id = fields.nullable("externalId", string(OpaqueId::parse));
    let occurred_at = fields.nullable("occurredAt", string(Timestamp::parse));
    fields.finish()?;
    let body_hash = external_id.as_ref().map(|_| body.hash()).unwrap_or_default();
    match (event_type, data) {
        (Some(event_type), Some(data)) => {
            Ok(PublishEvent { event_type, data, project_id, external_id, occurred_at, body_hash })
        }
        _ => Err(internal("a required parameter is neither there nor at fault")),
    }
}

#[expect(clippy::ptr_arg, reason = "the effect of a publish is a vector")]
/// 202 for what was accepted now, 200 for the first answer to an `externalId` again.
fn render_receipt(receipts: &Vec<EventReceipt>) -> (u16, Bytes) {
    match receipts.first() {
        Some(receipt) => (if receipt.replayed { 200 } else { 202 }, single(ReceiptView::new(receipt))),
        None => (202, Bytes::new()),
    }
}
