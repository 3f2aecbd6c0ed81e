//! `/v1/listeners`.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use postrider_domain::endpoint::{DisabledReason, Endpoint, EndpointChange, EndpointFilter, EndpointName, ProjectId};
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::event_type::{Catalogue, EventTypeName};
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::limits;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::fields::{boolean, string, whole_number};
use postrider_service::{
    ConsumerResult, CreateListener, EndpointWithSecret, HeldLease, JsonBody, LeaseToken, LeasedDelivery, ServiceError,
    Settled, SettledResult, Settlement, UpdateEndpoint,
};

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::{BodyRule, read_body};
use super::call::Call;
use super::endpoint::{event_names, remove, rotate_secret};
use super::error::Failure;
use super::openapi::listener as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;
use super::{delivery, replay};

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ALL: &str = "/listeners";
    const ONE: &str = "/listeners/{listenerId}";
    let write = Access::Needs(Permission::EndpointsWrite);
    let read = Access::Needs(Permission::EndpointsRead);
    vec![
        Route::post(ALL, write, create, openapi::create(catalogue)),
        Route::get(ALL, read, index, openapi::index(catalogue)),
        Route::get(ONE, read, show, openapi::show(catalogue)),
        Route::patch(ONE, write, update, openapi::update(catalogue)),
        Route::delete(ONE, write, remove, openapi::remove(catalogue)),
        Route::post(
            "/listeners/{listenerId}/rotate-secret",
            Access::Needs(Permission::SecretsRotate),
            rotate_secret,
            openapi::rotate_secret(catalogue),
        ),
        Route::post(
            "/listeners/{listenerId}/replay",
            Access::Needs(Permission::ReplaysWrite),
            replay::create,
            openapi::start_replay(catalogue),
        ),
        Route::get(
            "/listeners/{listenerId}/deliveries",
            Access::Needs(Permission::DeliveriesRead),
            delivery::index_of_endpoint,
            openapi::deliveries(catalogue),
        ),
        Route::post("/listeners/{listenerId}/lease", write, lease, openapi::lease(catalogue)),
        Route::post("/listeners/{listenerId}/renew", write, renew, openapi::renew(catalogue)),
        Route::post("/listeners/{listenerId}/settle", write, settle, openapi::settle(catalogue)),
    ]
}

/// In the order of an endpoint, as far as they share their fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListenerView<'e> {
    id: EndpointId,
    name: &'e str,
    events: &'e [EventTypeName],
    is_active: bool,
    disabled_reason: Option<&'static str>,
    project_id: Option<&'e str>,
    secret_last4: &'e str,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'e str>,
    updated_at: Timestamp,
    durable: bool,
    last_seen_at: Timestamp,
    ordering: &'static str,
    mode: &'static str,
}

impl<'e> ListenerView<'e> {
    fn new(endpoint: &'e Endpoint, secret: Option<&'e str>) -> Self {
        Self {
            id: endpoint.id,
            name: &endpoint.name,
            events: &endpoint.events,
            is_active: endpoint.is_active,
            disabled_reason: endpoint.disabled_reason.map(DisabledReason::as_str),
            project_id: endpoint.project_id.as_deref(),
            secret_last4: &endpoint.secret_last4,
            created_at: endpoint.created_at,
            secret,
            updated_at: endpoint.updated_at,
            durable: endpoint.listener.is_some_and(|listener| listener.durable),
            last_seen_at: endpoint.listener.map_or(endpoint.created_at, |listener| listener.last_seen_at),
            ordering: endpoint.options.ordering.as_str(),
            mode: endpoint.mode.as_str(),
        }
    }
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let write = Write::begin(call, body, BodyRule::Required, render_with_secret).await?;
    let create = write.check(parse_create(write.catalogue(), &write.body)).await?;
    write.answer(write.service().create_listener(write.principal(), create, &write.idempotent).await).await
}

