//! `/v1/portal-sessions`.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::{Catalogue, EventTypeName};
use postrider_domain::id::PortalSessionId;
use postrider_domain::limits;
use postrider_domain::permission::{Capabilities, Capability, Permission};
use postrider_domain::portal::{
    FrameAncestor, Locale, PortalPath, PortalSession, PortalTerms, ReturnUrl, Theme, check_duration,
};
use postrider_domain::time::Timestamp;
use postrider_service::fields::{Fields, cut, string, whole_number};
use postrider_service::{CreatePortalSession, CreatedPortalSession, JsonBody, ServiceError, known_event};

use super::access::Access;
use super::actor::ActorView;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing};
use super::call::Call;
use super::error::Failure;
use super::openapi::portal_session as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const ACCESS: Access = Access::Needs(Permission::PortalCreate);
    vec![
        Route::post("/portal-sessions", ACCESS, create, openapi::create(catalogue)),
        Route::get("/portal-sessions", ACCESS, index, openapi::index(catalogue)),
        Route::delete("/portal-sessions", ACCESS, end_all, openapi::end_all(catalogue)),
        Route::delete("/portal-sessions/{portalSessionId}", ACCESS, end, openapi::end(catalogue)),
    ]
}

/// The answer to a new session: its link is shown only once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkView<'s> {
    id: PortalSessionId,
    url: &'s str,
    expires_at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionView<'s> {
    id: PortalSessionId,
    project_id: &'s str,
    mode: &'static str,
    capabilities: Vec<&'static str>,
    event_types: Option<Vec<&'s str>>,
    locale: Option<&'static str>,
    theme: &'static str,
    next: Option<&'s str>,
    return_url: Option<&'s str>,
    frame_ancestors: Vec<&'s str>,
    created_by: ActorView,
    created_at: Timestamp,
    expires_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl<'s> SessionView<'s> {
    fn new(session: &'s PortalSession) -> Self {
        let terms = &session.terms;
        let types = |types: &'s Vec<EventTypeName>| types.iter().map(EventTypeName::as_str).collect();
        Self {
            id: session.id,
            project_id: session.project_id.as_str(),
            mode: session.mode.as_str(),
            capabilities: terms.capabilities.iter().map(Capability::as_str).collect(),
            event_types: terms.event_types.as_ref().map(types),
            locale: terms.locale.map(Locale::as_str),
            theme: terms.theme.as_str(),
            next: terms.next.as_ref().map(PortalPath::as_str),
            return_url: terms.return_url.as_ref().map(ReturnUrl::as_str),
            frame_ancestors: terms.frame_ancestors.iter().map(FrameAncestor::as_str).collect(),
            created_by: session.created_by.into(),
            created_at: session.created_at,
            expires_at: session.expires_at,
            ended_at: session.ended_at,
        }
    }
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let write = Write::begin(call, body, BodyRule::Required, render_link).await?;
    let portal_url = write.call.app.portal_url.clone();
    let create = write.check(parse_create(write.catalogue(), &write.body, portal_url)).await?;
    write.answer(write.service().create_portal_session(write.principal(), create, &write.idempotent).await).await
}

fn render_link(created: &CreatedPortalSession) -> (u16, Bytes) {
    let CreatedPortalSession { session, url } = created;
    (200, single(LinkView { id: session.id, url, expires_at: session.expires_at }))
}

