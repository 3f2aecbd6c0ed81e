//! What a workspace stores, and its budget: which bytes count, and how the counters are made right once.
//!
//! Counted is the content of events, attempts and remembered answers: envelopes, headers and bodies. Rows and indexes
//! come on top on disk. A transaction gathers its changes here and writes one change per workspace, part and day.
//!
//! Nothing is counted without a budget. When a budget is first set, upkeep counts what is stored already, in steps
//! through the row keys. Until a step has passed a row, its changes are left out, because the step will see them.

use std::collections::BTreeMap;

use postrider_domain::id::RowKey;
use postrider_domain::idempotency::RecordedAnswer;

/// The name of the progress in the table of named facts.
pub const PROGRESS: &str = "stored_bytes";

/// The content of an attempt that is counted, as SQL that both databases accept.
pub const ATTEMPT_BYTES: &str = "COALESCE(octet_length(request), 0) \
     + COALESCE(octet_length(request_headers), 0) \
     + COALESCE(octet_length(response_headers), 0) + COALESCE(octet_length(response_body), 0)";

/// What is counted. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CountedPart {
    Events,
    /// By the keys of their deliveries.
    Attempts,
    Answers,
}

impl CountedPart {
    pub const fn code(self) -> i64 {
        match self {
            Self::Events => 0,
            Self::Attempts => 1,
            Self::Answers => 2,
        }
    }

    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Events),
            1 => Some(Self::Attempts),
            2 => Some(Self::Answers),
            _ => None,
        }
    }

    /// Selects the next rows to count as `key`, `workspace_key` and `bytes`: those after the first parameter, up to the
    /// second, as many as the third says.
    pub fn select(self, parameter: char) -> String {
        let (bytes, table) = match self {
            Self::Events => ("octet_length(envelope)".to_owned(), "events"),
            Self::Attempts => (
                format!("(SELECT SUM({ATTEMPT_BYTES}) FROM attempts WHERE delivery_key = deliveries.key)"),
                "deliveries",
            ),
            Self::Answers => ("octet_length(body)".to_owned(), "idempotency"),
        };
        format!(
            "SELECT key, workspace_key, CAST(COALESCE({bytes}, 0) AS BIGINT) AS bytes FROM {table}
             WHERE key > {parameter}1 AND key <= {parameter}2 ORDER BY key LIMIT {parameter}3"
        )
    }
}

/// The day of a row, as its counter names it.
pub const fn day_of(key: RowKey) -> i64 {
    const MILLIS: i64 = 24 * 3600 * 1000;
    key.created_at().millis().div_euclid(MILLIS)
}

pub fn answer_bytes(answer: &RecordedAnswer) -> i64 {
    bytes_of(answer.body.len())
}

/// A length as it is counted.
pub fn bytes_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// How far the rows from before the budget have been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountProgress {
    Counting {
        part: CountedPart,
        /// Rows of this part up to this key are counted.
        after: RowKey,
        /// Rows after this key are counted as they are written.
        until: RowKey,
    },
    Done,
}

impl CountProgress {
    pub const fn start(until: RowKey) -> Self {
        Self::Counting { part: CountedPart::Events, after: RowKey::from_i64(0), until }
    }

    /// Whether a change of this row is counted as it is written.
    pub fn includes(self, changed: CountedPart, key: RowKey) -> bool {
        match self {
            Self::Done => true,
            Self::Counting { part, after, until } => key > until || changed < part || (changed == part && key <= after),
        }
    }

    /// The progress after a step through a part that ended at `last`, or at the part's end if `None`.
    #[must_use]
    pub const fn after_step(self, last: Option<RowKey>) -> Self {
        let Self::Counting { part, until, .. } = self else { return Self::Done };
        let next = match (last, part) {
            (Some(after), part) => return Self::Counting { part, after, until },
            (None, CountedPart::Events) => CountedPart::Attempts,
            (None, CountedPart::Attempts) => CountedPart::Answers,
            (None, CountedPart::Answers) => return Self::Done,
        };
        Self::Counting { part: next, after: RowKey::from_i64(0), until }
    }

