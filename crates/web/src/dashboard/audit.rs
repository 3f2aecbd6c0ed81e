//! The audit log: who wrote what, when, from where, by which request.

use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use postrider_domain::audit::{Actor, AuditAction, AuditEntry, AuditFilter};
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::ServiceError;

use crate::components::field::{self, Faults, TextField};
use crate::components::{code, icon, list, time};
use crate::failure::Failure;
use crate::layout::Section;
use crate::visit::Visit;

const FILTERS: [&str; 6] = ["action", "resourceId", "requestId", "id", "since", "until"];

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    visit.require(Permission::AuditRead)?;
    let mut faults = Faults::default();
    let mut instant = |name: &str| {
        let text = visit.query.text(name)?;
        faults.read(name, Timestamp::parse(text))
    };
    let (since, until) = (instant("since"), instant("until"));
    let action = visit.query.text("action").and_then(AuditAction::parse);
    let resource_id = visit.query.text("resourceId").map(str::to_owned);
    let (request_id, id) = (of_query(&visit, "requestId", &mut faults), of_query(&visit, "id", &mut faults));
    let filter = AuditFilter { action, resource_id, request_id, id, since, until };
    let page = PageRequest::parse(None, visit.query.text("cursor")).map_err(ServiceError::from)?;
    let listed = visit.service().list_audit(&visit.principal, filter, page).await?;
    let body = html! {
        h1 { "Audit" }
        p { "Each write of this workspace, and each request that was refused for its key. Publishing is in the log of events." }
        (filters(&visit, &faults))
        @if listed.items.is_empty() { (nothing(&visit)) } @else { (table(&visit, &listed.items)) }
        (visit.page_links(listed.next))
        (code::api_call("GET", "/v1/audit-log"))
    };
    Ok(visit.page(Section::Audit, "", body))
}

/// An id of the query. The fault of what is none is noted.
fn of_query<T: std::str::FromStr>(visit: &Visit, name: &str, faults: &mut Faults) -> Option<T> {
    let read = visit.query.text(name)?.parse().map_err(|_| "is not such an id");
    faults.read(name, read)
}

fn filters(visit: &Visit, faults: &Faults) -> Markup {
    let text = |name: &str| visit.query.text(name).unwrap_or_default();
    let actions = AuditAction::ALL.iter().map(|action| (action.as_str(), action.as_str()));
    let actions: Vec<(&str, &str)> = std::iter::once(("", "All")).chain(actions).collect();
    let field = |name, label, kind| TextField { name, label, hint: "", value: text(name), kind, required: false };
    html! {
        (faults.summary())
        form.filters action=(visit.link("/audit")) method="get" role="search" aria-label="Filter of the audit log" {
            (field::select("action", "Action", &actions, text("action")))
            (field("resourceId", "Id of what was written", "text").render(faults))
            (field("requestId", "Request", "text").render(faults))
            @if visit.query.text("id").is_some() { (field("id", "Entry", "text").render(faults)) }
            (field("since", "From (ISO 8601)", "text").render(faults))
            (field("until", "To (ISO 8601)", "text").render(faults))
            button type="submit" { "Filter" }
            @if FILTERS.iter().any(|name| visit.query.text(name).is_some()) { a href=(visit.link("/audit")) { "Show all" } }
        }
    }
}

fn nothing(visit: &Visit) -> Markup {
    if FILTERS.iter().chain(&["cursor"]).any(|name| visit.query.text(name).is_some()) {
        let all = html! { p { a href=(visit.link("/audit")) { "Show all entries" } } };
        return list::empty(icon::OFF, "No entry matches this filter", &all);
    }
    list::empty(icon::ARROW, "No entry yet", &html! { p { "The first write puts one here." } })
}

/// Entries as a table; another page shows those of one thing.
pub fn table(visit: &Visit, entries: &[AuditEntry]) -> Markup {
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label="Entries of the audit log" {
            table.stack {
                caption { "Newest first" }
                thead { tr { th scope="col" { "When" } th scope="col" { "Action" } th scope="col" { "Of" } th scope="col" { "Who" } th scope="col" { "Changes" } } }
                tbody {
                    @for entry in entries {
                        tr id=(entry.id) {
                            td data-label="When" { (time::relative(entry.id.created_at(), now)) span.sub { (entry.author.mode.as_str()) } }
                            th scope="row" data-label="Action" { (entry.action.as_str()) }
                            td data-label="Of" { (resource(visit, &entry.resource_id)) }
                            td data-label="Who" { (who(entry)) }
                            td data-label="Changes" { (changes(entry)) }
                        }
                    }
                }
            }
        }
    }
}

fn resource(visit: &Visit, id: &str) -> Markup {
    let section = match id.split('_').next() {
        Some("whe") => "/endpoints/",
        Some("dlv") => "/deliveries/",
        _ => return html! { code { (id) } },
    };
    html! { a href=(visit.link(&format!("{section}{id}"))) { code { (id) } } }
}

fn who(entry: &AuditEntry) -> Markup {
    html! {
        (actor(&entry.author.actor))
        @if let Some(address) = entry.author.address { span.sub { "from " (address.0) } }
        @if let Some(request) = entry.author.request_id { span.sub { "request " code { (request) } } }
    }
}

pub fn actor(actor: &Actor) -> Markup {
    match actor {
        Actor::ApiKey(id) => html! { code { (id) } },
        Actor::Session(id) => html! { "session " code { (id) } },
        Actor::Portal(id) => html! { "portal session " code { (id) } },
        Actor::Source => html! { "a source of events" },
        Actor::CommandLine => html! { "the command line" },
        Actor::Unknown => html! { "nobody who is known" },
    }
}

fn changes(entry: &AuditEntry) -> Markup {
    html! {
        @if let Some(refusal) = &entry.refusal {
            (refusal.count) " requests refused: " (refusal.reason.as_str())
            @if let Some(route) = &refusal.route { span.sub { (route) } }
        }
        @for change in entry.changes.iter() {
            div.change {
                strong { (change.field) } ": "
                @if !change.old.is_null() { del { (shown(&change.old)) } " " }
                ins { (shown(&change.new)) }
            }
        }
    }
}

/// A value as people read it: texts without their quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
