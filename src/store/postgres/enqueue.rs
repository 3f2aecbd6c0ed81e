//! Queueing deliveries: their rows in the log and in the queue, many at once.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::access::Mode;
use crate::domain::delivery::{DeliveryCause, EndReason};
use crate::domain::endpoint::SecretVersion;
use crate::domain::id::RowKey;
use crate::store::{EndpointTarget, Lane};

use super::fault::PgError;
use super::order::Standing;
use super::transaction::WriteTx;

/// A delivery to be made.
pub struct NewDelivery {
    pub key: RowKey,
    pub lane: Lane,
    pub event_key: RowKey,
    pub mode: Mode,
    pub cause: DeliveryCause,
    pub retry_of: Option<RowKey>,
    /// Set when the endpoint is off: then the delivery is over before it began.
    pub skipped: Option<EndReason>,
    pub standing: Standing,
    /// It is queued although its endpoint is off, and waits until that is on.
    pub is_held: bool,
    pub target: Arc<EndpointTarget>,
    /// The version that signs too, in an overlap.
    pub also_secret_version: Option<SecretVersion>,
    /// The bytes of an event that is being accepted: then the delivery is handed over at once, if there is room and nothing older
    /// is due in its lane.
    pub payload: Option<Bytes>,
}

/// Writes deliveries to the log, and to the queue unless they are skipped.
pub async fn insert(_tx: &mut WriteTx, _new: Vec<NewDelivery>) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
