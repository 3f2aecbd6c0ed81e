//! Records requests that were refused for their key, or for a scope that it lacks, in the audit log.
//!
//! A stranger decides how many there are. So requests that are alike share an entry: same key, address block, route and
//! reason. The first is written at once, the others once a minute with their number. At most
//! [`limits::REFUSALS_PER_MINUTE`] kinds are told apart at a time; the others share an entry for each reason.
//!
//! A request only counts here. A task of the server writes ([`Service::keep_writing_refusals`]).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;

use tokio::sync::Notify;

use postrider_domain::access::{ApiKey, Mode, Principal};
use postrider_domain::audit::{Actor, Author, KeyRefusal, Refusal};
use postrider_domain::caller::AddressBlock;
use postrider_domain::error_chain::Chain;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::NewRefusal;

use crate::access::Origin;
use crate::lock::lock;
use crate::service::Service;

#[derive(Default)]
pub struct RefusalLog {
    kinds: Mutex<HashMap<Kind, Counted>>,
    /// Notified when a kind was seen for the first time.
    first_seen: Notify,
}

/// What the requests of one entry have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    workspace: Option<RowKey>,
    actor: Actor,
    block: Option<AddressBlock>,
    route: Option<String>,
    reason: KeyRefusal,
}

struct Counted {
    /// Of the first request since the last entry.
    author: Author,
    count: u32,
    written_at: Option<Timestamp>,
}

impl RefusalLog {
    /// Counts a refused request.
    fn note(&self, workspace: Option<RowKey>, author: Author, route: &str, reason: KeyRefusal) {
        let block = author.address.map(AddressBlock::of);
        let kind = Kind { workspace, actor: author.actor, block, route: Some(route.to_owned()), reason };
        let mut kinds = lock(&self.kinds);
        let is_new = !kinds.contains_key(&kind);
        let (kind, author) = if is_new && kinds.len() >= limits::REFUSALS_PER_MINUTE {
            let author = Author { actor: Actor::Unknown, mode: Mode::Live, request_id: None, address: None };
            (Kind { workspace: None, actor: Actor::Unknown, block: None, route: None, reason }, author)
        } else {
            (kind, author)
        };
        match kinds.entry(kind) {
            Entry::Occupied(mut counted) => {
                let counted = counted.get_mut();
                if counted.count == 0 {
                    counted.author = author;
                }
                counted.count = counted.count.saturating_add(1);
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Counted { author, count: 1, written_at: None });
                self.first_seen.notify_one();
            }
        }
    }

    /// What is to be written now: kinds seen for the first time, and those whose last entry is a minute old. With
    /// `all`, everything that is not written yet. Forgets kinds that were not seen for a minute.
    fn take_due(&self, now: Timestamp, all: bool) -> Vec<NewRefusal> {
        let mut due = Vec::new();
        lock(&self.kinds).retain(|kind, counted| {
            let is_due = counted.written_at.is_none_or(|at| now.since(at) >= limits::RATE_WINDOW);
            if (is_due || all) && counted.count > 0 {
                let refusal = Refusal { reason: kind.reason, route: kind.route.clone(), count: counted.count };
                due.push(NewRefusal { workspace: kind.workspace, author: counted.author, refusal });
                (counted.count, counted.written_at) = (0, Some(now));
                return true;
            }
            !is_due
        });
        due
    }

    /// Counts entries again that could not be written. They are due in a minute.
    fn put_back(&self, refusals: &[NewRefusal]) {
        let mut kinds = lock(&self.kinds);
        for NewRefusal { workspace, author, refusal } in refusals {
            let kind = Kind {
                workspace: *workspace,
                actor: author.actor,
                block: author.address.map(AddressBlock::of),
                route: refusal.route.clone(),
                reason: refusal.reason,
            };
            if let Some(counted) = kinds.get_mut(&kind) {
                counted.count = counted.count.saturating_add(refusal.count);
            }
        }
    }
}

impl Service {
    /// Records that a request was refused for a scope that its key lacks.
    pub fn note_scope_missing(&self, principal: &Principal, route: &str) {
        let (workspace, author) = (principal.tenant.workspace, principal.author());
        self.refusals.note(Some(workspace), author, route, KeyRefusal::ScopeMissing);
    }

