//! `/v1/webhook-endpoints`.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::endpoint::{
    DisabledReason, Endpoint, EndpointChange, EndpointFilter, EndpointName, EndpointUrl, ProjectId,
};
use postrider_domain::endpoint_health::HealthState;
use postrider_domain::event_type::{Catalogue, EventTypeName};
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::fields::{boolean, string, whole_number};
use postrider_service::{
    CreateEndpoint, EndpointWithSecret, JsonBody, RotateSecret, ServiceError, UpdateEndpoint, known_event,
    subscribable_event,
};

use super::access::Access;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing, read_body};
use super::call::Call;
use super::delivery;
use super::endpoint_options::{self, OptionsView};
use super::error::Failure;
use super::listener;
use super::openapi::endpoint as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ALL: &str = "/webhook-endpoints";
    const ONE: &str = "/webhook-endpoints/{endpointId}";
    vec![
        Route::post(ALL, Access::Needs(Permission::EndpointsWrite), create, openapi::create(catalogue)),
        Route::get(ALL, Access::Needs(Permission::EndpointsRead), index, openapi::index(catalogue)),
        Route::get(ONE, Access::Needs(Permission::EndpointsRead), show, openapi::show(catalogue)),
        Route::patch(ONE, Access::Needs(Permission::EndpointsWrite), update, openapi::update(catalogue)),
        Route::delete(ONE, Access::Needs(Permission::EndpointsWrite), remove, openapi::remove(catalogue)),
        Route::post(
            "/webhook-endpoints/{endpointId}/rotate-secret",
            Access::Needs(Permission::SecretsRotate),
            rotate_secret,
            openapi::rotate_secret(catalogue),
        ),
        Route::post(
            "/webhook-endpoints/{endpointId}/test",
            Access::Needs(Permission::EndpointsTest),
            test,
            openapi::test(catalogue),
        ),
    ]
}

/// In the order of the published page.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView<'e> {
    id: EndpointId,
    url: &'e str,
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
    health: HealthView,
    #[serde(flatten)]
    options: OptionsView<'e>,
    mode: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthView {
    state: &'static str,
    since: Option<Timestamp>,
    /// Attempts that failed since the last success.
    failures: u32,
    next_probe_at: Option<Timestamp>,
    disables_at: Option<Timestamp>,
}

impl HealthView {
    fn new(endpoint: &Endpoint) -> Self {
        let Some(failure_streak) = &endpoint.failure_streak else {
            let state = HealthState::Ok.as_str();
            return Self { state, since: None, failures: 0, next_probe_at: None, disables_at: None };
        };
        // An endpoint that is not active is neither probed nor disabled.
        let next_probe_at = failure_streak.pause.filter(|_| endpoint.is_active).map(|pause| pause.next_probe_at);
        let disables_at = endpoint.is_active.then(|| failure_streak.disables_at());
        let failures = failure_streak.failures;
        Self {
            state: failure_streak.state().as_str(),
            since: failure_streak.since(),
            failures,
            next_probe_at,
            disables_at,
        }
    }
}

impl<'e> EndpointView<'e> {
    fn new(endpoint: &'e Endpoint, secret: Option<&'e str>) -> Self {
        Self {
            id: endpoint.id,
            url: &endpoint.url,
            name: &endpoint.name,
            events: &endpoint.events,
            is_active: endpoint.is_active,
            disabled_reason: endpoint.disabled_reason.map(DisabledReason::as_str),
            project_id: endpoint.project_id.as_deref(),
            secret_last4: &endpoint.secret_last4,
            created_at: endpoint.created_at,
            secret,
            updated_at: endpoint.updated_at,
            health: HealthView::new(endpoint),
            options: OptionsView::new(&endpoint.options),
            mode: endpoint.mode.as_str(),
        }
    }
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let write = Write::begin(call, body, BodyRule::Required, render_with_secret).await?;
    let create = write.check(parse_create(write.catalogue(), &write.body)).await?;
    write.answer(write.service().create_endpoint(write.principal(), create, &write.idempotent).await).await
}

