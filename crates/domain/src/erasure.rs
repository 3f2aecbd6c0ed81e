//! An erasure: a job that takes the content of events out of the store and leaves their rows. Content is what was
//! published, what was sent, and what receivers answered.

use super::endpoint::ProjectId;
use super::id::{EndpointId, ErasureId, EventId};
use super::mode::Mode;
use super::time::Timestamp;

/// The state of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasureStatus {
    /// It has not begun.
    Pending,
    Running,
    /// The content is gone.
    Erased,
}

impl ErasureStatus {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Running, Self::Erased];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Erased => "erased",
        }
    }

    /// The number that the stores keep.
    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// What an erasure does with deliveries that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PendingDeliveries {
    /// They end at once, as `cancelled`.
    #[default]
    Cancel,
    /// The erasure waits for their ends.
    Finish,
}

impl PendingDeliveries {
    pub const ALL: [Self; 2] = [Self::Cancel, Self::Finish];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Finish => "finish",
        }
    }

    /// # Errors
    /// When the text is none of the values. The error names them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|pending| pending.as_str() == text);
        found.ok_or_else(|| "must be cancel or finish".to_owned())
    }

    /// The number that the stores keep.
    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|pending| pending.code() == code)
    }
}

/// Whose content an erasure takes. It takes that of events which were accepted before the erasure was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErasureTarget {
    Event(EventId),
    /// All events that carry the project.
    Project(ProjectId),
    /// What was sent to an endpoint and what it answered. The events stay, because other endpoints have them too.
    Endpoint(EndpointId),
}

/// An erasure as the API shows it.
#[derive(Clone, Debug)]
pub struct Erasure {
    pub id: ErasureId,
    pub target: ErasureTarget,
    pub mode: Mode,
    pub pending: PendingDeliveries,
    pub status: ErasureStatus,
    /// Events whose content is gone. Zero for an endpoint.
    pub events: u64,
    /// Attempts whose requests and answers are gone.
    pub attempts: u64,
    /// Deliveries that it has cancelled.
    pub cancelled: u64,
    /// Remembered answers that it has removed.
    pub answers: u64,
    /// Rows that wait for the end of their deliveries, as last seen.
    pub waiting: u64,
    /// An older version wrote the file, and may have left content in it that only a rewrite of the file removes.
    pub needs_compact: bool,
    pub completed_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_an_erasure_parses_back() {
        for status in ErasureStatus::ALL {
            assert_eq!(ErasureStatus::from_code(status.code()), Some(status));
        }
        for pending in PendingDeliveries::ALL {
            assert_eq!(PendingDeliveries::from_code(pending.code()), Some(pending));
            assert_eq!(PendingDeliveries::parse(pending.as_str()), Ok(pending));
        }
        assert!(PendingDeliveries::parse("Cancel").is_err());
    }
}
