//! `/v1/webhook-deliveries`.

use std::net::IpAddr;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases};
use postrider_domain::delivery::{Delivery, DeliveryFilter, EndReason};
use postrider_domain::event_type::{Catalogue, EventTypeName};
use postrider_domain::explanation::{Explanation, WhyThen};
use postrider_domain::id::{DeliveryId, EndpointId, EventId};
use postrider_domain::limits;
use postrider_domain::permission::Permission;
use postrider_domain::sent_request::HttpVersion;
use postrider_domain::time::Timestamp;
use postrider_service::{JsonBody, RetriedDelivery, ServiceError, refused_retry};

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing};
use super::call::Call;
use super::error::{Failure, code_of, message_of};
use super::openapi::delivery as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ONE: &str = "/webhook-deliveries/{deliveryId}";
    const OF_ENDPOINT: &str = "/webhook-endpoints/{endpointId}/deliveries";
    vec![
        Route::get("/webhook-deliveries", Access::Needs(Permission::DeliveriesRead), index, openapi::index(catalogue)),
        Route::get(ONE, Access::Needs(Permission::DeliveriesRead), show, openapi::show(catalogue)),
        Route::post(
            "/webhook-deliveries/retry",
            Access::Needs(Permission::DeliveriesRetry),
            retry_all,
            openapi::retry_all(catalogue),
        ),
        Route::post(
            "/webhook-deliveries/{deliveryId}/retry",
            Access::Needs(Permission::DeliveriesRetry),
            retry,
            openapi::retry(catalogue),
        ),
        Route::post(
            "/webhook-deliveries/{deliveryId}/skip",
            Access::Needs(Permission::DeliveriesSkip),
            skip,
            openapi::skip(catalogue),
        ),
        Route::get(
            OF_ENDPOINT,
            Access::Needs(Permission::DeliveriesRead),
            index_of_endpoint,
            openapi::index_of_endpoint(catalogue),
        ),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryView {
    id: DeliveryId,
    event_id: EventId,
    event_type: EventTypeName,
    endpoint_id: EndpointId,
    project_id: Option<String>,
    mode: &'static str,
    status: &'static str,
    reason: Option<&'static str>,
    cause: &'static str,
    retry_of: Option<DeliveryId>,
    attempt_count: u32,
    next_attempt_at: Option<Timestamp>,
    created_at: Timestamp,
    completed_at: Option<Timestamp>,
    is_blocking: bool,
    last_outcome: Option<&'static str>,
    last_response_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<ExplanationView>,
}

/// How a delivery stands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplanationView {
    state: &'static str,
    cause: &'static str,
    next: &'static str,
    next_at: Option<Timestamp>,
    why_then: Option<&'static str>,
    step: Option<u32>,
    steps: Option<u32>,
    gives_up_at: Option<Timestamp>,
    waits_for: Option<DeliveryId>,
}

impl ExplanationView {
    fn new(explanation: &Explanation) -> Self {
        let (step, steps) = match explanation.why_then {
            Some(WhyThen::Schedule { step, steps }) => (Some(step), Some(steps)),
            _ => (None, None),
        };
        Self {
            state: explanation.state.as_str(),
            cause: explanation.cause.as_str(),
            next: explanation.next.as_str(),
            next_at: explanation.next_at,
            why_then: explanation.why_then.map(WhyThen::as_str),
            step,
            steps,
            gives_up_at: explanation.gives_up_at,
            waits_for: explanation.waits_for,
        }
    }
}

