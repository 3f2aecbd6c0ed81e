//! What each audited write changed. Both back ends store these in the entry of the write.

use serde_json::{Map, Value, json};

use postrider_domain::access::{ApiKey, Mode, Scope, Scopes};
use postrider_domain::audit_change::Changes;
use postrider_domain::delivery::Delivery;
use postrider_domain::endpoint::{DisabledReason, Endpoint};
use postrider_domain::endpoint_options::DeliveryRate;
use postrider_domain::erasure::{Erasure, ErasureTarget, PendingDeliveries};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::permission::Capability;
use postrider_domain::portal::{FrameAncestor, PortalSession};
use postrider_domain::replay::{Replay, ReplaySelection, ReplayStatus};
use postrider_domain::session::DashboardSession;
use postrider_domain::time::{Day, Timestamp};
use postrider_domain::workspace::WorkspaceName;

use crate::{NewLoginCode, SealedOptions, SecretRotation};

/// Parked messages that made room for others.
pub fn parked_messages_dropped(count: u64) -> Changes {
    let mut changes = Changes::default();
    changes.add("messages", count, Value::Null);
    changes
}

/// A new endpoint, with the values that its creator gave and the defaults for the others.
pub fn endpoint_created(endpoint: &Endpoint) -> Changes {
    let mut changes = Changes::default();
    add_fields(&mut changes, &Map::new(), &fields_of(endpoint));
    changes.add_redacted("secret", false, true);
    add_private(&mut changes, None, Some(endpoint), &SealedOptions::default());
    changes
}

/// A changed endpoint. A header or a certificate that was sent again counts as changed: its value is not compared.
pub fn endpoint_updated(before: &Endpoint, after: &Endpoint, sealed: &SealedOptions) -> Changes {
    let mut changes = Changes::default();
    add_fields(&mut changes, &fields_of(before), &fields_of(after));
    add_private(&mut changes, Some(before), Some(after), sealed);
    changes
}

pub fn endpoint_deleted(endpoint: &Endpoint) -> Changes {
    let mut changes = Changes::default();
    add_fields(&mut changes, &fields_of(endpoint), &Map::new());
    changes.add_redacted("secret", true, false);
    add_private(&mut changes, Some(endpoint), None, &SealedOptions::default());
    changes
}

/// The rotation of a secret. `overlapSeconds` and `revokeQueued` say what else is signed with which secret.
pub fn secret_rotated(before: &Endpoint, rotation: &SecretRotation) -> Changes {
    let mut changes = Changes::default();
    changes.add_redacted("secret", true, true);
    changes.add("secretLast4", before.secret_last4.as_str(), rotation.last4.as_str());
    if before.options.signature_schemes.has_v1a() {
        changes.add("publicKey", before.options.public_key.clone(), rotation.signing_key.public_key.as_str());
    }
    let overlap = Some(rotation.overlap.as_secs()).filter(|seconds| *seconds > 0);
    changes.add("overlapSeconds", Value::Null, overlap);
    changes.add("revokeQueued", Value::Null, rotation.revoke_queued.then_some(true));
    changes
}

pub fn endpoint_tested(event_type: &EventTypeName) -> Changes {
    Changes::default().with("event", Value::Null, event_type.as_str())
}

pub fn workspace_created(name: &WorkspaceName) -> Changes {
    Changes::default().with("name", Value::Null, name.as_str())
}

pub fn workspace_renamed(before: &WorkspaceName, after: &WorkspaceName) -> Changes {
    Changes::default().with("name", before.as_str(), after.as_str())
}

pub fn workspace_deleted(name: &WorkspaceName) -> Changes {
    Changes::default().with("name", name.as_str(), Value::Null)
}