    /// `key` is `None` when the store does not know it.
    pub(crate) fn note_key_refused(&self, key: Option<&ApiKey>, origin: &Origin<'_>, reason: KeyRefusal) {
        let (workspace, actor, mode) = match key {
            Some(key) => (Some(key.workspace_key), Actor::ApiKey(key.id), key.mode),
            None => (None, Actor::Unknown, Mode::Live),
        };
        let author = Author { actor, mode, request_id: origin.request_id, address: origin.address };
        self.refusals.note(workspace, author, origin.route, reason);
    }

    /// Writes refusals to the audit log whenever some are due. Never returns.
    pub async fn keep_writing_refusals(&self) {
        let mut now = self.clock.now();
        loop {
            tokio::select! {
                () = self.refusals.first_seen.notified() => {}
                () = self.clock.sleep_until(now.plus(limits::RATE_WINDOW)) => {}
            }
            // Read before the write, so that what was written is due again when the sleep ends.
            now = self.clock.now();
            self.write_refusals(now, false).await;
        }
    }

    /// Writes everything that is not written yet, before the server ends.
    pub async fn write_last_refusals(&self) {
        self.write_refusals(self.clock.now(), true).await;
    }

    async fn write_refusals(&self, now: Timestamp, all: bool) {
        let due = self.refusals.take_due(now, all);
        if due.is_empty() {
            return;
        }
        for NewRefusal { author, refusal, .. } in &due {
            let (address, key_id) = (author.address.map(|address| address.0), author.actor.api_key());
            tracing::info!(
                address = address.map(tracing::field::display),
                key_id = key_id.map(tracing::field::display),
                route = refusal.route,
                reason = refusal.reason.as_str(),
                count = refusal.count,
                "requests were refused for their API key"
            );
        }
        if let Err(error) = self.store.record_refusals(due.clone()).await {
            tracing::warn!(error = %Chain(&error), "cannot write refusals to the audit log; trying again in a minute");
            self.refusals.put_back(&due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use postrider_domain::caller::CallerAddress;

    use super::*;

    fn stranger(address: &str) -> Author {
        let address = Some(CallerAddress(address.parse::<IpAddr>().unwrap()));
        Author { actor: Actor::Unknown, mode: Mode::Live, request_id: None, address }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn counts(log: &RefusalLog, seconds: i64) -> Vec<u32> {
        let mut counts: Vec<u32> =
            log.take_due(at(seconds), false).iter().map(|refusal| refusal.refusal.count).collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn like_refusals_share_an_entry_a_minute() {
        let log = RefusalLog::default();
        let note = |address| log.note(None, stranger(address), "GET /v1/x", KeyRefusal::InvalidToken);
        note("192.0.2.1");
        note("2001:db8::1");
        assert_eq!(counts(&log, 0), [1, 1]);
        note("2001:db8::ffff:1");
        note("192.0.2.1");
        note("192.0.2.1");
        assert_eq!(counts(&log, 59), [0; 0]);
        assert_eq!(counts(&log, 60), [1, 2]);
        assert_eq!(counts(&log, 120), [0; 0]);
        assert!(lock(&log.kinds).is_empty(), "forgotten after a minute without a request");
        note("192.0.2.1");
        assert_eq!(counts(&log, 121), [1]);
    }

    #[test]
    fn kinds_beyond_the_limit_share_one_entry() {
        let log = RefusalLog::default();
        for n in 0..1_000_u32 {
            let address = IpAddr::from(n.to_be_bytes()).to_string();
            log.note(None, stranger(&address), "GET /v1/x", KeyRefusal::InvalidToken);
        }
        let due = log.take_due(at(0), false);
        assert_eq!(due.len(), limits::REFUSALS_PER_MINUTE + 1);
        assert_eq!(due.iter().map(|refusal| refusal.refusal.count).sum::<u32>(), 1_000);
        let shared = due.iter().find(|refusal| refusal.refusal.route.is_none()).unwrap();
        let rest = 1_000 - u32::try_from(limits::REFUSALS_PER_MINUTE).unwrap();
        assert_eq!((shared.author.address, shared.refusal.count), (None, rest));
    }

    #[test]
    fn an_entry_that_cannot_be_written_is_counted_again() {
        let log = RefusalLog::default();
        log.note(None, stranger("192.0.2.1"), "GET /v1/x", KeyRefusal::InvalidToken);
        log.put_back(&log.take_due(at(0), false));
        assert_eq!((counts(&log, 59), counts(&log, 60)), (vec![], vec![1]));
    }
}
