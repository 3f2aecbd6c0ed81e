//! `/v1/api-keys`, and creating the first key of another workspace.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::access::{ApiKey, ApiKeyName, Mode, Scope, Scopes};
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::ApiKeyId;
use postrider_domain::permission::Permission;
use postrider_domain::time::{Day, Timestamp};
use postrider_service::fields::string;
use postrider_service::{CreateApiKey, CreatedApiKey, JsonBody, ServiceError};

use super::access::Access;
use super::actor::ActorView;
use super::answer::{answer, list, single};
use super::body::{BodyRule, parse_nothing, read_body};
use super::call::Call;
use super::error::Failure;
use super::openapi::api_key as openapi;
use super::query::Query;
use super::route::Route;
use super::write::Write;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    const OF_WORKSPACE: &str = "/workspaces/{workspaceId}/api-keys";
    vec![
        Route::post("/api-keys", Access::Needs(Permission::ApiKeysManage), create, openapi::create(catalogue)),
        Route::get("/api-keys", Access::Needs(Permission::ApiKeysManage), index, openapi::index(catalogue)),
        Route::get("/api-keys/{apiKeyId}", Access::Needs(Permission::ApiKeysManage), show, openapi::show(catalogue)),
        Route::delete(
            "/api-keys/{apiKeyId}",
            Access::Needs(Permission::ApiKeysManage),
            revoke,
            openapi::revoke(catalogue),
        ),
        Route::post(
            OF_WORKSPACE,
            Access::Needs(Permission::WorkspacesManage),
            create_in_workspace,
            openapi::create_in_workspace(catalogue),
        ),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiKeyView<'k> {
    id: ApiKeyId,
    name: Option<&'k str>,
    mode: &'static str,
    scopes: Vec<Scope>,
    last4: &'k str,
    created_at: Timestamp,
    /// The key stops working at 00:00 UTC of this day.
    expires_at: Option<Day>,
    revoked_at: Option<Timestamp>,
    created_by: Option<ActorView>,
    last_used_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'k str>,
}

impl<'k> ApiKeyView<'k> {
    fn new(api_key: &'k ApiKey, key: Option<&'k str>) -> Self {
        Self {
            id: api_key.id,
            name: api_key.name.as_deref(),
            mode: api_key.mode.as_str(),
            scopes: api_key.scopes.iter().collect(),
            last4: &api_key.last4,
            created_at: api_key.created_at,
            expires_at: api_key.expires_at.map(Day::containing),
            revoked_at: api_key.revoked_at,
            created_by: api_key.created_by.map(ActorView::from),
            last_used_at: api_key.last_used_at,
            key,
        }
    }
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    query.finish()?;
    let page = call.service().list_api_keys(&call.principal, page).await?;
    Ok(answer(200, list(&page, |api_key| ApiKeyView::new(api_key, None))))
}

async fn show(call: Call) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let api_key = call.service().get_api_key(&call.principal, id).await?;
    Ok(answer(200, single(ApiKeyView::new(&api_key, None))))
}

async fn create(call: Call, body: Body) -> Result<Response, Failure> {
    let (write, create) = begin_create(call, body).await?;
    let create = write.check(create).await?;
    write.answer(write.service().create_api_key(write.principal(), create, &write.idempotent).await).await
}

async fn create_in_workspace(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let (write, create) = begin_create(call, body).await?;
    let create = write.check(create).await?;
    write.answer(write.service().create_workspace_api_key(write.principal(), id, create, &write.idempotent).await).await
}

/// Begins a write that creates a key. What the caller may grant depends on the body. It is checked first, so that
/// nobody gets a recorded answer to a request that they may not make.
async fn begin_create(
    call: Call,
    body: Body,
) -> Result<(Write<CreatedApiKey>, Result<CreateApiKey, ServiceError>), Failure> {
    let body = read_body(&call.headers, body, BodyRule::Required).await?;
    let create = parse_create(call.principal.tenant.mode, &body);
    if let Ok(create) = &create {
        create.check_grant(&call.principal)?;
    }
    Ok((Write::begin_with(call, body, render_with_key).await?, create))
}

/// `own_mode` is the caller's, and the default for the new key.
fn parse_create(own_mode: Mode, body: &JsonBody) -> Result<CreateApiKey, ServiceError> {
    let mut fields = body.fields()?;
    let name = fields.nullable("name", string(ApiKeyName::parse));
    let scopes = fields.optional("scopes", scopes_of).unwrap_or_default();
    let mode = fields.optional("mode", string(|text| Mode::parse(text).ok_or("must be live or test")));
    let expires_at = fields.nullable("expiresAt", string(Day::parse));
    fields.finish()?;
    Ok(CreateApiKey { name, scopes, mode: mode.unwrap_or(own_mode), expires_at })
}

fn scopes_of(raw: &RawValue) -> Result<Scopes, String> {
    let names: Vec<String> = serde_json::from_str(raw.get()).map_err(|_| "must be an array of scopes".to_owned())?;
    let scopes: Vec<Scope> = names
        .iter()
        .map(|name| name.chars().take(64).collect::<String>().parse::<Scope>().map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    Ok(Scopes::of(&scopes))
}

fn render_with_key(created: &CreatedApiKey) -> (u16, Bytes) {
    (200, single(ApiKeyView::new(&created.key, Some(created.secret.reveal()))))
}

async fn revoke(call: Call, body: Body) -> Result<Response, Failure> {
    let id = call.id(3)?;
    let write = Write::begin(call, body, BodyRule::Optional, |_| (204, Bytes::new())).await?;
    write.check(parse_nothing(&write.body)).await?;
    write.answer(write.service().revoke_api_key(write.principal(), id, &write.idempotent).await).await
}