pub fn api_key_created(key: &ApiKey) -> Changes {
    let scopes: Vec<&str> = key.scopes.iter().map(Scope::as_str).collect();
    let mut changes = Changes::default()
        .with("name", Value::Null, key.name.as_deref())
        .with("mode", Value::Null, key.mode.as_str())
        .with("scopes", Value::Null, scopes)
        .with("last4", Value::Null, key.last4.as_str())
        .with("expiresAt", Value::Null, key.expires_at.map(|at| Day::containing(at).to_string()));
    changes.add_redacted("key", false, true);
    changes
}

pub fn api_key_revoked(at: Timestamp) -> Changes {
    Changes::default().with("revokedAt", Value::Null, at.to_string())
}

/// A new session: what it may do, until when, and the key that signed in. Without a key, a login code opened it.
pub fn session_created(session: &DashboardSession) -> Changes {
    let mut changes = grant(session.tenant.mode, session.scopes, session.expires_at);
    changes.add("apiKeyId", Value::Null, session.api_key.map(|id| id.to_string()));
    changes
}

pub fn login_code_created(new: &NewLoginCode, expires_at: Timestamp) -> Changes {
    let mut changes = grant(new.tenant.mode, new.scopes, expires_at);
    changes.add_redacted("code", false, true);
    changes
}

/// Why a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    SignOut,
    /// The workspace had too many.
    Limit,
    /// Its visitor went on in another workspace.
    Switch,
}

pub fn session_ended(why: SessionEnd) -> Changes {
    let why = match why {
        SessionEnd::SignOut => "sign_out",
        SessionEnd::Limit => "limit",
        SessionEnd::Switch => "switch",
    };
    Changes::default().with("endReason", Value::Null, why)
}

fn grant(mode: Mode, scopes: Scopes, expires_at: Timestamp) -> Changes {
    Changes::default()
        .with("mode", Value::Null, mode.as_str())
        .with("scopes", Value::Null, scopes.iter().map(Scope::as_str).collect::<Vec<_>>())
        .with("expiresAt", Value::Null, expires_at.to_string())
}

/// A new portal session. Its code is no field: the link shows it once.
pub fn portal_session_created(session: &PortalSession) -> Changes {
    let terms = &session.terms;
    let capabilities: Vec<&str> = terms.capabilities.iter().map(Capability::as_str).collect();
    let types = terms.event_types.as_ref().map(|types| types.iter().map(EventTypeName::as_str).collect::<Vec<_>>());
    let ancestors: Vec<&str> = terms.frame_ancestors.iter().map(FrameAncestor::as_str).collect();
    Changes::default()
        .with("projectId", Value::Null, session.project_id.as_str())
        .with("capabilities", Value::Null, capabilities)
        .with("eventTypes", Value::Null, types)
        .with("frameAncestors", Value::Null, ancestors)
        .with("expiresAt", Value::Null, session.expires_at.to_string())
}

pub fn portal_session_ended(at: Timestamp) -> Changes {
    Changes::default().with("endedAt", Value::Null, at.to_string())
}

pub fn delivery_retried(queued: &Delivery) -> Changes {
    Changes::default().with("deliveryId", Value::Null, queued.id.to_string())
}

pub fn delivery_skipped() -> Changes {
    Changes::default().with("isBlocking", true, false)
}

pub fn replay_started(replay: &Replay) -> Changes {
    let mut changes = Changes::default();
    match &replay.selection {
        ReplaySelection::Endpoint { id, range } => {
            let statuses: Vec<&str> = range.statuses.iter().map(|status| status.as_str()).collect();
            changes.add("endpointId", Value::Null, id.to_string());
            changes.add("since", Value::Null, range.since.to_string());
            changes.add("until", Value::Null, range.until.to_string());
            changes.add("statuses", Value::Null, statuses);
        }
        ReplaySelection::Filter(filter) => changes.add("filter", Value::Null, json!(filter)),
    }
    changes.with("total", Value::Null, replay.total)
}

/// `before` is the status that the replay had. One that had ended stays as it is.
pub fn replay_stopped(before: ReplayStatus) -> Changes {
    let after = if before == ReplayStatus::Running { ReplayStatus::Stopped } else { before };
    Changes::default().with("status", before.as_str(), after.as_str())
}

