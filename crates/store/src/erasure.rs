//! Erasures: jobs that take the content of events out of the store and leave their rows. Upkeep advances them in
//! bounded steps.
//!
//! 1. **Walk.** The rows of the target, oldest first. Each is emptied in one transaction with all that belongs to it. A
//!    row whose deliveries must be finished first is passed, and another pass begins at the first such row.
//! 2. **Answers.** Remembered answers that name an emptied event are removed.
//! 3. **Files.** The back end makes the bytes go. Jobs that have come so far share this work.
//!
//! Whatever a step has done is committed with its position, so that a job goes on after a restart.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::access::Mode;
use postrider_domain::erasure::{Erasure, ErasureTarget, PendingDeliveries};
use postrider_domain::id::{ErasureId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::{EraseError, StoreError, Write, Written};

/// An erasure to create. Its mode is the tenant's.
#[derive(Clone, Debug)]
pub struct NewErasure {
    pub target: ErasureTarget,
    pub pending: PendingDeliveries,
}

#[async_trait]
pub trait Erasures: Send + Sync + 'static {
    /// Creates an erasure. One of an event that has one already returns that. It is made to cancel pending deliveries
    /// if this one asks for that and it has not ended.
    async fn create_erasure(&self, write: Write<Erasure>, new: NewErasure) -> Result<Written<Erasure>, EraseError>;

    /// The erasures of the tenant, newest first.
    async fn list_erasures(&self, tenant: Tenant, page: PageRequest) -> Result<Page<Erasure>, StoreError>;

    /// `None` for the operator, who sees those of all tenants.
    async fn find_erasure(&self, tenant: Option<Tenant>, id: ErasureId) -> Result<Option<Erasure>, StoreError>;

    /// Whose event it is. For the operator, who is no tenant.
    async fn find_event_owner(&self, id: EventId) -> Result<Option<Tenant>, StoreError>;
}

/// The name of the fact that an older version wrote the file. Such a version leaves copies of rows in pages that it
/// splits, which only a rewrite of the whole file removes.
pub const OLD_FILE: &str = "erasure:old_file";

/// Rows of the log looked at in one step of a job.
pub const ROWS_PER_LOOK: usize = 2_000;
/// Rows emptied in one step, over all its jobs: some milliseconds of the writer.
pub const EMPTIED_PER_STEP: usize = 32;
/// Answers looked at in one step.
pub const ANSWERS_PER_LOOK: usize = 2_000;
/// Jobs that advance in one step. They are drawn at random, so that none waits for the end of another.
pub const JOBS_PER_STEP: usize = 16;

/// An answer to the publish of an event is written within this time of the event's id.
const ANSWER_WINDOW: Duration = Duration::from_secs(300);

/// How far a job has come. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Walk,
    Answers,
    /// Everything is emptied. The job waits for the work on the files.
    Emptied,
    /// The work on the files includes this job. On SQLite: free pages are overwritten.
    Overwriting,
    /// SQLite: the pages are given back, and then the write-ahead log is truncated.
    GivingBack,
}

impl Phase {
    pub const ALL: [Self; 5] = [Self::Walk, Self::Answers, Self::Emptied, Self::Overwriting, Self::GivingBack];

    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.code() == code)
    }
}

/// What a job walks over, by key.
#[derive(Clone, Debug)]
pub enum Walked {
    Event(RowKey),
    Project(String),
    /// Its deliveries.
    Endpoint(RowKey),
}

/// A job that walks or looks for answers.
#[derive(Clone, Debug)]
pub struct RunningErasure {
    pub key: RowKey,
    pub workspace: RowKey,
    pub mode: Mode,
    pub walked: Walked,
    pub pending: PendingDeliveries,
    pub phase: Phase,
    pub pass: Pass,
}

/// One pass of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Everything up to this key has been dealt with.
    pub cursor: RowKey,
    /// `None` before its first step.
    pub began: Option<Timestamp>,
    /// The first row that waits for its deliveries, and how many do.
    pub waiting_from: Option<RowKey>,
    pub waiting: u64,
}

/// What follows a step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStep {
    /// The pass goes on.
    GoesOn,
    /// Rows wait. The next pass begins at this instant.
    PassesAgain(Timestamp),
    Done,
}

impl Pass {
    /// Begins the pass, unless it has begun.
    pub fn begin(&mut self, now: Timestamp) {
        if self.began.is_none() {
            (self.began, self.waiting_from, self.waiting) = (Some(now), None, 0);
        }
    }

