//! A workspace's endpoints as both back ends cache them, and which of them an event matches. A back end asks only the
//! endpoints of the event's mode.

use std::sync::Arc;

use crate::EndpointTarget;
use postrider_domain::endpoint::{Endpoint, SecretVersion};
use postrider_domain::event::NewEvent;
use postrider_domain::time::Timestamp;

/// An endpoint, with the values that its deliveries need.
pub struct Subscriber {
    pub endpoint: Endpoint,
    pub target: Arc<EndpointTarget>,
    pub overlap_until: Option<Timestamp>,
}

impl Subscriber {
    pub fn matches(&self, event: &NewEvent) -> bool {
        self.endpoint.matches(&event.event_type, event.project_id.as_ref().map(|project| project.as_str()))
    }

    /// The version that signs too for a delivery enqueued at `now`.
    pub fn also_secret_version(&self, now: Timestamp) -> Option<SecretVersion> {
        let in_overlap = self.overlap_until.is_some_and(|until| now < until);
        in_overlap.then(|| SecretVersion(self.target.secret_version.0 - 1))
    }
}