pub fn erasure_started(erasure: &Erasure) -> Changes {
    let (name, value) = match &erasure.target {
        ErasureTarget::Event(id) => ("eventId", id.to_string()),
        ErasureTarget::Project(project) => ("projectId", project.as_str().to_owned()),
        ErasureTarget::Endpoint(id) => ("endpointId", id.to_string()),
    };
    Changes::default().with(name, Value::Null, value).with("pending", Value::Null, erasure.pending.as_str())
}

/// An erasure that waited for deliveries and now cancels them.
pub fn erasure_cancels(before: PendingDeliveries, after: PendingDeliveries) -> Changes {
    Changes::default().with("pending", before.as_str(), after.as_str())
}

/// The fields of an endpoint that a caller sets and that are no secret, under their names in the API.
fn fields_of(endpoint: &Endpoint) -> Map<String, Value> {
    let options = &endpoint.options;
    let fields = json!({
        "name": endpoint.name,
        "url": Some(&endpoint.url).filter(|url| !url.is_empty()),
        "durable": endpoint.listener.map(|listener| listener.durable),
        "events": endpoint.events.iter().map(EventTypeName::as_str).collect::<Vec<_>>(),
        "isActive": endpoint.is_active,
        "disabledReason": endpoint.disabled_reason.map(DisabledReason::as_str),
        "projectId": endpoint.project_id,
        "retrySchedule": options.retry_schedule.as_ref().map(|schedule| schedule.seconds().collect::<Vec<_>>()),
        "timeoutSeconds": options.timeout.map(|timeout| timeout.as_secs()),
        "signatureSchemes": options.signature_schemes.as_strs(),
        "publicKey": options.shown_public_key(),
        "rateLimit": options.rate_limit.map(DeliveryRate::per_second),
        "ordering": options.ordering.as_str(),
        "traceForwarding": options.trace_forwarding,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Adds the fields that differ. A field that one side lacks is `null` there.
fn add_fields(changes: &mut Changes, before: &Map<String, Value>, after: &Map<String, Value>) {
    let value = |side: &Map<String, Value>, name: &str| side.get(name).cloned().unwrap_or_default();
    for name in FIELDS {
        changes.add(name, value(before, name), value(after, name));
    }
}

/// In the order of the API.
const FIELDS: [&str; 13] = [
    "url",
    "name",
    "events",
    "isActive",
    "disabledReason",
    "projectId",
    "retrySchedule",
    "timeoutSeconds",
    "signatureSchemes",
    "publicKey",
    "rateLimit",
    "ordering",
    "traceForwarding",
];

/// Adds the headers and the certificate that were set, replaced or removed.
fn add_private(changes: &mut Changes, before: Option<&Endpoint>, after: Option<&Endpoint>, sealed: &SealedOptions) {
    let headers = |endpoint: Option<&Endpoint>| endpoint.map(|it| it.options.headers.clone()).unwrap_or_default();
    let (had, has) = (headers(before), headers(after));
    let given = sealed.headers.as_deref().unwrap_or_default();
    for name in &had {
        let is_replaced = given.iter().any(|header| header.name == *name && header.sealed.is_some());
        if is_replaced || !has.contains(name) {
            changes.add_redacted(format!("headers.{}", name.as_str()), true, has.contains(name));
        }
    }
    for name in has.iter().filter(|name| !had.contains(name)) {
        changes.add_redacted(format!("headers.{}", name.as_str()), false, true);
    }
    let certificate = |endpoint: Option<&Endpoint>| endpoint.is_some_and(|it| it.options.client_certificate.is_some());
    let (had, has) = (certificate(before), certificate(after));
    if had != has || matches!(sealed.client_certificate, Some(Some(_))) {
        changes.add_redacted("clientCertificate", had, has);
    }
}