fn parse_create(catalogue: &Catalogue, body: &JsonBody) -> Result<CreateEndpoint, ServiceError> {
    let mut fields = body.fields()?;
    let name = fields.required("name", string(EndpointName::parse));
    let url = fields.required("url", string(EndpointUrl::parse));
    let events = fields.required("events", |raw| event_names(catalogue, raw));
    let project_id = fields.nullable("projectId", string(ProjectId::parse));
    let (options, private) = endpoint_options::take(&mut fields);
    let ((name, url), events) = fields.finish_with(name.zip(url).zip(events))?;
    Ok(CreateEndpoint { name, url, events, project_id, options, private })
}

/// At least one name of the catalogue. Repeated names count once.
pub fn event_names(catalogue: &Catalogue, raw: &RawValue) -> Result<Vec<EventTypeName>, String> {
    let names: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| "must be an array of event names".to_owned())?;
    if names.is_empty() {
        return Err("must name at least one event".to_owned());
    }
    let mut events = Vec::new();
    for name in names {
        let event = subscribable_event(catalogue, &name)?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    Ok(events)
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    let filter = EndpointFilter { are_listeners: Some(false), ..query.filter(call.service().catalogue()) };
    query.finish()?;
    let page = call.service().list_endpoints(&call.principal, filter, page).await?;
    Ok(answer(200, list(&page, |endpoint| EndpointView::new(endpoint, None))))
}

async fn update(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let write = Write::begin(call, body, BodyRule::Required, render).await?;
    let change = write.check(parse_change(write.catalogue(), &write.body)).await?;
    write.answer(write.service().update_endpoint(write.principal(), id, change, &write.idempotent).await).await
}

fn parse_change(catalogue: &Catalogue, body: &JsonBody) -> Result<UpdateEndpoint, ServiceError> {
    let mut fields = body.fields()?;
    let (options, private) = endpoint_options::take(&mut fields);
    let change = EndpointChange {
        name: fields.optional("name", string(EndpointName::parse)),
        url: fields.optional("url", string(EndpointUrl::parse)),
        events: fields.optional("events", |raw| event_names(catalogue, raw)),
        project_id: fields.optional("projectId", |raw| match raw.get() {
            "null" => Ok(None),
            _ => string(ProjectId::parse)(raw).map(Some),
        }),
        is_active: fields.optional("isActive", boolean),
        options,
        seen: None,
    };
    fields.finish()?;
    Ok(UpdateEndpoint { change, private })
}

pub async fn remove(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let write = Write::begin(call, body, BodyRule::Optional, |()| (204, Bytes::new())).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().delete_endpoint(write.principal(), id, &write.idempotent).await).await
}

/// Ignores an `Idempotency-Key`: each call creates a new secret.
pub async fn rotate_secret(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let body = read_body(&call.headers, body, BodyRule::Optional).await?;
    let mut fields = body.fields()?;
    let overlap = fields.optional("overlapSeconds", whole_number(0, limits::SECRET_OVERLAP_MAX.as_secs()));
    let revoke_queued = fields.optional("revokeQueued", boolean);
    fields.finish()?;
    let rotate = RotateSecret {
        overlap: Duration::from_secs(overlap.unwrap_or_default()),
        revoke_queued: revoke_queued.unwrap_or_default(),
        replaces: None,
    };
    let rotated = call.service().rotate_secret(&call.principal, id, rotate).await?;
    let render = if id.is_listener() { listener::render_with_secret } else { render_with_secret };
    let (status, body) = render(&rotated);
    Ok(answer(status, body))
}

async fn test(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let write = Write::begin(call, body, BodyRule::Optional, delivery::render_queued).await?;
    let event = write.check(parse_test(write.catalogue(), &write.body)).await?;
    write.answer(write.service().test_endpoint(write.principal(), id, event, &write.idempotent).await).await
}

/// The name of the event to send, if the caller gives one.
fn parse_test(catalogue: &Catalogue, body: &JsonBody) -> Result<Option<EventTypeName>, ServiceError> {
    let mut fields = body.fields()?;
    let event = fields.nullable("event", string(|name| known_event(catalogue, name)));
    fields.finish()?;
    Ok(event)
}

fn render(endpoint: &Endpoint) -> (u16, Bytes) {
    (200, single(EndpointView::new(endpoint, None)))
}

fn render_with_secret(created: &EndpointWithSecret) -> (u16, Bytes) {
    (200, single(EndpointView::new(&created.endpoint, Some(created.secret.reveal()))))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let id = call.endpoint_id()?;
    let endpoint = call.service().get_endpoint(&call.principal, id).await?;
    let (status, body) = render(&endpoint);
    Ok(answer(status, body))
}