fn parse_create(catalogue: &Catalogue, body: &JsonBody) -> Result<CreateListener, ServiceError> {
    let mut fields = body.fields()?;
    let name = fields.required("name", string(EndpointName::parse));
    let events = fields.required("events", |raw| event_names(catalogue, raw));
    let project_id = fields.nullable("projectId", string(ProjectId::parse));
    let ordering = fields.nullable("ordering", string(DeliveryOrder::parse)).unwrap_or_default();
    let durable = fields.nullable("durable", boolean).unwrap_or_default();
    let (name, events) = fields.finish_with(name.zip(events))?;
    Ok(CreateListener { name, events, project_id, ordering, durable })
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let filter = EndpointFilter { are_listeners: Some(true), ..EndpointFilter::default() };
    let page = call.service().list_endpoints(&call.principal, filter, page).await?;
    Ok(answer(200, list(&page, |endpoint| ListenerView::new(endpoint, None))))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let endpoint = call.service().get_endpoint(&call.principal, call.endpoint_id()?).await?;
    let (status, body) = render(&endpoint);
    Ok(answer(status, body))
}

async fn update(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let write = Write::begin(call, body, BodyRule::Required, render).await?;
    let change = write.check(parse_change(write.catalogue(), &write.body)).await?;
    write.answer(write.service().update_endpoint(write.principal(), id, change, &write.idempotent).await).await
}

fn parse_change(catalogue: &Catalogue, body: &JsonBody) -> Result<UpdateEndpoint, ServiceError> {
    let mut fields = body.fields()?;
    let change = EndpointChange {
        name: fields.optional("name", string(EndpointName::parse)),
        events: fields.optional("events", |raw| event_names(catalogue, raw)),
        is_active: fields.optional("isActive", boolean),
        ..EndpointChange::default()
    };
    fields.finish()?;
    Ok(UpdateEndpoint { change, ..UpdateEndpoint::default() })
}

fn render(endpoint: &Endpoint) -> (u16, Bytes) {
    (200, single(ListenerView::new(endpoint, None)))
}

pub fn render_with_secret(created: &EndpointWithSecret) -> (u16, Bytes) {
    (200, single(ListenerView::new(&created.endpoint, Some(created.secret.reveal()))))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseView<'l> {
    delivery_id: DeliveryId,
    attempt: u32,
    lease_token: String,
    lease_expires_at: Timestamp,
    headers: Vec<HeaderView<'l>>,
    body: String,
}

#[derive(Serialize)]
struct HeaderView<'l> {
    name: &'l str,
    value: &'l str,
}

impl<'l> LeaseView<'l> {
    fn new(leased: &'l LeasedDelivery) -> Self {
        let claim = &leased.lease.claim;
        Self {
            delivery_id: claim.delivery_id,
            attempt: claim.attempt,
            lease_token: LeaseToken(claim.token).to_string(),
            lease_expires_at: leased.lease.ends_at,
            headers: leased.headers.iter().map(|(name, value)| HeaderView { name, value }).collect(),
            body: BASE64_STANDARD.encode(&leased.body),
        }
    }
}

