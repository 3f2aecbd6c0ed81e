//! The sessions of the portal: for whom, until when, what they may do. Each can be ended.

use axum::response::Response;
use maud::{Markup, html};

use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::PortalSessionId;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::{Capability, Permission};
use postrider_domain::portal::{Locale, PortalSession};
use postrider_domain::time::Timestamp;
use postrider_service::{Idempotent, ServiceError};

use super::audit;
use crate::components::field::{self, Faults};
use crate::components::state::{self, Tone};
use crate::components::{code, filter, icon, list, time};
use crate::failure::Failure;
use crate::layout::Section;
use crate::once;
use crate::visit::Visit;

const PATH: &str = "/portal-sessions";

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::PortalCreate)?;
    let mut faults = Faults::default();
    let project = visit.query.text("projectId").and_then(|text| faults.read("projectId", ProjectId::parse(text)));
    let page = PageRequest::parse(None, visit.query.text("cursor")).map_err(ServiceError::from)?;
    let listed = visit.service().list_portal_sessions(&visit.principal, project, page).await?;
    let is_narrowed = visit.query.text("projectId").is_some();
    let form = filter::text(&visit.query, "projectId", "Project", "");
    let body = html! {
        h1 { "Sessions of the portal" }
        p { "Each link that your product asked for is a session. A session that has ended stays here for a day." }
        (faults.summary())
        (filter::form(&visit.link(PATH), is_narrowed, form))
        @if listed.items.is_empty() { (nothing(&visit, is_narrowed)) } @else { (table(&visit, &listed)) }
        (visit.page_links(listed.next))
        (code::api_call("GET", "/v1/portal-sessions"))
    };
    Ok(visit.page(Section::Portal, "Sessions", body))
}

fn nothing(visit: &Visit, is_narrowed: bool) -> Markup {
    if visit.query.text("cursor").is_some() {
        return list::empty(icon::CHECK, "That was all", &html! { p { "There are no older sessions." } });
    }
    if is_narrowed {
        let body = html! { p { "No session of this project is live or ended within the last day." } };
        return list::empty(icon::CROSS, "Nothing matches", &body);
    }
    let body = html! { p { a href=(visit.link("/portal-embed")) { "Show the portal in your product" } } };
    list::empty(icon::ARROW, "No session yet", &body)
}

fn table(visit: &Visit, listed: &Page<PortalSession>) -> Markup {
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label="Sessions of the portal" {
            table.stack {
                caption { "Newest first" }
                thead { tr { th scope="col" { "Session" } th scope="col" { "State" } th scope="col" { "Project" } th scope="col" { "Made" } th scope="col" { "Expires" } } }
                tbody #sessions data-live="rows" {
                    @for session in &listed.items {
                        tr id=(session.id) {
                            th scope="row" data-label="Session" { a href=(visit.link(&format!("{PATH}/{}", session.id))) { code { (session.id) } } }
                            td data-label="State" { (state_of(session, now)) }
                            td data-label="Project" { code { (session.project_id.as_str()) } }
                            td data-label="Made" { (time::relative(session.created_at, now)) span.sub { "by " (audit::actor(&session.created_by)) } }
                            td data-label="Expires" { (time::relative(session.expires_at, now)) }
                        }
                    }
                }
            }
        }
    }
}

fn state_of(session: &PortalSession, now: Timestamp) -> Markup {
    match session.ended_at {
        Some(_) => state::state(Tone::Neutral, icon::OFF, "ended"),
        None if session.expires_at <= now => state::state(Tone::Neutral, icon::CLOCK, "expired"),
        None => state::state(Tone::Good, icon::CHECK, "live"),
    }
}

pub async fn show_one(visit: Visit) -> Result<Response, Failure> {
    let id = visit.id::<PortalSessionId>(1)?;
    let session = visit.service().get_portal_session(&visit.principal, id).await?;
    let is_live = session.ended_at.is_none() && session.expires_at > visit.now();
    let body = html! {
        div.heading { h1 { "Session of the portal" } (state_of(&session, visit.now())) }
        (facts(&session))
        @if is_live {
            p.soft { "A session also ends with the key that made it." }
            div.actions { (field::action(&visit.link(&format!("{PATH}/{id}/end")), "End the session", "danger", &[])) }
        }
        @if visit.may(Permission::AuditRead) {
            p { a href=(visit.link(&format!("/audit?resourceId={id}"))) { "What was done with it" } }
        }
        p { a href=(visit.link(PATH)) { "All sessions of the portal" } }
        (code::api_call("DELETE", &format!("/v1/portal-sessions/{id}")))
    };
    Ok(visit.page(Section::Portal, &id.to_string(), body))
}

fn facts(session: &PortalSession) -> Markup {
    let terms = &session.terms;
    let may: Vec<&str> = terms.capabilities.iter().map(Capability::as_str).collect();
    let types = terms.event_types.as_ref().map(|types| types.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut pairs = vec![
        ("Id", code::copyable(&session.id.to_string())),
        ("Project", html! { code { (session.project_id.as_str()) } }),
        ("May", html! { (may.join(", ")) }),
        ("Event types", html! { @match types { Some(types) => (types.join(", ")), None => "all" } }),
        ("Language", html! { (terms.locale.map_or("that of the browser", Locale::as_str)) }),
        ("Colours", html! { (terms.theme.as_str()) }),
        ("Made", html! { (time::instant(session.created_at)) " by " (audit::actor(&session.created_by)) }),
        ("Expires", time::instant(session.expires_at)),
    ];
    if let Some(at) = session.ended_at {
        pairs.push(("Ended", time::instant(at)));
    }
    list::facts(&pairs)
}

/// Ends the session at once. Ending it again changes nothing.
pub async fn end(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::PortalCreate)?;
    let id = visit.id::<PortalSessionId>(1)?;
    once::effect(visit.service().end_portal_session(&visit.principal, id, &Idempotent::default()).await)?;
    Ok(visit.done(&format!("{PATH}/{id}"), "ended"))
}
