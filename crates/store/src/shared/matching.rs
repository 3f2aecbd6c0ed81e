//! What is kept in memory of a workspace's endpoints.

use std::sync::Arc;

use crate::EndpointTarget;
use postrider_domain::endpoint::{Endpoint, SecretVersion};
use postrider_domain::time::Timestamp;

/// An endpoint with what its deliveries need.
pub struct Subscriber {
    pub endpoint: Endpoint,
    pub target: Arc<EndpointTarget>,
    pub overlap_until: Option<Timestamp>,
}

impl Subscriber {
    /// The version that signs too for what is enqueued at `now`.
    pub fn also_secret_version(&self, now: Timestamp) -> Option<SecretVersion> {
        let in_overlap = self.overlap_until.is_some_and(|until| now < until);
        in_overlap.then(|| SecretVersion(self.target.secret_version.0 - 1))
    }
}