/// Ignores an `Idempotency-Key`, as the two below do: a lease that is lost comes again by itself, and a result counts
/// once however often it is sent.
async fn lease(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let body = read_body(&call.headers, body, BodyRule::Optional).await?;
    let mut fields = body.fields()?;
    let max = fields.optional("max", whole_number(1, limits::LEASES_PER_REQUEST)).unwrap_or(1);
    let wait = fields.optional("waitSeconds", whole_number(0, limits::LEASE_WAIT_MAX.as_secs())).unwrap_or_default();
    fields.finish()?;
    let (max, wait) = (usize::try_from(max).unwrap_or(usize::MAX), Duration::from_secs(wait));
    let leased = call.service().lease(&call.principal, id, max, wait).await?;
    Ok(answer(200, single(leased.iter().map(LeaseView::new).collect::<Vec<_>>())))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RenewedView {
    delivery_id: DeliveryId,
    result: &'static str,
    lease_expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GivenLease {
    delivery_id: String,
    lease_token: String,
}

impl GivenLease {
    fn held(&self) -> Result<HeldLease, String> {
        held(&self.delivery_id, &self.lease_token)
    }
}

fn held(delivery_id: &str, token: &str) -> Result<HeldLease, String> {
    let delivery_id = delivery_id.parse().map_err(|_| "deliveryId must be the id of a delivery".to_owned())?;
    let LeaseToken(token) = token.parse().map_err(|_| "leaseToken must be the token of a lease".to_owned())?;
    Ok(HeldLease { delivery_id, token })
}

async fn renew(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let body = read_body(&call.headers, body, BodyRule::Required).await?;
    let mut fields = body.fields()?;
    let leases = fields.required("leases", |raw| several(raw, GivenLease::held, "deliveryId and leaseToken"));
    let held = fields.finish_with(leases)?;
    let renewed = call.service().renew_leases(&call.principal, id, held).await?;
    let view = |(delivery_id, ends_at): (DeliveryId, Option<Timestamp>)| RenewedView {
        delivery_id,
        result: if ends_at.is_some() { "renewed" } else { "lease_lost" },
        lease_expires_at: ends_at,
    };
    Ok(answer(200, single(renewed.into_iter().map(view).collect::<Vec<_>>())))
}

/// One to [`limits::LEASES_PER_REQUEST`] objects.
fn several<'r, G: Deserialize<'r>, T>(
    raw: &'r RawValue,
    read: impl Fn(&G) -> Result<T, String>,
    members: &str,
) -> Result<Vec<T>, String> {
    let most = limits::LEASES_PER_REQUEST;
    let given: Vec<G> =
        serde_json::from_str(raw.get()).map_err(|_| format!("must be an array of objects of {members}"))?;
    if !(1..=most).contains(&(given.len() as u64)) {
        return Err(format!("must have 1 to {most} items"));
    }
    given.iter().map(read).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettledView {
    delivery_id: DeliveryId,
    result: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GivenResult<'r> {
    delivery_id: String,
    lease_token: String,
    #[serde(borrow)]
    status: Option<&'r RawValue>,
    error: Option<String>,
    release: Option<bool>,
    #[serde(borrow)]
    duration_ms: Option<&'r RawValue>,
}

impl GivenResult<'_> {
    fn read(&self) -> Result<Settlement, String> {
        let held = held(&self.delivery_id, &self.lease_token)?;
        let duration = whole("durationMs", self.duration_ms, 0, u32::MAX)?;
        let duration = duration.map(|millis| Duration::from_millis(millis.into()));
        let attempted = |result| SettledResult::Attempted { result, duration };
        let result = match (whole("status", self.status, 100, 599_u16)?, &self.error, self.release) {
            (Some(status), None, None) => attempted(ConsumerResult::Status(status)),
            (None, Some(error), None) => attempted(ConsumerResult::Error(error_text(error)?)),
            (None, None, Some(true)) => SettledResult::Release,
            (None, None, Some(false)) => return Err("release must be true where it is given".to_owned()),
            _ => return Err("each must have exactly one of status, error and release".to_owned()),
        };
        Ok(Settlement { held, result })
    }
}

/// The number of a member, if it is there.
fn whole<N: TryFrom<u64> + Into<u64>>(name: &str, raw: Option<&RawValue>, min: N, max: N) -> Result<Option<N>, String> {
    let Some(raw) = raw else { return Ok(None) };
    let number = whole_number(min.into(), max.into())(raw).map_err(|fault| format!("{name} {fault}"))?;
    Ok(N::try_from(number).ok())
}

/// What a consumer says may have several lines. The log keeps one.
fn error_text(text: &str) -> Result<String, String> {
    if !(1..=limits::SETTLED_ERROR_CHARS).contains(&text.chars().count()) {
        return Err(format!("error must be 1 to {} characters", limits::SETTLED_ERROR_CHARS));
    }
    Ok(text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect())
}

async fn settle(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let body = read_body(&call.headers, body, BodyRule::Required).await?;
    let mut fields = body.fields()?;
    let members = "deliveryId, leaseToken, one of status, error and release, and durationMs";
    let results = fields.required("results", |raw| several(raw, GivenResult::read, members));
    let settlements = fields.finish_with(results)?;
    let settled = call.service().settle(&call.principal, id, settlements).await?;
    let view = |(delivery_id, settled)| SettledView {
        delivery_id,
        result: match settled {
            Settled::Recorded => "recorded",
            Settled::Released => "released",
            Settled::LeaseLost => "lease_lost",
        },
    };
    Ok(answer(200, single(settled.into_iter().map(view).collect::<Vec<_>>())))
}
