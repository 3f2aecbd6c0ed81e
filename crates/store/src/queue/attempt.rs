//! The attempt of a lost claim.

use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::payload::PayloadState;
use postrider_domain::time::Timestamp;

/// The attempt of a claim that its holder lost because the content of the event was erased meanwhile.
pub fn attempt_under_way(number: u32, claimed_at: Timestamp) -> Attempt {
    let error = "the content of the event was erased during this attempt, so its outcome was not recorded";
    Attempt { error: Some(error.to_owned()), payload: PayloadState::Erased, ..abandoned(number, claimed_at, None) }
}

/// The attempt of a claim whose holder died.
pub fn abandoned(number: u32, claimed_at: Timestamp, next_attempt_at: Option<Timestamp>) -> Attempt {
    Attempt {
        number,
        started_at: claimed_at,
        duration_ms: 0,
        outcome: AttemptOutcome::Abandoned,
        request: None,
        request_headers: Vec::new(),
        remote_address: None,
        response_status: None,
        response_headers: Vec::new(),
        response_body: None,
        error: Some("the process that had started this attempt stopped before recording its outcome".to_owned()),
        next_attempt_at,
        phases: None,
        payload: PayloadState::Kept,
    }
}
