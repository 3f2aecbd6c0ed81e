//! `/v1/parked-messages`.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Serialize;

use postrider_domain::endpoint::ProjectId;
use postrider_domain::event::EventReceipt;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::ParkedMessageId;
use postrider_domain::permission::Permission;
use postrider_domain::source::{ParkedMessage, SourceName};
use postrider_domain::time::Timestamp;

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing};
use super::call::Call;
use super::error::Failure;
use super::event::{marked, render_receipt};
use super::openapi::parked_message as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const READ: Access = Access::Needs(Permission::EventsRead);
    const WRITE: Access = Access::Needs(Permission::EventsPublish);
    vec![
        Route::get("/parked-messages", READ, index, openapi::index(catalogue)),
        Route::get("/parked-messages/{parkedMessageId}", READ, show, openapi::show(catalogue)),
        Route::post("/parked-messages/{parkedMessageId}/retry", WRITE, retry, openapi::retry(catalogue)),
        Route::delete("/parked-messages/{parkedMessageId}", WRITE, discard, openapi::discard(catalogue)),
    ]
}

/// A parked message without its headers and body, as it is listed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParkedMessageView<'m> {
    id: ParkedMessageId,
    source: &'m str,
    mode: &'static str,
    project_id: Option<&'m str>,
    reason: &'static str,
    detail: &'m str,
    subject: Option<&'m str>,
    sequence: Option<&'m str>,
    message_id: Option<&'m str>,
    body_bytes: u64,
    truncated: bool,
    parked_at: Timestamp,
}

impl<'m> ParkedMessageView<'m> {
    fn new(parked: &'m ParkedMessage) -> Self {
        let message = &parked.message;
        Self {
            id: parked.id,
            source: &parked.source,
            mode: parked.mode.as_str(),
            project_id: parked.project_id.as_ref().map(ProjectId::as_str),
            reason: parked.reason.as_str(),
            detail: &parked.detail,
            subject: message.subject.as_deref(),
            sequence: message.sequence.as_deref(),
            message_id: message.message_id.as_deref(),
            body_bytes: parked.body_bytes,
            truncated: parked.is_cut(),
            parked_at: parked.parked_at,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParkedMessageDetailView<'m> {
    #[serde(flatten)]
    message: ParkedMessageView<'m>,
    headers: Vec<HeaderView<'m>>,
    body: String,
}

#[derive(Serialize)]
struct HeaderView<'m> {
    name: &'m str,
    value: &'m str,
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    let source = query.optional("source", SourceName::parse);
    query.finish()?;
    let page = call.service().list_parked_messages(&call.principal, source, page).await?;
    Ok(answer(200, list(&page, ParkedMessageView::new)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let parked = call.service().get_parked_message(&call.principal, id).await?;
    let headers = parked.message.headers.iter().map(|(name, value)| HeaderView { name, value });
    let view = ParkedMessageDetailView {
        message: ParkedMessageView::new(&parked),
        headers: headers.collect(),
        body: BASE64_STANDARD.encode(&parked.message.body),
    };
    Ok(answer(200, single(view)))
}

async fn retry(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, |receipts: &Vec<EventReceipt>| render_receipt(receipts));
    let write = write.await?;
    write.check(parse_nothing(&write.body)).await?;
    let receipts = write.service().retry_parked_message(write.principal(), id, &write.idempotent).await;
    Ok(marked(write.answer(receipts).await?))
}

async fn discard(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, |()| (204, Bytes::new())).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().discard_parked_message(write.principal(), id, &write.idempotent).await).await
}