fn parse_create(
    catalogue: &Catalogue,
    body: &JsonBody,
    portal_url: String,
) -> Result<CreatePortalSession, ServiceError> {
    let mut fields = body.fields()?;
    let project_id = fields.required("projectId", string(ProjectId::parse));
    let lasts = fields.optional("expiresIn", |raw| {
        let seconds = whole_number(0, u64::from(u32::MAX))(raw)?;
        check_duration(seconds).map_err(|fault| fault.0.to_owned())
    });
    let capabilities = take_capabilities(&mut fields);
    let event_types = fields.nullable("eventTypes", |raw| event_types(catalogue, raw));
    let terms = PortalTerms {
        capabilities,
        event_types,
        locale: fields.nullable("locale", string(|text| Locale::parse(text).ok_or("must be en or de"))),
        theme: fields
            .nullable("theme", string(|text| Theme::parse(text).ok_or("must be light, dark or auto")))
            .unwrap_or_default(),
        next: fields.nullable("next", string(PortalPath::parse)),
        return_url: fields.nullable("returnUrl", string(ReturnUrl::parse)),
        frame_ancestors: Vec::new(),
        is_preview: false,
    };
    let frame_ancestors = fields.nullable("frameAncestors", frame_ancestors);
    let project_id = fields.finish_with(project_id)?;
    let lasts = lasts.unwrap_or(limits::PORTAL_SESSION_DEFAULT);
    Ok(CreatePortalSession { project_id, lasts, terms, frame_ancestors, portal_url })
}

/// `readOnly` or `capabilities`. Without either a session may do everything that a portal can.
fn take_capabilities(fields: &mut Fields<'_>) -> Capabilities {
    let read_only = fields.optional("readOnly", |raw| match raw.get() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    });
    let named = fields.nullable("capabilities", capabilities_of);
    if read_only.is_some() && named.is_some() {
        fields.fault("readOnly", "must not be given together with capabilities");
    }
    match (named, read_only) {
        (Some(named), _) => named,
        (None, Some(true)) => Capabilities::of(&Capability::READ_ONLY),
        (None, _) => Capabilities::of(&Capability::ALL),
    }
}

fn capabilities_of(raw: &RawValue) -> Result<Capabilities, String> {
    let names: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| "must be an array of capabilities".to_owned())?;
    if names.is_empty() {
        return Err("must name at least one capability".to_owned());
    }
    let known = || Capability::ALL.map(Capability::as_str).join(", ");
    let capabilities: Vec<Capability> = names
        .iter()
        .map(|name| {
            let unknown = || format!("there is no capability {:?}; the capabilities are {}", cut(name), known());
            Capability::parse(name).ok_or_else(unknown)
        })
        .collect::<Result<_, _>>()?;
    Ok(Capabilities::of(&capabilities).with_reading())
}

fn event_types(catalogue: &Catalogue, raw: &RawValue) -> Result<Vec<EventTypeName>, String> {
    let names: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| "must be an array of event names".to_owned())?;
    if names.is_empty() {
        return Err("must name at least one event".to_owned());
    }
    let mut types = Vec::new();
    for name in names {
        let name = known_event(catalogue, &name)?;
        if !types.contains(&name) {
            types.push(name);
        }
    }
    Ok(types)
}

fn frame_ancestors(raw: &RawValue) -> Result<Vec<FrameAncestor>, String> {
    let texts: Vec<String> = serde_json::from_str(raw.get()).map_err(|_| "must be an array of origins".to_owned())?;
    if texts.len() > limits::PORTAL_FRAME_ANCESTORS {
        return Err(format!("must name at most {} origins", limits::PORTAL_FRAME_ANCESTORS));
    }
    texts.iter().map(|text| FrameAncestor::parse(text).map_err(|fault| format!("{}: {}", cut(text), fault.0))).collect()
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    let project_id = query.optional("projectId", ProjectId::parse);
    query.finish()?;
    let page = call.service().list_portal_sessions(&call.principal, project_id, page).await?;
    Ok(answer(200, list(&page, SessionView::new)))
}

async fn end(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, |()| (204, Bytes::new())).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().end_portal_session(write.principal(), id, &write.idempotent).await).await
}

/// The project stands in the query. Without it nothing is ended: a slip must not end every customer's session.
async fn end_all(call: Call, body: Body) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let project_id = query.optional("projectId", ProjectId::parse);
    query.finish()?;
    let project_id = project_id.ok_or_else(|| ServiceError::invalid("projectId", "is required"))?;
    let write = Write::begin(call, body, BodyRule::Optional, |()| (204, Bytes::new())).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().end_portal_sessions_of(write.principal(), project_id, &write.idempotent).await).await
}