    pub fn wait_for(&mut self, row: RowKey) {
        self.waiting_from = self.waiting_from.or(Some(row));
        self.waiting += 1;
    }

    /// After a step that looked at everything up to `to`, or at the rest. Passes over many rows come seldom.
    pub fn after_step(&mut self, to: Option<RowKey>, now: Timestamp) -> AfterStep {
        if let Some(to) = to {
            self.cursor = to;
            return AfterStep::GoesOn;
        }
        let Some(first) = self.waiting_from else { return AfterStep::Done };
        let took = self.began.map(|began| now.since(began)).unwrap_or_default();
        self.cursor = RowKey::from_i64(first.as_i64() - 1);
        self.began = None;
        AfterStep::PassesAgain(now.plus((took * 10).clamp(limits::ERASURE_PASS_WAIT, limits::ERASURE_PASS_WAIT * 600)))
    }
}

impl RunningErasure {
    /// Rows with this key and later ones came after the erasure was asked for.
    pub const fn before(&self) -> RowKey {
        self.key
    }

    /// The answers to look at: behind the first key, and before the second.
    pub fn answers(&self) -> (RowKey, RowKey) {
        let oldest = RowKey::first_at(self.key.created_at().minus(limits::IDEMPOTENCY_WINDOW));
        match self.walked {
            Walked::Event(event) => {
                let at = event.created_at();
                let end = RowKey::first_at(at.plus(ANSWER_WINDOW)).min(self.before());
                (RowKey::first_at(at.minus(ANSWER_WINDOW)).max(oldest), end)
            }
            Walked::Project(_) => (oldest, self.before()),
            // No event is emptied.
            Walked::Endpoint(_) => (self.before(), self.before()),
        }
    }
}

/// What steps of a job have emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Emptied {
    pub events: u64,
    pub attempts: u64,
    pub cancelled: u64,
    pub answers: u64,
}

/// The events that an answer names, as it was rendered.
pub fn named_events(answer: &[u8], tag: StoreTag) -> Vec<RowKey> {
    let Ok(text) = std::str::from_utf8(answer) else { return Vec::new() };
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ids = words.filter(|word| word.starts_with(EventId::PREFIX)).filter_map(|word| word.parse::<EventId>().ok());
    ids.filter(|id| id.tag() == tag).map(EventId::key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: i64) -> RowKey {
        RowKey::from_i64(number)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_pass_goes_back_to_the_first_row_that_waits() {
        let mut pass = Pass { cursor: key(0), began: None, waiting_from: None, waiting: 0 };
        pass.begin(at(1_000));
        pass.wait_for(key(7));
        pass.wait_for(key(9));
        assert_eq!(pass.after_step(Some(key(20)), at(1_000)), AfterStep::GoesOn);
        assert_eq!((pass.cursor, pass.waiting_from, pass.waiting), (key(20), Some(key(7)), 2));
        // It took no time, so the shortest wait follows.
        let next = at(1_000).plus(limits::ERASURE_PASS_WAIT);
        assert_eq!(pass.after_step(None, at(1_000)), AfterStep::PassesAgain(next));
        assert_eq!((pass.cursor, pass.waiting), (key(6), 2), "what waits is shown until the next pass");
        pass.begin(next);
        assert_eq!((pass.waiting_from, pass.waiting), (None, 0));
        assert_eq!(pass.after_step(None, next), AfterStep::Done);
    }

    #[test]
    fn a_long_pass_is_followed_by_a_longer_wait() {
        let mut pass = Pass { cursor: key(0), began: Some(at(0)), waiting_from: Some(key(1)), waiting: 1 };
        assert_eq!(pass.after_step(None, at(60_000)), AfterStep::PassesAgain(at(660_000).min(at(60_000 + 600_000))));
    }

    #[test]
    fn the_events_of_an_answer_are_those_of_this_store() {
        let (here, elsewhere) = (StoreTag::from_u32(1), StoreTag::from_u32(2));
        let (ours, theirs) = (EventId::new(key(5), here), EventId::new(key(6), elsewhere));
        let answer = format!("{{\"data\":[{{\"id\":\"{ours}\",\"externalId\":\"evt_x\"}},{{\"id\":\"{theirs}\"}}]}}");
        assert_eq!(named_events(answer.as_bytes(), here), [key(5)]);
        assert!(named_events(&[0xff, 0xfe], here).is_empty());
    }

    #[test]
    fn every_phase_reads_back_from_its_number() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_code(phase.code()), Some(phase));
        }
    }
}
