//! `/v1/events`.

use std::cell::LazyCell;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use postrider_domain::event::{Event, EventDetail, EventReceipt, SkippedEndpoint, data_of};
use postrider_domain::event_type::{Catalogue, EventTypeName};
use postrider_domain::id::{DeliveryId, EndpointId, EventId};
use postrider_domain::idempotency::body_hash;
use postrider_domain::limits;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::{TRACEPARENT, TraceContext};
use postrider_service::fields::Fields;
use postrider_service::{JsonBody, OtherEndpoint, PublishEvent, Service, ServiceError, run_blocking};

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::BodyRule;
use super::call::Call;
use super::error::Failure;
use super::openapi::event as openapi;
use super::query::Query;
use super::route::Route;
use super::write::{Write, idempotency_key, with_replayed};

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![
        Route::post("/events", Access::Needs(Permission::EventsPublish), publish, openapi::publish(catalogue))
            .publishing(),
        Route::post(
            "/events/batch",
            Access::Needs(Permission::EventsPublish),
            publish_batch,
            openapi::publish_batch(catalogue),
        )
        .publishing(),
        Route::get("/events", Access::Needs(Permission::EventsRead), index, openapi::index(catalogue)),
        Route::get("/events/{eventId}", Access::Needs(Permission::EventsRead), show, openapi::show(catalogue)),
        Route::get(
            "/events/{eventId}/other-endpoints",
            Access::Needs(Permission::EventsRead),
            other_endpoints,
            openapi::other_endpoints(),
        ),
    ]
}

/// An endpoint that did not get the event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OtherEndpointView {
    endpoint_id: EndpointId,
    reason: &'static str,
    configured_as: &'static str,
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

/// An event without its `data`, as it is listed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView<'e> {
    id: EventId,
    #[serde(rename = "type")]
    event_type: &'e EventTypeName,
    project_id: Option<&'e str>,
    external_id: Option<&'e str>,
    mode: &'static str,
    occurred_at: Option<Timestamp>,
    created_at: Timestamp,
    deliveries: u32,
    /// Why the event has no delivery.
    reason: Option<&'static str>,
    payload: &'static str,
}