impl DeliveryView {
    fn new(delivery: &Delivery, attempts: Option<Vec<Attempt>>) -> Self {
        Self {
            id: delivery.id,
            event_id: delivery.event_id,
            event_type: delivery.event_type.clone(),
            endpoint_id: delivery.endpoint_id,
            project_id: delivery.project_id.clone(),
            mode: delivery.mode.as_str(),
            status: delivery.status.as_str(),
            reason: delivery.reason.map(EndReason::as_str),
            cause: delivery.cause.as_str(),
            retry_of: delivery.retry_of,
            attempt_count: delivery.attempt_count,
            next_attempt_at: delivery.next_attempt_at,
            created_at: delivery.id.created_at(),
            completed_at: delivery.completed_at,
            is_blocking: delivery.is_blocking,
            last_outcome: delivery.last_outcome.map(AttemptOutcome::as_str),
            last_response_status: delivery.last_response_status,
            attempts: attempts.map(|attempts| attempts.into_iter().map(AttemptView::new).collect()),
            explanation: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptView {
    number: u32,
    started_at: Timestamp,
    duration_ms: u32,
    outcome: &'static str,
    fault: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_headers: Option<Vec<HeaderView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_address: Option<IpAddr>,
    response_status: Option<u16>,
    response_headers: Vec<HeaderView>,
    /// Bytes that are not UTF-8 are shown as the replacement character.
    response_body: Option<String>,
    error: Option<String>,
    next_attempt_at: Option<Timestamp>,
    phases: Option<PhasesView>,
    payload: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhasesView {
    dns_ms: Option<u32>,
    connect_ms: Option<u32>,
    tls_ms: Option<u32>,
    first_byte_ms: Option<u32>,
    body_ms: Option<u32>,
    connection_reused: bool,
}

/// A header may come more than once, so headers are a list.
#[derive(Serialize)]
struct HeaderView {
    name: String,
    value: String,
}

impl AttemptView {
    fn new(attempt: Attempt) -> Self {
        let headers = |headers: Vec<(String, String)>| {
            headers.into_iter().map(|(name, value)| HeaderView { name, value }).collect::<Vec<_>>()
        };
        Self {
            number: attempt.number,
            started_at: attempt.started_at,
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome.as_str(),
            fault: attempt.outcome.fault().as_str(),
            http_version: attempt.http_version().map(HttpVersion::as_str),
            remote_address: attempt.remote_address,
            request_headers: Some(headers(attempt.request_headers)).filter(|headers| !headers.is_empty()),
            response_status: attempt.response_status,
            response_headers: headers(attempt.response_headers),
            response_body: attempt.response_body.map(|body| String::from_utf8_lossy(&body).into_owned()),
            error: attempt.error,
            next_attempt_at: attempt.next_attempt_at,
            phases: attempt.phases.map(PhasesView::new),
            payload: attempt.payload.as_str(),
        }
    }
}

impl PhasesView {
    fn new(phases: AttemptPhases) -> Self {
        Self {
            dns_ms: phases.dns_ms,
            connect_ms: phases.connect_ms,
            tls_ms: phases.tls_ms,
            first_byte_ms: phases.first_byte_ms,
            body_ms: phases.body_ms,
            connection_reused: phases.connection_reused,
        }
    }
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    let filter = query.filter(call.service().catalogue());
    query.finish()?;
    let page = call.service().list_deliveries(&call.principal, filter, page).await?;
    Ok(answer(200, list(&page, |delivery| DeliveryView::new(delivery, None))))
}

pub async fn index_of_endpoint(call: Call) -> Result<Response, Failure> {
    let endpoint = call.service().get_endpoint(&call.principal, call.endpoint_id()?).await?;
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.refuse("endpointId");
    let filter = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..query.filter(call.service().catalogue()) };
    query.finish()?;
    let page = call.service().list_deliveries(&call.principal, filter, page).await?;
    Ok(answer(200, list(&page, |delivery| DeliveryView::new(delivery, None))))
}

async fn retry(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, render_queued).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().retry_delivery(write.principal(), id, &write.idempotent).await).await
}

async fn retry_all(call: Call, body: Body) -> Result<Response, Failure> {
    let write = Write::begin(call, body, BodyRule::Required, render_retried).await?;
    let ids = write.check(parse_ids(&write.body)).await?;
    write.answer(write.service().retry_deliveries(write.principal(), ids, &write.idempotent).await).await
}

fn parse_ids(body: &JsonBody) -> Result<Vec<DeliveryId>, ServiceError> {
    let mut fields = body.fields()?;
    let ids = fields.required("ids", ids);
    fields.finish_with(ids)
}

/// Repeated ids count once.
fn ids(raw: &RawValue) -> Result<Vec<DeliveryId>, String> {
    let texts: Vec<String> = serde_json::from_str(raw.get()).map_err(|_| "must be an array of ids".to_owned())?;
    if !(1..=limits::RETRIES_PER_REQUEST).contains(&texts.len()) {
        return Err(format!("must have 1 to {} ids", limits::RETRIES_PER_REQUEST));
    }
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        let id = text.parse::<DeliveryId>().map_err(|_| "must have ids of deliveries (dlv_…) only".to_owned())?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The result of one of several retries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetriedView {
    id: DeliveryId,
    delivery: Option<DeliveryView>,
    error: Option<RefusedRetryView>,
}

#[derive(Serialize)]
struct RefusedRetryView {
    code: &'static str,
    message: String,
}

impl RetriedView {
    fn new(retried: &RetriedDelivery) -> Self {
        let (delivery, error) = match &retried.result {
            Ok(delivery) => (Some(DeliveryView::new(delivery, None)), None),
            Err(refusal) => {
                let error = refused_retry(*refusal);
                (None, Some(RefusedRetryView { code: code_of(&error).as_str(), message: message_of(&error) }))
            }
        };
        Self { id: retried.id, delivery, error }
    }
}

#[expect(clippy::ptr_arg, reason = "the answer's renderer gets a reference to the effect")]
fn render_retried(retried: &Vec<RetriedDelivery>) -> (u16, Bytes) {
    (200, single(retried.iter().map(RetriedView::new).collect::<Vec<_>>()))
}

async fn skip(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, |delivery: &Delivery| {
        (200, single(DeliveryView::new(delivery, None)))
    })
    .await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().skip_delivery(write.principal(), id, &write.idempotent).await).await
}

/// 202: the delivery is on disk and not sent yet.
pub fn render_queued(delivery: &Delivery) -> (u16, Bytes) {
    (202, single(DeliveryView::new(delivery, None)))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let (delivery, attempts) = call.service().get_delivery(&call.principal, id).await?;
    let explanation = call.service().explain_delivery(&call.principal, &delivery, &attempts).await?;
    let view = DeliveryView::new(&delivery, Some(attempts));
    Ok(answer(200, single(DeliveryView { explanation: Some(ExplanationView::new(&explanation)), ..view })))
}
