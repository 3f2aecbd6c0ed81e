//! `/v1/audit-log`.

use std::net::IpAddr;

use axum::response::Response;
use serde::Serialize;

use postrider_domain::audit::{AuditAction, AuditEntry, AuditFilter, Refusal};
use postrider_domain::audit_change::Changes;
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::{AuditId, RequestId};
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;

use super::access::Access;
use super::actor::ActorView;
use super::answer::{answer, list};
use super::call::Call;
use super::error::Failure;
use super::openapi::audit as openapi;
use super::query::Query;
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![Route::get("/audit-log", Access::Needs(Permission::AuditRead), index, openapi::index(catalogue))]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditView<'e> {
    id: AuditId,
    action: &'static str,
    resource_id: &'e str,
    actor: ActorView,
    mode: &'static str,
    request_id: Option<RequestId>,
    address: Option<IpAddr>,
    changes: &'e Changes,
    refusal: Option<RefusalView<'e>>,
    created_at: Timestamp,
}

#[derive(Serialize)]
struct RefusalView<'e> {
    reason: &'static str,
    route: Option<&'e str>,
    count: u32,
}

impl<'e> RefusalView<'e> {
    fn new(refusal: &'e Refusal) -> Self {
        Self { reason: refusal.reason.as_str(), route: refusal.route.as_deref(), count: refusal.count }
    }
}

impl<'e> AuditView<'e> {
    fn new(entry: &'e AuditEntry) -> Self {
        Self {
            id: entry.id,
            action: entry.action.as_str(),
            resource_id: &entry.resource_id,
            actor: entry.author.actor.into(),
            mode: entry.author.mode.as_str(),
            request_id: entry.author.request_id,
            address: entry.author.address.map(|address| address.0),
            changes: &entry.changes,
            refusal: entry.refusal.as_ref().map(RefusalView::new),
            created_at: entry.id.created_at(),
        }
    }
}

async fn index(call: Call) -> Result<Response, Failure> {
    let mut query = Query::parse(&call.uri);
    let page = query.page()?;
    let filter = AuditFilter {
        action: query.optional("action", |text| {
            let actions = AuditAction::ALL.map(AuditAction::as_str).join(", ");
            AuditAction::parse(text).ok_or_else(|| format!("must be one of {actions}"))
        }),
        resource_id: query.optional("resourceId", |text| Ok::<_, String>(text.to_owned())),
        id: None,
        request_id: query.optional("requestId", str::parse::<RequestId>),
        since: query.optional("since", Timestamp::parse),
        until: query.optional("until", Timestamp::parse),
    };
    query.finish()?;
    let page = call.service().list_audit(&call.principal, filter, page).await?;
    Ok(answer(200, list(&page, AuditView::new)))
}