impl<'e> EventView<'e> {
    fn new(event: &'e Event) -> Self {
        Self {
            id: event.id,
            event_type: &event.event_type,
            project_id: event.project_id.as_deref(),
            external_id: event.external_id.as_deref(),
            mode: event.mode.as_str(),
            occurred_at: event.occurred_at,
            created_at: event.id.created_at(),
            deliveries: event.deliveries,
            reason: event.matched_none.then_some("no_match"),
            payload: event.payload.as_str(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventDetailView<'d> {
    #[serde(flatten)]
    event: EventView<'d>,
    skipped: Vec<SkippedView>,
    /// The bytes that were published, unless the payload is gone.
    data: Option<&'d RawValue>,
}

/// A matching endpoint that does not get the event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SkippedView {
    endpoint_id: EndpointId,
    delivery_id: DeliveryId,
    reason: &'static str,
}

impl SkippedView {
    fn new(skipped: &SkippedEndpoint) -> Self {
        let SkippedEndpoint { endpoint_id, delivery_id, reason } = *skipped;
        Self { endpoint_id, delivery_id, reason: reason.as_str() }
    }
}

async fn publish(call: Call, body: Body) -> Result<Response, Failure> {
    let write =
        Write::begin(call, body, BodyRule::Required, |receipts: &Vec<EventReceipt>| render_receipt(receipts)).await?;
    let mut event = write.check(PublishEvent::parse(write.catalogue(), &write.body)).await?;
    event.trace = trace_of(&write.call);
    let receipts = write.service().publish_event(write.principal(), event, &write.idempotent).await;
    Ok(marked(write.answer(receipts).await?))
}

async fn publish_batch(call: Call, body: Body) -> Result<Response, Failure> {
    let rule = if idempotency_key(&call).is_some() { BodyRule::KeyedBatch } else { BodyRule::Batch };
    let write = Write::begin(call, body, rule, |receipts: &Vec<EventReceipt>| render_receipts(receipts)).await?;
    let mut events = write.check(read_batch(write.service(), &write.body).await).await?;
    if let trace @ Some(_) = trace_of(&write.call) {
        events.iter_mut().for_each(|event| event.trace = trace);
    }
    let receipts = write.service().publish_batch(write.principal(), events, &write.idempotent).await;
    Ok(marked(write.answer(receipts).await?))
}

/// The trace that the publisher named, if it is a valid one.
fn trace_of(call: &Call) -> Option<TraceContext> {
    TraceContext::of_headers(call.headers.get_all(TRACEPARENT).iter().map(HeaderValue::as_bytes))
}

/// Status 200 means that every `externalId` was published before, so the answer is a replayed one.
pub fn marked(response: Response) -> Response {
    if response.status() == StatusCode::OK { with_replayed(response, true) } else { response }
}

async fn read_batch(service: &Arc<Service>, body: &JsonBody) -> Result<Vec<PublishEvent>, ServiceError> {
    if body.size() <= limits::BODY_BYTES {
        return parse_batch(service.catalogue(), body);
    }
    let (service, body) = (Arc::clone(service), body.clone());
    run_blocking(move || parse_batch(service.catalogue(), &body)).await
}

fn parse_batch(catalogue: &Catalogue, body: &JsonBody) -> Result<Vec<PublishEvent>, ServiceError> {
    let mut fields = body.fields()?;
    let items = fields.required("events", event_objects);
    let items = fields.finish_with(items)?;
    if let Some(index) = items.iter().position(|item| item.get().len() > limits::BODY_BYTES) {
        let kilobytes = limits::BODY_BYTES / 1024;
        return Err(ServiceError::PayloadTooLarge(format!("events[{index}] is larger than {kilobytes} KB.")));
    }
    let canonical = LazyCell::new(|| body.canonical_items("events"));
    let (mut events, mut faults) = (Vec::with_capacity(items.len()), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let hash = || canonical.get(index).map(|item| body_hash(item)).unwrap_or_default();
        let read = Fields::inside(item, format!("events[{index}]"))
            .and_then(|fields| PublishEvent::from_fields(catalogue, fields, hash));
        match read {
            Ok(event) => events.push(event),
            Err(ServiceError::InvalidRequest { parameters }) => faults.extend(parameters),
            Err(other) => return Err(other),
        }
        if faults.len() >= limits::VIOLATIONS_SHOWN {
            break;
        }
    }
    if faults.is_empty() { Ok(events) } else { Err(ServiceError::InvalidRequest { parameters: faults }) }
}

fn event_objects(raw: &RawValue) -> Result<Vec<&RawValue>, String> {
    let FirstItems { items, count } =
        serde_json::from_str(raw.get()).map_err(|_| "must be an array of events".to_owned())?;
    if (1..=limits::BATCH_EVENTS).contains(&count) {
        Ok(items)
    } else {
        Err(format!("must hold 1 to {} events, not {count}", limits::BATCH_EVENTS))
    }
}

/// The items of an array, at most as many as a batch may have, and the number of all. The others take no memory.
struct FirstItems<'r> {
    items: Vec<&'r RawValue>,
    count: usize,
}

impl<'r> Deserialize<'r> for FirstItems<'r> {
    fn deserialize<D: Deserializer<'r>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'r> Visitor<'r> for First {
            type Value = FirstItems<'r>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'r>>(self, mut array: A) -> Result<FirstItems<'r>, A::Error> {
                let mut items = Vec::new();
                while items.len() < limits::BATCH_EVENTS {
                    let Some(item) = array.next_element()? else { break };
                    items.push(item);
                }
                let mut count = items.len();
                while array.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(FirstItems { items, count })
            }
        }
        deserializer.deserialize_seq(First)
    }
}

/// 202 for an event accepted now, 200 for the first receipt of an `externalId`.
pub fn render_receipt(receipts: &[EventReceipt]) -> (u16, Bytes) {
    match receipts.first() {
        Some(receipt) => (status_of(receipts), single(ReceiptView::new(receipt))),
        None => (202, Bytes::new()),
    }
}

fn render_receipts(receipts: &[EventReceipt]) -> (u16, Bytes) {
    (status_of(receipts), single(receipts.iter().map(ReceiptView::new).collect::<Vec<_>>()))
}

fn status_of(receipts: &[EventReceipt]) -> u16 {
    if receipts.iter().all(|receipt| receipt.replayed) { 200 } else { 202 }
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    let filter = query.filter(call.service().catalogue());
    query.finish()?;
    let page = call.service().list_events(&call.principal, filter, page).await?;
    Ok(answer(200, list(&page, EventView::new)))
}

async fn other_endpoints(call: Call) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let page = call.service().list_other_endpoints(&call.principal, id, page).await?;
    let view = |other: &OtherEndpoint| OtherEndpointView {
        endpoint_id: other.endpoint_id,
        reason: other.reason.as_str(),
        configured_as: other.configured_as.as_str(),
    };
    Ok(answer(200, list(&page, view)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let EventDetail { event, skipped, envelope } = call.service().get_event(&call.principal, id).await?;
    let view = EventDetailView {
        event: EventView::new(&event),
        skipped: skipped.iter().map(SkippedView::new).collect(),
        data: data_of(&envelope),
    };
    Ok(answer(200, single(view)))
}