    pub fn to_text(self) -> String {
        match self {
            Self::Done => "done".to_owned(),
            Self::Counting { part, after, until } => format!("{} {} {}", part.code(), after.as_i64(), until.as_i64()),
        }
    }

    /// `None` when the text is not a progress.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if text == "done" {
            return Some(Self::Done);
        }
        let numbers: Vec<i64> = text.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [part, after, until] = numbers[..] else { return None };
        let (after, until) = (RowKey::from_i64(after), RowKey::from_i64(until));
        Some(Self::Counting { part: CountedPart::from_code(part)?, after, until })
    }
}

/// The changes of one transaction.
#[derive(Debug, Default)]
pub struct StoredBytes(BTreeMap<(RowKey, CountedPart, i64), i64>);

/// A change to write: workspace, part, day and bytes.
pub type StoredBytesChange = (RowKey, CountedPart, i64, i64);

impl StoredBytes {
    pub fn add(&mut self, workspace: RowKey, part: CountedPart, key: RowKey, bytes: i64) {
        *self.0.entry((workspace, part, day_of(key))).or_default() += bytes;
    }

    pub fn total_of(&self, workspace: RowKey) -> i64 {
        let first = (workspace, CountedPart::Events, i64::MIN);
        self.0.range(first..).take_while(|((of, ..), _)| *of == workspace).map(|(_, bytes)| bytes).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The changes, in the order of the counters. None are left.
    pub fn take(&mut self) -> Vec<StoredBytesChange> {
        let changes = std::mem::take(&mut self.0).into_iter().filter(|(_, bytes)| *bytes != 0);
        changes.map(|((workspace, part, day), bytes)| (workspace, part, day, bytes)).collect()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Whether a workspace that stores `total` has no room for `more` in its budget of `max`. Without a size in `more`,
/// such as that of an attempt to come, there must be room for one byte.
pub fn is_over(max: u64, total: i64, more: usize) -> bool {
    total.max(0).unsigned_abs().saturating_add(more.max(1) as u64) > max
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(value: i64) -> RowKey {
        RowKey::from_i64(value)
    }

    #[test]
    fn a_row_is_counted_by_a_step_or_as_it_is_written_never_by_both() {
        let counting = CountProgress::Counting { part: CountedPart::Attempts, after: key(5), until: key(9) };
        let counted = |part| [5, 6, 9, 10].map(|row| counting.includes(part, key(row)));
        assert_eq!(counted(CountedPart::Events), [true, true, true, true], "this part has been walked");
        assert_eq!(counted(CountedPart::Attempts), [true, false, false, true]);
        assert_eq!(counted(CountedPart::Answers), [false, false, false, true]);
        assert!(CountProgress::Done.includes(CountedPart::Answers, key(1)));
    }

    #[test]
    fn progress_goes_through_every_part_and_back_from_its_text() {
        let mut progress = CountProgress::start(key(9)).after_step(Some(key(4)));
        assert_eq!(progress, CountProgress::Counting { part: CountedPart::Events, after: key(4), until: key(9) });
        let mut parts = Vec::new();
        while let CountProgress::Counting { part, .. } = progress {
            assert_eq!(CountProgress::from_text(progress.to_text().as_bytes()), Some(progress));
            parts.push(part);
            progress = progress.after_step(None);
        }
        assert_eq!(parts, [CountedPart::Events, CountedPart::Attempts, CountedPart::Answers]);
        assert_eq!(CountProgress::from_text(b"done"), Some(CountProgress::Done));
        for bad in [&b"3 0 0"[..], b"0 0", b"", b"\xff"] {
            assert_eq!(CountProgress::from_text(bad), None);
        }
    }

    #[test]
    fn a_budget_is_full_at_its_last_byte() {
        assert!(!is_over(10, 4, 6));
        assert!(is_over(10, 4, 7));
        assert!(!is_over(10, 9, 0));
        assert!(is_over(10, 10, 0));
        assert!(!is_over(10, -3, 10), "a counter below zero is a drift, not a debt");
    }
}
