//! Signing in and out.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};
use maud::{Markup, html};

use postrider_domain::caller::CallerAddress;
use postrider_domain::id::RequestId;
use postrider_domain::permission::Permission;
use postrider_service::{NewSession, Origin, ServiceError};

use crate::answer::{self, Framing};
use crate::components::field::{Faults, TextField};
use crate::components::icon;
use crate::failure::{self, Failure};
use crate::form::Fields;
use crate::layout::Look;
use crate::site::Site;
use crate::visit::Visit;
use crate::{cookie, csrf, layout};

const LABEL: &str = "API key";

/// The form, or the button of a sign-in link. Opening a link uses nothing: mail programs and browsers open links ahead.
pub async fn show(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response {
    let query = Fields::parse(uri.query().unwrap_or_default().as_bytes());
    let next = query.text("next").unwrap_or_default();
    let body = match query.text("code") {
        Some(code) => code_form(&site, &headers, code, next),
        None => key_form(&site, &headers, next, &Faults::default()),
    };
    answer::page(&site, StatusCode::OK, &Framing::default(), layout::bare(&site, &Look::default(), "Sign in", body))
}

/// Leads to the form, and from there back to `here`.
pub fn ask(site: &Site, here: &str) -> Response {
    let next = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", here).finish();
    answer::see_other(site, &format!("{}/dashboard/login?{next}", site.prefix))
}

pub async fn sign_in(
    State(site): State<Arc<Site>>,
    request_id: Option<Extension<RequestId>>,
    address: Option<Extension<CallerAddress>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(csrf::CrossSite(reason)) = csrf::check(&site, &headers) {
        return super::refuse_cross_site(&site, &reason);
    }
    let fields = match Fields::read(body).await {
        Ok(fields) => fields,
        Err(error) => return super::without_session(&site, &error),
    };
    let origin = Origin {
        request_id: request_id.map(|Extension(id)| id),
        address: address.map(|Extension(address)| address),
        route: "POST /dashboard/login",
    };
    let next = fields.text("next").unwrap_or_default();
    let signed_in = match fields.text("code") {
        Some(code) => site.service.sign_in_by_code(code, origin).await,
        None => site.service.sign_in(fields.text("key").unwrap_or_default(), origin).await,
    };
    match signed_in {
        Ok(session) => begin(&site, &session, next),
        Err(error) => refuse(&site, &headers, &error, next),
    }
}

pub async fn sign_out(visit: Visit) -> Result<Response, Failure> {
    if let Some(token) = super::token_of(&visit.site, &visit.headers) {
        let (request_id, address) = (Some(visit.request_id), visit.address);
        visit.service().sign_out(token, Origin { request_id, address, route: "POST /dashboard/logout" }).await?;
    }
    let mut response = answer::see_other(&visit.site, &visit.link("/login"));
    if let Some(cookie) = cookie::forget(&visit.site) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Goes on in another workspace.
pub async fn switch(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::WorkspacesManage)?;
    let form = Fields::read(body).await?;
    let to = form.text("workspace").and_then(|text| text.parse().ok()).ok_or(ServiceError::NotFound)?;
    let token = super::token_of(&visit.site, &visit.headers).unwrap_or_default();
    let origin = Origin { request_id: Some(visit.request_id), address: visit.address, route: "POST /dashboard/switch" };
    let session = visit.service().switch_workspace(&visit.principal, token, to, origin).await?;
    Ok(begin(&visit.site, &session, &visit.link("?done=switched")))
}

fn begin(site: &Site, session: &NewSession, next: &str) -> Response {
    let start = format!("{}/dashboard", site.prefix);
    // Only a path of these pages: a link to the sign-in must not lead anywhere else.
    let is_ours = next == start || next.strip_prefix(&start).is_some_and(|rest| rest.starts_with(['/', '?']));
    let mut response = answer::see_other(site, if is_ours { next } else { &start });
    if let Some(cookie) = cookie::keep(site, &session.token) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn refuse(site: &Site, headers: &HeaderMap, error: &ServiceError, next: &str) -> Response {
    let fault = match error {
        ServiceError::LoginCodeRefused => {
            "This link was used or is older than 5 minutes. Make a new one with `postrider dashboard login`.".to_owned()
        }
        ServiceError::InvalidToken => "This key is not known here.".to_owned(),
        ServiceError::KeyRevoked => "This key has been revoked.".to_owned(),
        ServiceError::KeyExpired => "This key has expired.".to_owned(),
        ServiceError::ScopeMissing(_) => "This key lacks the scope dashboard.".to_owned(),
        ServiceError::TooManyRefusedKeys { retry_after, .. } => {
            format!("Too many refused keys from this address. Wait {} s.", retry_after.as_secs().max(1))
        }
        _ => return super::without_session(site, error),
    };
    let body = key_form(site, headers, next, &Faults(vec![("key".to_owned(), fault)]));
    answer::page(
        site,
        failure::status_of(error),
        &Framing::default(),
        layout::bare(site, &Look::default(), "Sign in", body),
    )
}

fn key_form(site: &Site, headers: &HeaderMap, next: &str, faults: &Faults) -> Markup {
    let key = TextField { name: "key", label: LABEL, hint: "", value: "", kind: "password", required: true };
    html! {
        h1 { "Sign in" }
        (faults.summary())
        form.card action={ (site.prefix) "/dashboard/login" } method="post" {
            (key.render(faults))
            @if !next.is_empty() { input type="hidden" name="next" value=(next); }
            button.primary type="submit" { "Sign in" }
        }
        p.soft { "The key needs the scope " code { "dashboard" } " and the scopes of what you want to see. It is not kept in the browser. A link without a key: " code { "postrider dashboard login" } "." }
        (plain_http(site, headers))
    }
}

fn code_form(site: &Site, headers: &HeaderMap, code: &str, next: &str) -> Markup {
    html! {
        h1 { "Sign in with this link" }
        form.card action={ (site.prefix) "/dashboard/login" } method="post" {
            p { "The link is valid for 5 minutes and can be used once." }
            input type="hidden" name="code" value=(code);
            @if !next.is_empty() { input type="hidden" name="next" value=(next); }
            button.primary type="submit" data-focus { "Sign in" }
        }
        (plain_http(site, headers))
    }
}

/// A warning where the session could be read on the way.
fn plain_http(site: &Site, headers: &HeaderMap) -> Markup {
    html! {
        @if !site.is_trustworthy(headers) {
            p.warning role="note" { (icon::WARNING) "This page came over plain http: others on the network can read the key and the session. Use https: " code { "--tls-cert-file" } " or a proxy." }
        }
    }
}
