//! Admits a request to a page of the portal, with its [`Visit`] in the extensions.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};

use postrider_domain::id::RequestId;
use postrider_domain::portal::Locale;
use postrider_service::{PortalVisit, ServiceError};

use super::asked::{Asked, framing};
use super::{open, theme};
use crate::site::Site;
use crate::visit::Visit;
use crate::{answer, csrf, failure, language};

pub async fn admit(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let asked = Asked::of(&site, &parts);
    if asked.names_old_file() {
        return theme::not_found();
    }
    // A frame that keeps its cookie away sends an odd origin too: the reason comes before the missing session.
    if !matches!(asked.method, Method::GET | Method::HEAD)
        && let Err(csrf::CrossSite(reason)) = csrf::check(&site, &asked.headers)
    {
        let session = asked.find_session().await.ok().flatten();
        return asked
            .page_without_session(StatusCode::FORBIDDEN, session.as_ref(), || failure::cross_site(&reason))
            .await;
    }
    let (visit, locale) = match resume(&asked).await {
        Ok(resumed) => resumed,
        Err(error) => return open::refuse(&asked, &error).await,
    };
    parts.extensions.insert(visit.clone());
    let answered = language::speak(locale, async {
        let mut response = next.run(Request::from_parts(parts, body)).await;
        match response.extensions_mut().remove::<Arc<ServiceError>>() {
            Some(error) if matches!(*error, ServiceError::SessionEnded) => Err(error),
            Some(error) => Ok(failure::render(&visit, &error)),
            None => Ok(response),
        }
    });
    match answered.await {
        Ok(response) if asked.method == Method::GET => answer::with_etag(&asked.headers, response).await,
        Ok(response) => response,
        Err(error) => open::refuse(&asked, &error).await,
    }
}

/// Who asks, by the cookie. Each request asks the store, so a session ends at once and on every node.
async fn resume(asked: &Asked) -> Result<(Visit, Locale), ServiceError> {
    let service = &asked.site.service;
    let (Some(id), Some(token)) = (asked.id, asked.token()) else { return Err(ServiceError::SessionEnded) };
    let PortalVisit { session, principal } = service.resume_portal(id, token, asked.origin()).await?;
    service.count_page_request(principal.actor)?;
    let visit = Visit {
        site: Arc::clone(&asked.site),
        principal,
        request_id: asked.request_id.unwrap_or_else(|| RequestId::from_letters([b'0'; 16])),
        address: asked.address,
        method: asked.method.clone(),
        // It only says where the visitor comes from.
        query: asked.query.clone().without("opened"),
        uri: asked.uri.clone(),
        headers: asked.headers.clone(),
        base: asked.base(),
        framing: framing(Some(&session)),
        look: asked.look(Some(&session)),
        workspaces: None,
    };
    Ok((visit, asked.locale(Some(&session))))
}
