//! Group commit: events and outcomes are written in groups.

use crate::domain::event::{EventReceipt, NewEvent};
use crate::domain::idempotency::Recording;
use crate::store::{AcceptError, OutcomeRecord, Recorded, StoreError, Written};

use super::unavailable;

pub struct Groups;

impl Groups {
    pub async fn accept(
        &self,
        _events: Vec<NewEvent>,
        _recording: Option<Recording<Vec<EventReceipt>>>,
    ) -> Result<Result<Written<Vec<EventReceipt>>, AcceptError>, StoreError> {
        Err(unavailable("not built"))
    }

    pub async fn record(&self, _outcomes: Vec<OutcomeRecord>) -> Result<Vec<Recorded>, StoreError> {
        Err(unavailable("not built"))
    }
}
