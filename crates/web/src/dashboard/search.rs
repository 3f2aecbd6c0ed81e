//! The id box: any id, an `externalId` or a host leads to its page. Only look-ups by key, no syntax to learn.

use axum::response::Response;
use maud::html;

use postrider_domain::id::RequestId;
use postrider_domain::permission::Permission;
use postrider_service::Found;

use crate::answer;
use crate::components::{icon, list};
use crate::failure::Failure;
use crate::layout::Section;
use crate::visit::Visit;

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let Some(text) = visit.query.text("q") else { return Ok(answer::see_other(&visit.site, &visit.link(""))) };
    let found = visit.service().find_anything(&visit.principal, text).await?;
    // A request may have written several entries. They are one page.
    if let (Ok(request), [Found::AuditEntry(_), ..]) = (text.parse::<RequestId>(), found.as_slice()) {
        let path = format!("/audit?requestId={request}");
        return Ok(answer::see_other(&visit.site, &visit.link(&path)));
    }
    if let [only] = found.as_slice() {
        return Ok(answer::see_other(&visit.site, &visit.link(&page_of(&visit, only))));
    }
    let body = html! {
        h1 { "Find" }
        @if found.is_empty() {
            (list::empty(icon::CROSS, "Nothing has this id", &html! {
                p { "It is no id of this workspace and mode, no externalId of an event that is still kept, and no host of an endpoint." }
                p { "Ids look like " code { "evt_…" } ", " code { "dlv_…" } ", " code { "whe_…" } ", " code { "rpl_…" } ", " code { "key_…" } ", " code { "pts_…" } ", " code { "req_…" } "." }
            }))
        } @else {
            p { (found.len()) " things have it:" }
            ul { @for thing in &found { @let path = page_of(&visit, thing); li { a href=(visit.link(&path)) { (path.trim_start_matches('/')) } } } }
        }
    };
    Ok(visit.page(Section::None, "Find", body))
}

fn page_of(visit: &Visit, found: &Found) -> String {
    match found {
        Found::Event(id) => format!("/events/{id}"),
        Found::Delivery(id) => format!("/deliveries/{id}"),
        Found::Endpoint(id) => format!("/endpoints/{id}"),
        Found::ApiKey(id) => format!("/keys#{id}"),
        Found::AuditEntry(id) => format!("/audit?id={id}"),
        Found::PortalSession(id) => format!("/portal-sessions/{id}"),
        Found::Replay(id) => format!("/replays/{id}"),
        Found::Workspace(id) if visit.may(Permission::WorkspacesManage) => format!("/workspaces/{id}"),
        Found::Workspace(_) => String::new(),
    }
}
