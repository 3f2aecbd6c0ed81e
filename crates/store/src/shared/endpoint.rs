//! What an endpoint is when it is made, and what it becomes by a change.

use std::sync::Arc;

use crate::NewEndpoint;
use postrider_domain::endpoint::{Endpoint, EndpointChange, ProjectId};
use postrider_domain::time::Timestamp;

/// A new endpoint, still without its options.
pub fn made(new: &NewEndpoint) -> Endpoint {
    Endpoint {
        key: new.key,
        id: new.id,
        url: new.url.as_str().to_owned(),
        name: new.name.as_str().to_owned(),
        events: new.events.clone(),
        is_active: true,
        disabled_reason: None,
        project_id: new.project_id.as_ref().map(|project| project.as_str().to_owned()),
        secret_last4: new.secret_last4.clone(),
        created_at: new.key.created_at(),
        updated_at: new.key.created_at(),
        failure_streak: None,
        options: Arc::default(),
    }
}

/// Whether a change takes an endpoint to another project, or out of one.
pub fn moves(endpoint: &Endpoint, project_id: Option<&ProjectId>) -> bool {
    project_id.map(ProjectId::as_str) != endpoint.project_id.as_deref()
}

/// Changes all but the options.
pub fn apply(endpoint: &mut Endpoint, change: &EndpointChange, now: Timestamp) {
    if let Some(project) = &change.project_id {
        endpoint.project_id = project.as_ref().map(|project| project.as_str().to_owned());
    }
    if let Some(name) = &change.name {
        name.as_str().clone_into(&mut endpoint.name);
    }
    if let Some(url) = &change.url {
        url.as_str().clone_into(&mut endpoint.url);
    }
    if let Some(events) = &change.events {
        endpoint.events.clone_from(events);
    }
    if let Some(is_active) = change.is_active {
        (endpoint.is_active, endpoint.disabled_reason) = (is_active, None);
    }
    endpoint.updated_at = now.max(endpoint.updated_at);
}

/// Whether a change means another receiver, or one that was mended: what is held against it is over then.
pub fn forgives(change: &EndpointChange) -> bool {
    change.is_active == Some(true) || change.url.is_some()
}
