//! Which endpoints an event is for: one workspace's endpoints, cached by the node.
//!
//! The cache counts only at the workspace's `config_version`. Every write to endpoints or secrets bumps it in its own transaction, and
//! each accept reads it in its own, under the workspace's lock: "enqueued after the rotation" admits no staleness.

use std::sync::Arc;

use crate::domain::endpoint::{Endpoint, SecretVersion};
use crate::domain::id::RowKey;
use crate::domain::time::Timestamp;
use crate::store::{EndpointTarget, Lane};

use super::fault::PgError;
use super::transaction::WriteTx;

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

/// The endpoints of one workspace, oldest first.
pub struct Subscribers(Vec<Subscriber>);

impl Subscribers {
    pub fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.0.iter()
    }

    /// Looks by bisection: the keys are in order.
    pub fn get(&self, endpoint_key: RowKey) -> Option<&Subscriber> {
        let at = self.0.binary_search_by_key(&endpoint_key, |subscriber| subscriber.endpoint.key).ok()?;
        self.0.get(at)
    }
}

#[derive(Default)]
pub struct MatchingCache;

/// The endpoints of a workspace, as they are in this transaction, which shares or holds the workspace's lock.
pub async fn subscribers(_tx: &mut WriteTx, _workspace_key: RowKey) -> Result<Arc<Subscribers>, PgError> {
    Err(PgError::Unavailable("not built"))
}

/// Those of many workspaces at once.
pub async fn load(_tx: &mut WriteTx, _workspace_keys: &[RowKey]) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

/// How to call an endpoint; `None` once it is deleted.
pub async fn target(_tx: &mut WriteTx, _lane: Lane) -> Result<Option<Arc<EndpointTarget>>, PgError> {
    Err(PgError::Unavailable("not built"))
}

/// To be called by every write that touches an endpoint or a secret.
pub async fn bump(_tx: &mut WriteTx, _workspace_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
