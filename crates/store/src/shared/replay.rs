//! Replays: how far one goes in a step, what it does with a row of the log, and how its statuses are stored.

use crate::UnexpectedValue;
use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::id::RowKey;
use postrider_domain::replay::{ReplayCount, ReplayRange};

use super::column::joined;
use super::requeue::Again;

/// Log rows looked at in one step, whatever comes of them: a few milliseconds.
pub const ROWS_PER_STEP: usize = 500;
/// Replays taken further in one step; each is drawn by lot, so that none waits for the end of another.
pub const REPLAYS_PER_STEP: usize = 16;
/// Deliveries that one replay queues in one step: what comes in live never stands behind many more.
pub const QUEUED_PER_STEP: usize = 100;
/// Rows counted in one read.
pub const ROWS_PER_COUNT: usize = 20_000;
/// A replay waits while this many deliveries of its endpoint are due: live traffic comes first.
pub const LIVE_FIRST: usize = 50;

/// Whose log is looked at, which stretch of it, and with what kind of key.
#[derive(Clone, Copy)]
pub struct Scope<'r> {
    pub endpoint_key: RowKey,
    pub mode: Mode,
    pub range: &'r ReplayRange,
}

impl Scope<'_> {
    /// What stands in the log behind this key is looked at next, given how far it was looked at.
    pub fn from(&self, after: RowKey) -> i64 {
        after.as_i64().max(RowKey::first_at(self.range.since).as_i64() - 1)
    }
}

/// One row of the log, seen by a replay.
pub struct Candidate {
    pub key: RowKey,
    pub event_key: RowKey,
    pub fate: Fate,
}

/// What a replay does with a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is none of the replay's business.
    Passed,
    /// It should be sent, but retention took its payload.
    Unavailable,
    Sent,
}

impl Fate {
    /// Of what a query says: not wanted, wanted, wanted and there.
    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Passed),
            1 => Some(Self::Unavailable),
            2 => Some(Self::Sent),
            _ => None,
        }
    }
}

/// The rows that one step gets through: up to the first that would be one too many to queue.
pub fn stretch(rows: &[Candidate]) -> &[Candidate] {
    let mut sent = rows.iter().enumerate().filter(|(_, row)| row.fate == Fate::Sent);
    sent.nth(QUEUED_PER_STEP).map_or(rows, |(position, _)| &rows[..position])
}

/// Counts rows, of which as many as `limit` were asked for, and says where to go on.
pub fn counted(rows: &[Candidate], limit: usize) -> (ReplayCount, Option<RowKey>) {
    let of = |fate| rows.iter().filter(|row| row.fate == fate).count() as u64;
    let count = ReplayCount { total: of(Fate::Sent) + of(Fate::Unavailable), unavailable: of(Fate::Unavailable) };
    (count, rows.last().filter(|_| rows.len() == limit).map(|row| row.key))
}

pub fn statuses_to_text(range: &ReplayRange) -> String {
    joined(range.statuses.iter().map(|status| status.code()))
}

pub fn statuses_from_text(text: &str) -> Result<Vec<DeliveryStatus>, UnexpectedValue> {
    let code = |word: &str| word.parse().ok().and_then(DeliveryStatus::from_code);
    text.split(' ').map(|word| code(word).ok_or(UnexpectedValue("replays.statuses"))).collect()
}

/// A replay that runs.
pub struct Running {
    pub key: RowKey,
    pub workspace_key: RowKey,
    pub endpoint_key: RowKey,
    pub mode: Mode,
    pub range: ReplayRange,
    pub cursor: RowKey,
}

impl Running {
    pub const fn scope(&self) -> Scope<'_> {
        Scope { endpoint_key: self.endpoint_key, mode: self.mode, range: &self.range }
    }

    pub const fn again(&self, row: &Candidate) -> Again {
        Again {
            workspace_key: self.workspace_key,
            endpoint_key: self.endpoint_key,
            event_key: row.event_key,
            mode: self.mode,
            cause: DeliveryCause::Replay,
            retry_of: Some(row.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(fates: impl IntoIterator<Item = Fate>) -> Vec<Candidate> {
        let keys = (1..).map(RowKey::from_i64);
        fates.into_iter().zip(keys).map(|(fate, key)| Candidate { key, event_key: key, fate }).collect()
    }

    #[test]
    fn a_step_ends_before_what_would_be_one_too_many_to_queue() {
        let seen = rows((0..1_000).map(|at| if at % 2 == 0 { Fate::Sent } else { Fate::Passed }));
        let step = stretch(&seen);
        assert_eq!(step.len(), 2 * QUEUED_PER_STEP, "what is passed over behind the last still belongs to it");
        assert_eq!(stretch(&seen[..10]).len(), 10);
    }

    #[test]
    fn a_count_says_where_to_go_on_only_if_there_may_be_more() {
        let seen = rows([Fate::Sent, Fate::Passed, Fate::Unavailable]);
        let count = ReplayCount { total: 2, unavailable: 1 };
        assert_eq!(counted(&seen, 3), (count, Some(RowKey::from_i64(3))));
        assert_eq!(counted(&seen, 4), (count, None));
    }

    #[test]
    fn statuses_read_back_as_they_were_stored() {
        let statuses = vec![DeliveryStatus::Delivered, DeliveryStatus::Skipped];
        let at = postrider_domain::time::Timestamp::from_millis(0);
        let range = ReplayRange { since: at, until: at, statuses: statuses.clone() };
        assert_eq!(statuses_from_text(&statuses_to_text(&range)).unwrap(), statuses);
        assert!(statuses_from_text("1 x").is_err());
    }
}
