//! The operator's dashboard, under `/dashboard`.
//!
//! The gate admits each request: it finds the session of the cookie, counts the request, and refuses a POST of another
//! site. Handlers get a [`Visit`].

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, OriginalUri, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use maud::Markup;

use postrider_domain::caller::CallerAddress;
use postrider_domain::id::RequestId;
use postrider_service::{Origin, ServiceError};

use crate::answer::{self, Framing};
use crate::failure;
use crate::form::Fields;
use crate::layout::Look;
use crate::site::Site;
use crate::visit::Visit;
use crate::{assets, cookie, csrf, layout, live};

mod audit;
pub mod deliveries;
mod delivery;
mod endpoint;
mod endpoint_fields;
mod endpoint_form;
pub mod endpoints;
mod erase;
mod event;
pub mod event_types;
mod events;
mod filter_replay;
mod keys;
mod login;
mod nodes;
mod overview;
mod portal_embed;
mod portal_sessions;
mod replay;
mod search;
mod secret;
mod settings;
mod statistics;
pub mod verify;
mod workspaces;

/// The pages of the dashboard, below `/dashboard`, and the assets of all pages.
pub fn router(site: &Arc<Site>) -> Router {
    let pages = Router::new()
        .route("/dashboard", get(overview::show))
        .route("/dashboard/events", get(events::show))
        .route("/dashboard/events/{id}", get(event::show))
        .route("/dashboard/events/{id}/retry", post(event::retry))
        .route("/dashboard/events/{id}/body", get(event::raw))
        .route("/dashboard/events/{id}/erase", get(erase::ask).post(erase::start))
        .route("/dashboard/search", get(search::show))
        .route("/dashboard/logout", post(login::sign_out))
        .route("/dashboard/audit", get(audit::show))
        .route("/dashboard/event-types", get(event_types::show))
        .route("/dashboard/event-types/{name}", get(event_types::show_one))
        .route("/dashboard/keys", get(keys::show))
        .route("/dashboard/keys/new", get(keys::show_new).post(keys::create))
        .route("/dashboard/keys/{id}/revoke", get(keys::ask_revoke).post(keys::revoke))
        .route("/dashboard/portal-embed", get(portal_embed::show).post(portal_embed::create))
        .route("/dashboard/portal-sessions", get(portal_sessions::show))
        .route("/dashboard/portal-sessions/{id}", get(portal_sessions::show_one))
        .route("/dashboard/portal-sessions/{id}/end", post(portal_sessions::end))
        .route("/dashboard/settings", get(settings::show))
        .route("/dashboard/switch", post(login::switch))
        .route("/dashboard/workspaces", get(workspaces::show).post(workspaces::create))
        .route("/dashboard/workspaces/{id}", get(workspaces::show_one))
        .route("/dashboard/workspaces/{id}/rename", post(workspaces::rename))
        .route("/dashboard/workspaces/{id}/delete", post(workspaces::delete))
        .merge(endpoints::routes("/dashboard"))
        .merge(deliveries::routes("/dashboard"))
        .merge(filter_replay::routes("/dashboard"))
        .merge(verify::routes("/dashboard"))
        .route("/dashboard/{*rest}", any(async || failure::Failure(ServiceError::NotFound)))
        .method_not_allowed_fallback(async || failure::Failure(ServiceError::MethodNotAllowed))
        .route_layer(from_fn_with_state(Arc::clone(site), admit));
    let open = Router::new()
        .route("/dashboard/login", get(login::show).post(login::sign_in))
        .with_state(Arc::clone(site))
        .route("/assets/{name}", get(assets::serve));
    let live = Router::new()
        .route("/dashboard/live", get(live::follow))
        .route_layer(from_fn_with_state(Arc::clone(site), admit))
        .layer(Extension(live::Pages(pages.clone())));
    pages.merge(open).merge(live)
}

/// Admits a request to its page, with its [`Visit`] in the extensions.
async fn admit(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let visit = match visit_of(&site, &parts).await {
        Ok(visit) => visit,
        Err(refused) => return *refused,
    };
    if visit.method != Method::GET
        && visit.method != Method::HEAD
        && let Err(csrf::CrossSite(reason)) = csrf::check(&site, &visit.headers)
    {
        return refuse_cross_site(&site, &reason);
    }
    let visit = Visit { workspaces: workspaces::switch_of(&visit).await, ..visit };
    parts.extensions.insert(visit.clone());
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(error) = response.extensions_mut().remove::<Arc<ServiceError>>() {
        response = match *error {
            ServiceError::SessionEnded => login::ask(&site, &visit.here()),
            _ => failure::render(&visit, &error),
        };
    }
    if visit.method == Method::GET { answer::with_etag(&visit.headers, response).await } else { response }
}

/// Who asks. Without a session the answer leads to the sign-in and back.
async fn visit_of(site: &Arc<Site>, parts: &Parts) -> Result<Visit, Box<Response>> {
    let extensions = &parts.extensions;
    let uri = extensions.get::<OriginalUri>().map_or_else(|| parts.uri.clone(), |original| original.0.clone());
    let (request_id, address) = (extensions.get::<RequestId>().copied(), extensions.get::<CallerAddress>().copied());
    let origin = Origin { request_id, address, route: "dashboard" };
    let ask = || Box::new(login::ask(site, &site.path_in_browser(&uri)));
    let token = cookie::read(&parts.headers, cookie::name(site)).ok_or_else(ask)?;
    let principal = match site.service.resume_session(token, origin).await {
        Ok(principal) => principal,
        Err(ServiceError::SessionEnded) => return Err(ask()),
        Err(error) => return Err(Box::new(without_session(site, &error))),
    };
    if let Err(error) = site.service.count_page_request(principal.actor) {
        return Err(Box::new(without_session(site, &error)));
    }
    Ok(Visit {
        site: Arc::clone(site),
        principal,
        request_id: request_id.unwrap_or_else(|| RequestId::from_letters([b'0'; 16])),
        address,
        method: parts.method.clone(),
        query: Fields::parse(uri.query().unwrap_or_default().as_bytes()),
        uri,
        headers: parts.headers.clone(),
        base: format!("{}/dashboard", site.prefix),
        framing: Framing::default(),
        look: Look::default(),
        workspaces: None,
    })
}

/// An error before anybody is known.
fn without_session(site: &Site, error: &ServiceError) -> Response {
    bare(site, failure::status_of(error), failure::without_session(error))
}

fn refuse_cross_site(site: &Site, reason: &str) -> Response {
    bare(site, StatusCode::FORBIDDEN, failure::cross_site(reason))
}

fn bare(site: &Site, status: StatusCode, (title, body): (&str, Markup)) -> Response {
    answer::page(site, status, &Framing::default(), layout::bare(site, &Look::default(), title, body))
}

/// The token of the request's session.
pub(crate) fn token_of<'h>(site: &Site, headers: &'h HeaderMap) -> Option<&'h str> {
    cookie::read(headers, cookie::name(site))
}
