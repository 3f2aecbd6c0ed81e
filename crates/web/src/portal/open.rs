//! The way in by the link, and the pages for a visitor without a session.
//!
//! The code of the link and the token of the cookie stand in no page. After the link was opened the browser keeps the
//! code in the fragment of the URL, which it sends nowhere: only a page without a cookie needs it once more.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{CACHE_CONTROL, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use maud::{Markup, html};

use postrider_domain::portal::{PortalPath, PortalSession};
use postrider_service::ServiceError;

use super::asked::Asked;
use crate::language::say;
use crate::site::Site;
use crate::{answer, cookie, failure};

const PURPOSE: [HeaderName; 2] = [HeaderName::from_static("sec-purpose"), HeaderName::from_static("purpose")];

/// Opens the session of a link and leads to its first page. Who is in already just goes in.
pub async fn open(State(site): State<Arc<Site>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let asked = Asked::of(&site, &parts);
    // Previews look at links before anybody opens them. They must not use the code up.
    let mut response = if asked.method == Method::HEAD {
        nothing(StatusCode::OK)
    } else if is_prefetch(&asked.headers) {
        nothing(StatusCode::SERVICE_UNAVAILABLE)
    } else {
        match enter(&asked).await {
            Ok(entered) => entered,
            Err(ServiceError::PortalCodeRefused) => refuse_code(&asked).await,
            Err(error) => refuse(&asked, &error).await,
        }
    };
    // Elsewhere our own forms need the referrer. Here it would hold the code.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn enter(asked: &Asked) -> Result<Response, ServiceError> {
    let (service, origin) = (&asked.site.service, asked.origin());
    let id = asked.id.ok_or(ServiceError::PortalCodeRefused)?;
    if let Some(token) = asked.token() {
        match service.resume_portal(id, token, origin).await {
            Ok(visit) => return Ok(answer::see_other(&asked.site, &first_page(asked, &visit.session, None))),
            Err(ServiceError::SessionEnded) => {}
            Err(error) => return Err(error),
        }
    }
    let code = asked.query.text("code").unwrap_or_default();
    let opened = service.open_portal(id, code, origin).await?;
    tracing::info!(portal_session_id = %id, "portal opened");
    let mut response = answer::see_other(&asked.site, &first_page(asked, &opened.session, Some(code)));
    if let Some(cookie) = cookie::keep_portal(&asked.site, &asked.base(), &opened.token) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The page that the session begins with. After an opening it has to find out whether the cookie came back.
fn first_page(asked: &Asked, session: &PortalSession, code: Option<&str>) -> String {
    let next = session.terms.next.as_ref().map_or("/", PortalPath::as_str);
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for name in ["gutters", "nav"] {
        if asked.query.text(name) == Some("0") {
            query.append_pair(name, "0");
        }
    }
    if code.is_some() {
        query.append_pair("opened", "1");
    }
    let query = query.finish();
    let separator = match (query.is_empty(), next.contains('?')) {
        (true, _) => "",
        (false, true) => "&",
        (false, false) => "?",
    };
    let fragment = code.map(|code| format!("#code={code}")).unwrap_or_default();
    format!("{}{next}{separator}{query}{fragment}", asked.base())
}

fn is_prefetch(headers: &HeaderMap) -> bool {
    let mut values = PURPOSE.into_iter().flat_map(|name| headers.get_all(name));
    values.any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("prefetch")))
}

fn nothing(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers a request that is not let in.
pub async fn refuse(asked: &Asked, error: &ServiceError) -> Response {
    let has_just_opened = asked.query.text("opened") == Some("1") && asked.method == Method::GET;
    if matches!(error, ServiceError::SessionEnded) && has_just_opened && asked.token().is_none() {
        return answer::see_other(&asked.site, &format!("{}/no-cookie", asked.base()));
    }
    // The page of a fault must not ask the store that has just failed.
    let session = match error {
        ServiceError::SessionEnded => asked.find_session().await.ok().flatten(),
        _ => None,
    };
    let session = session.as_ref();
    let was_form = !matches!(asked.method, Method::GET | Method::HEAD);
    asked
        .page_without_session(failure::status_of(error), session, || match error {
            ServiceError::SessionEnded => ended(session, was_form),
            error => failure::without_session(error),
        })
        .await
}

async fn refuse_code(asked: &Asked) -> Response {
    let session = asked.find_session().await.ok().flatten();
    let session = session.as_ref();
    asked
        .page_without_session(StatusCode::UNAUTHORIZED, session, || {
            let title = say!("This link no longer works");
            let body = html! {
                h1 { (title) }
                p { (say!("A link works for 5 minutes and only a few times. Open this page again from where you came.")) }
                (way_back(session))
            };
            (title, body)
        })
        .await
}

/// The page that a session ends on.
pub async fn show_ended(State(site): State<Arc<Site>>, request: Request) -> Response {
    let asked = Asked::of(&site, &request.into_parts().0);
    let session = asked.find_session().await.ok().flatten();
    asked.page_without_session(StatusCode::OK, session.as_ref(), || ended(session.as_ref(), false)).await
}

fn ended(session: Option<&PortalSession>, was_form: bool) -> (&'static str, Markup) {
    let title = say!("Your session has ended");
    let body = html! {
        h1 { (title) }
        @if was_form { p { strong { (say!("Nothing of the form was saved.")) } } }
        p { (say!("A session lasts only for a while, and can be ended earlier. Open this page again from where you came.")) }
        (way_back(session))
    };
    (title, body)
}

/// The page of a frame whose cookie did not come back.
pub async fn show_no_cookie(State(site): State<Arc<Site>>, request: Request) -> Response {
    let asked = Asked::of(&site, &request.into_parts().0);
    let session = asked.find_session().await.ok().flatten();
    asked
        .page_without_session(StatusCode::OK, session.as_ref(), || {
            let title = say!("Open this page in a tab of its own");
            let body = html! {
                h1 { (title) }
                p { (say!("Your browser does not let a page inside another page remember that you are signed in. In a tab of its own it does.")) }
                // The script takes the code from the fragment of the URL.
                p { a.button.primary data-open={ (asked.base()) "/open" } target="_blank" rel="noopener noreferrer" hidden { (say!("Open in a new tab")) } }
                noscript { p { (say!("Without script there is no button. Open the page again from where you came, in a new tab.")) } }
                (way_back(session.as_ref()))
            };
            (title, body)
        })
        .await
}

/// Leads back to the product, out of the frame.
fn way_back(session: Option<&PortalSession>) -> Markup {
    html! {
        @if let Some(url) = session.and_then(|session| session.terms.return_url.as_ref()) {
            p { a.button href=(url.as_str()) target="_top" { (say!("Go back")) } }
        }
    }
}
