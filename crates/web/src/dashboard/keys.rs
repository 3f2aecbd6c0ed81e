//! API keys: listed, made, revoked.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

use postrider_domain::access::{ApiKey, ApiKeyName, Mode, Scope, Scopes};
use postrider_domain::id::ApiKeyId;
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;
use postrider_domain::time::Day;
use postrider_service::{CreateApiKey, CreatedApiKey, Idempotent, ServiceError};

use super::audit;
use crate::components::field::{self, Choice, Faults, TextField};
use crate::components::state::{self, Tone};
use crate::components::{code, icon, list, time};
use crate::failure::{self, Failure};
use crate::form::Fields;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let page = PageRequest::parse(None, visit.query.text("cursor")).map_err(ServiceError::from)?;
    let listed = visit.service().list_api_keys(&visit.principal, page).await?;
    let body = html! {
        div.heading {
            h1 { "API keys" }
            a.button.primary href=(visit.link("/keys/new")) { "New key" }
        }
        p { "A key belongs to this workspace. Only its last four characters are kept in the clear." }
        (table(&visit, &listed.items))
        (visit.page_links(listed.next))
        (code::api_call("GET", "/v1/api-keys"))
    };
    Ok(visit.page(Section::Keys, "", body))
}

fn table(visit: &Visit, keys: &[ApiKey]) -> Markup {
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label="API keys" {
            table.stack {
                caption { "Newest first" }
                thead {
                    tr {
                        th scope="col" { "Key" }
                        th scope="col" { "State" }
                        th scope="col" { "Scopes" }
                        th scope="col" { "Last used" }
                        th scope="col" { "Made" }
                        th scope="col" { "Expires" }
                        th scope="col" { span.visually-hidden { "Action" } }
                    }
                }
                tbody {
                    @for key in keys {
                        tr id=(key.id) {
                            th scope="row" data-label="Key" {
                                (key.name.as_deref().unwrap_or("without a name"))
                                span.sub { (key.mode.as_str()) ", ends in " code { (key.last4) } }
                                span.sub.nowrap { code { (key.id) } }
                            }
                            td data-label="State" { (state_of(visit, key)) }
                            td data-label="Scopes" { @if key.scopes.is_empty() { "none" } @else { (key.scopes) } }
                            td data-label="Last used" { @match key.last_used_at { Some(at) => (time::relative(at, now)), None => "never" } }
                            td data-label="Made" {
                                (time::relative(key.created_at, now))
                                @if let Some(maker) = &key.created_by { span.sub { "by " (audit::actor(maker)) } }
                            }
                            td data-label="Expires" { @match key.expires_at { Some(at) => (Day::containing(at)), None => "never" } }
                            td.nowrap data-label="Action" {
                                @if key.revoked_at.is_none() { a href=(visit.link(&format!("/keys/{}/revoke", key.id))) { "Revoke" span.visually-hidden { " " (key.id) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn state_of(visit: &Visit, key: &ApiKey) -> Markup {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => state::state(Tone::Neutral, icon::OFF, "revoked"),
        (None, Some(at)) if at <= visit.now() => state::state(Tone::Neutral, icon::CLOCK, "expired"),
        (None, _) => state::state(Tone::Good, icon::CHECK, "valid"),
    }
}

pub async fn show_new(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::ApiKeysManage)?;
    Ok(new_page(&visit, StatusCode::OK, &Fields::default(), &Faults::default()))
}

pub async fn create(visit: Visit, body: Body) -> Result<Response, Failure> {
    visit.require(Permission::ApiKeysManage)?;
    let form = Fields::read(body).await?;
    let create = match parse(&form) {
        Ok(create) => create,
        Err(faults) => return Ok(new_page(&visit, StatusCode::BAD_REQUEST, &form, &faults)),
    };
    let (service, principal) = (Arc::clone(visit.service()), visit.principal.clone());
    let made = once::finish(&visit, &form, sealed_text, |idempotent| async move {
        service.create_api_key(&principal, create, &idempotent).await
    })
    .await;
    match made {
        Ok(sealed) => Ok(made_page(&visit, &sealed)),
        Err(error) => match Faults::of(&error) {
            Some(faults) => Ok(new_page(&visit, failure::status_of(&error), &form, &faults)),
            None => Err(error.into()),
        },
    }
}

fn parse(form: &Fields) -> Result<CreateApiKey, Faults> {
    let mut faults = Faults::default();
    let name = form.text("name").and_then(|text| faults.read("name", ApiKeyName::parse(text)));
    let mode = match form.text("mode") {
        Some("live") => Mode::Live,
        _ => Mode::Test,
    };
    let scopes: Result<Vec<Scope>, _> = form.all("scopes").map(str::parse).collect();
    let scopes = faults.read("scopes", scopes).unwrap_or_default();
    let expires_at = form.text("expiresAt").and_then(|text| faults.read("expiresAt", Day::parse(text)));
    if faults.0.is_empty() {
        Ok(CreateApiKey { name, mode, scopes: Scopes::of(&scopes), expires_at })
    } else {
        Err(faults)
    }
}

/// The answer that is kept sealed for a form that is sent twice.
fn sealed_text(made: &CreatedApiKey) -> (u16, Bytes) {
    let shown = json!({"key": made.secret.reveal(), "name": made.key.name, "scopes": made.key.scopes.to_string()});
    (200, Bytes::from(shown.to_string()))
}

fn made_page(visit: &Visit, sealed: &[u8]) -> Response {
    let shown: Value = serde_json::from_slice(sealed).unwrap_or_default();
    let text = |name: &str| shown[name].as_str().unwrap_or_default();
    let body = html! {
        h1 data-address=(visit.link("/keys")) { "The key is made. Copy it now" }
        p.warning role="note" { (icon::WARNING) "This is the only time that the key is shown. Only a hash of it is stored." }
        div.card.secret {
            h2 { (shown["name"].as_str().unwrap_or("API key")) }
            (code::copyable(text("key")))
            p.soft { "Scopes: " @if text("scopes").is_empty() { "none" } @else { (text("scopes")) } }
        }
        div.actions { a.button.primary href=(visit.link("/keys")) { "I have copied it" } }
    };
    visit.page(Section::Keys, "New key", body)
}

fn new_page(visit: &Visit, status: StatusCode, form: &Fields, faults: &Faults) -> Response {
    let text = |name, label, hint, kind| {
        TextField { name, label, hint, value: form.raw(name).unwrap_or_default(), kind, required: false }.render(faults)
    };
    let modes: &[(&str, &str)] = match visit.principal.tenant.mode {
        Mode::Live => &[("test", "test: sends nothing"), ("live", "live")],
        Mode::Test => &[("test", "test: sends nothing")],
    };
    let body = html! {
        h1 { "New key" }
        (faults.summary())
        form.form action=(visit.link("/keys/new")) method="post" {
            (once::token(visit))
            (text("name", "Name", "What uses it.", "text"))
            (field::select("mode", "Mode", modes, form.text("mode").unwrap_or("test")))
            (field::group("scopes", "Scopes", "What it may do. A key can have only what this sign-in has.", faults, &scopes(visit, form)))
            (text("expiresAt", "Expires", "It stops working at 00:00 UTC of this day. Empty: as late as this sign-in allows.", "date"))
            div.actions {
                button.primary type="submit" { "Create" }
                a.button href=(visit.link("/keys")) { "Cancel" }
            }
        }
        (code::api_call("POST", "/v1/api-keys"))
    };
    visit.page_with(status, Section::Keys, "New key", body)
}

/// The scopes that this visitor can give.
fn scopes(visit: &Visit, form: &Fields) -> Markup {
    let can = visit.principal.scopes.iter().filter(|scope| *scope != Scope::WorkspacesManage);
    html! {
        @for scope in can {
            @let name = scope.as_str();
            (Choice { id: &format!("scope-{name}"), name: "scopes", value: name, label: name, hint: purpose(scope), is_on: form.all("scopes").any(|typed| typed == name) }.render())
        }
    }
}

const fn purpose(scope: Scope) -> &'static str {
    match scope {
        Scope::WebhooksManage => "Make and change endpoints, send tests, retry and replay.",
        Scope::WebhooksRead => "Read endpoints and deliveries.",
        Scope::EventsWrite => "Publish events, and erase their content.",
        Scope::EventsRead => "Read events and their data.",
        Scope::KeysManage => "Make and revoke API keys.",
        Scope::AuditRead => "Read the audit log.",
        Scope::PortalCreate => "Open the portal for a customer.",
        Scope::Dashboard => "Sign in here.",
        Scope::WorkspacesManage => "Manage all workspaces of the server.",
    }
}

pub async fn ask_revoke(visit: Visit) -> Result<Response, Failure> {
    let key = visit.service().get_api_key(&visit.principal, visit.id::<ApiKeyId>(1)?).await?;
    let now = visit.now();
    let own = visit.principal.actor.api_key() == Some(key.id);
    let body = html! {
        h1 { "Revoke " (key.name.as_deref().unwrap_or("this key")) "?" }
        p.warning role="note" {
            (icon::WARNING)
            span {
                @match key.last_used_at {
                    Some(at) => { "It was last used " (time::relative(at, now)) ". Whatever uses it stops working within 5 seconds." },
                    None => "It has never been used.",
                }
                " Sign-ins with it end too. This cannot be undone."
                @if own { " You are signed in with it." }
            }
        }
        (list::facts(&[
            ("Id", code::copyable(&key.id.to_string())),
            ("Ends in", html! { code { (key.last4) } }),
            ("Mode", html! { (key.mode.as_str()) }),
            ("Scopes", html! { @if key.scopes.is_empty() { "none" } @else { (key.scopes) } }),
        ]))
        div.actions {
            (field::action(&visit.link(&format!("/keys/{}/revoke", key.id)), "Revoke the key", "danger", &[]))
            a.button href=(visit.link("/keys")) { "Cancel" }
        }
        (code::api_call("DELETE", &format!("/v1/api-keys/{}", key.id)))
    };
    Ok(visit.page(Section::Keys, "Revoke a key", body))
}

pub async fn revoke(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::ApiKeysManage)?;
    let id = visit.id::<ApiKeyId>(1)?;
    once::effect(visit.service().revoke_api_key(&visit.principal, id, &Idempotent::default()).await)?;
    Ok(visit.done("/keys", "revoked"))
}
