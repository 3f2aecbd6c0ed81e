//! Replays by filter: which rows they repeat, and what one step does with the rows that it found.
//!
//! One walk goes over the deliveries of all endpoints, the oldest first. An endpoint that is busy or off must not hold
//! up the others. So the walk leaves it behind: the endpoint gets a walk of its own, which follows when it has room and
//! ends where the first walk is.

use std::collections::HashSet;

use postrider_domain::delivery::{DeliveryCause, DeliveryFilter, DeliveryStatus};
use postrider_domain::id::RowKey;
use postrider_domain::replay::ReplayCount;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::UnexpectedValue;
use crate::log::last_attempt::{is_answer, last_outcome, last_response};
use crate::publish::requeue::Requeue;
use crate::replay::{Candidate, QUEUED_PER_STEP, Verdict};

/// The deliveries of a replay by filter.
#[derive(Clone, Debug)]
pub struct FilterScope {
    pub tenant: Tenant,
    /// Made by [`replayable`](postrider_domain::replay::replayable).
    pub filter: DeliveryFilter,
    /// When the replay was asked for. What ended later is not repeated.
    pub asked_at: Timestamp,
}

impl FilterScope {
    /// The first key that is too new.
    pub fn before(&self) -> RowKey {
        RowKey::first_at(self.filter.until.unwrap_or(self.asked_at).min(self.asked_at))
    }

    /// What a row `d` of `deliveries` that passes the filter must also fulfil, in words that both databases accept: it
    /// is no test, it had ended, and no later delivery of the event to the endpoint has been repeated instead, will be,
    /// or has arrived.
    pub fn is_last(&self) -> String {
        let test = DeliveryCause::Test.code();
        let [pending, delivered] = [DeliveryStatus::Pending, DeliveryStatus::Delivered].map(DeliveryStatus::code);
        let (asked_at, before) = (self.asked_at.millis(), self.before().as_i64());
        // `+ 0` keeps the planner from the index by endpoint: an endpoint has many later deliveries, an event few.
        format!(
            "d.cause + 0 <> {test} AND d.completed_at <= {asked_at} AND NOT EXISTS (
                 SELECT 1 FROM deliveries later
                 WHERE later.event_key = d.event_key AND later.endpoint_key + 0 = d.endpoint_key AND later.key > d.key
                   AND later.mode + 0 = d.mode AND later.cause + 0 <> {test}
                   AND (later.status IN ({pending}, {delivered})
                        OR (later.key < {before} AND later.completed_at <= {asked_at} AND {})))",
            self.passes("later")
        )
    }

    /// The filter's conditions on a row alone: its event and its endpoint are known to pass.
    fn passes(&self, row: &str) -> String {
        let DeliveryFilter { statuses, causes, outcomes, response_statuses, .. } = &self.filter;
        let mut conditions = Vec::new();
        let mut add = |expression: &str, codes: Vec<i64>| {
            let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
            if !codes.is_empty() {
                conditions.push(format!("{expression} IN ({})", codes.join(", ")));
            }
        };
        add(&format!("{row}.status"), statuses.iter().map(|status| status.code()).collect());
        add(&format!("{row}.cause"), causes.iter().map(|cause| cause.code()).collect());
        add(&last_outcome(row), outcomes.iter().map(|outcome| outcome.code()).collect());
        conditions.extend(is_answer(&last_response(row), response_statuses));
        conditions.join(" AND ")
    }
}

/// The rows that one read of the walk found, the oldest first.
pub struct Found {
    pub rows: Vec<Candidate>,
    /// The walk has looked at everything up to this key.
    pub to: RowKey,
}

impl Found {
    /// Counts the rows, and returns where the next read begins.
    pub fn counted(&self, scope: &FilterScope) -> (ReplayCount, Option<RowKey>) {
        let unavailable = self.rows.iter().filter(|row| row.verdict == Verdict::Unavailable).count() as u64;
        let count = ReplayCount { total: self.rows.len() as u64, unavailable, counted_to: None };
        (count, Some(self.to).filter(|to| to.as_i64() + 1 < scope.before().as_i64()))
    }
}

/// Endpoints that a walk leaves behind at most. A further one holds it up.
const BEHIND_MAX: usize = 64;
/// Endpoints left behind that go on in one step.
pub const FOLLOWING_PER_STEP: usize = 8;
/// Deliveries that endpoints left behind queue in one step. The rest of [`QUEUED_PER_STEP`] is for the walk.
pub const FOLLOWING_QUEUED_PER_STEP: usize = QUEUED_PER_STEP / 2;

/// The endpoints that a walk has left behind, each with the key after which it goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftBehind(pub Vec<(RowKey, RowKey)>);

impl LeftBehind {
    pub fn to_text(&self) -> Option<String> {
        let text: Vec<String> =
            self.0.iter().map(|(endpoint, after)| format!("{}:{}", endpoint.as_i64(), after.as_i64())).collect();
        (!text.is_empty()).then(|| text.join(" "))
    }

    /// # Errors
    /// When the text is not one that [`Self::to_text`] makes.
    pub fn from_text(text: Option<&str>) -> Result<Self, UnexpectedValue> {
        let pair = |text: &str| {
            let (endpoint, after) = text.split_once(':')?;
            Some((RowKey::from_i64(endpoint.parse().ok()?), RowKey::from_i64(after.parse().ok()?)))
        };
        let pairs = text.into_iter().flat_map(|text| text.split(' '));
        pairs.map(pair).collect::<Option<_>>().map(Self).ok_or(UnexpectedValue("replays.left_behind"))
    }

    fn contains(&self, endpoint: RowKey) -> bool {
        self.0.iter().any(|(left, _)| *left == endpoint)
    }
}

/// A running replay by filter.
pub struct RunningFilterReplay {
    pub key: RowKey,
    pub scope: FilterScope,
    pub cursor: RowKey,
    pub left_behind: LeftBehind,
    /// Its workspace is deleted.
    pub is_orphan: bool,
}

/// What a step does with the rows that were found.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Positions of the rows to queue.
    pub queued: Vec<usize>,
    pub unavailable: u64,
    /// Everything up to this key has been dealt with, apart from endpoints left behind.
    pub to: RowKey,
}

impl RunningFilterReplay {
    pub fn requeue(&self, row: &Candidate) -> Requeue {
        let Tenant { workspace, mode, .. } = self.scope.tenant;
        Requeue {
            // Whose log it is was decided when the candidates were read.
            tenant: Tenant::whole(workspace, mode),
            endpoint_key: row.endpoint_key,
            event_key: row.event_key,
            cause: DeliveryCause::Replay,
            retry_of: Some(row.key),
            waits_while_off: true,
        }
    }

    /// Plans the next step of the walk, and leaves busy endpoints behind. `ready` are the endpoints with room.
    pub fn plan(&mut self, found: &Found, ready: &HashSet<RowKey>, room: usize) -> Plan {
        let mut plan = Plan { queued: Vec::new(), unavailable: 0, to: found.to };
        for (position, row) in found.rows.iter().enumerate() {
            if self.left_behind.contains(row.endpoint_key) {
                continue;
            }
            match row.verdict {
                Verdict::Ignored => {}
                Verdict::Unavailable => plan.unavailable += 1,
                Verdict::Sent if !ready.contains(&row.endpoint_key) && self.left_behind.0.len() < BEHIND_MAX => {
                    self.left_behind.0.push((row.endpoint_key, key_before(row.key)));
                }
                Verdict::Sent if ready.contains(&row.endpoint_key) && plan.queued.len() < room => {
                    plan.queued.push(position);
                }
                Verdict::Sent => {
                    plan.to = key_before(row.key);
                    break;
                }
            }
        }
        self.cursor = plan.to;
        plan
    }

    /// Plans the next step of an endpoint that was left behind and has room. It has caught up when it reaches the walk.
    pub fn plan_following(&mut self, endpoint: RowKey, found: &Found, room: usize) -> Plan {
        let mut plan = Plan { queued: Vec::new(), unavailable: 0, to: found.to };
        for (position, row) in found.rows.iter().enumerate() {
            match row.verdict {
                Verdict::Ignored => {}
                Verdict::Unavailable => plan.unavailable += 1,
                Verdict::Sent if plan.queued.len() < room => plan.queued.push(position),
                Verdict::Sent => {
                    plan.to = key_before(row.key);
                    break;
                }
            }
        }
        // At the end of the list, so that each has its turn.
        self.left_behind.0.retain(|(left, _)| *left != endpoint);
        if plan.to < self.cursor {
            self.left_behind.0.push((endpoint, plan.to));
        }
        plan
    }

    pub fn is_complete(&self) -> bool {
        self.left_behind.0.is_empty() && self.cursor.as_i64() + 1 >= self.scope.before().as_i64()
    }
}

fn key_before(key: RowKey) -> RowKey {
    RowKey::from_i64(key.as_i64() - 1)
}

/// The stored form of a filter.
///
/// # Errors
/// When the text is no filter.
pub fn filter_from_text(text: &str) -> Result<DeliveryFilter, UnexpectedValue> {
    serde_json::from_str(text).map_err(|_| UnexpectedValue("replays.filter"))
}

pub fn filter_to_text(filter: &DeliveryFilter) -> String {
    serde_json::json!(filter).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::mode::Mode;

    fn key(number: i64) -> RowKey {
        RowKey::from_i64(number)
    }

    /// A job over the keys below that of the instant 1 ms.
    fn job() -> RunningFilterReplay {
        let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Failed], ..DeliveryFilter::default() };
        let scope =
            FilterScope { tenant: Tenant::whole(key(1), Mode::Live), filter, asked_at: Timestamp::from_millis(1) };
        RunningFilterReplay { key: key(9), scope, cursor: key(0), left_behind: LeftBehind::default(), is_orphan: false }
    }

    /// Rows with the keys 1, 2, 3…, each to one of these endpoints.
    fn found(endpoints: impl IntoIterator<Item = i64>) -> Found {
        let row = |(at, endpoint)| Candidate {
            key: key(at),
            endpoint_key: key(endpoint),
            event_key: key(at),
            verdict: Verdict::Sent,
        };
        let rows: Vec<Candidate> = (1..).zip(endpoints).map(row).collect();
        Found { to: key(100), rows }
    }

    #[test]
    fn a_busy_endpoint_is_left_behind_until_it_has_caught_up() {
        let (mut job, found) = (job(), found([7, 8, 7, 8]));
        let plan = job.plan(&found, &HashSet::from([key(8)]), 10);
        assert_eq!((plan.queued, job.cursor), (vec![1, 3], key(100)));
        assert_eq!(job.left_behind, LeftBehind(vec![(key(7), key(0))]));
        let plan = job.plan(&found, &HashSet::from([key(7), key(8)]), 10);
        assert_eq!(plan.queued, [1, 3], "the endpoint that was left behind has a walk of its own");
        let follows = |job: &mut RunningFilterReplay, room| {
            let rows = self::found([7, 7]).rows;
            job.plan_following(key(7), &Found { rows, to: key(100) }, room).queued.len()
        };
        assert_eq!((follows(&mut job, 1), job.left_behind.clone()), (1, LeftBehind(vec![(key(7), key(1))])));
        assert_eq!((follows(&mut job, 10), job.left_behind.clone()), (2, LeftBehind::default()));
    }

    #[test]
    fn a_walk_stops_before_what_would_be_one_too_many() {
        let mut job = job();
        let plan = job.plan(&found([7, 7, 7]), &HashSet::from([key(7)]), 2);
        assert_eq!((plan.queued, plan.to), (vec![0, 1], key(2)));
        let many = i64::try_from(BEHIND_MAX).unwrap();
        let plan = self::job().plan(&found(1..=many + 1), &HashSet::new(), 2);
        assert_eq!(plan.to, key(many), "one endpoint too many to leave behind");
    }

    #[test]
    fn a_walk_is_complete_at_its_end_when_nothing_is_left_behind() {
        let mut job = job();
        job.cursor = RowKey::from_i64(job.scope.before().as_i64() - 1);
        assert!(job.is_complete());
        job.left_behind.0.push((key(7), key(0)));
        assert!(!job.is_complete());
    }

    #[test]
    fn the_left_behind_and_the_filter_read_back_as_stored() {
        let left = LeftBehind(vec![(key(7), key(-1)), (key(8), key(5))]);
        assert_eq!(LeftBehind::from_text(left.to_text().as_deref()).unwrap(), left);
        assert_eq!(LeftBehind::from_text(None).unwrap(), LeftBehind::default());
        assert!(LeftBehind::from_text(Some("7")).is_err() && LeftBehind::from_text(Some("")).is_err());
        let filter = job().scope.filter;
        assert_eq!(filter_from_text(&filter_to_text(&filter)).unwrap(), filter);
        assert!(filter_from_text("{\"state\":\"failed\"}").is_err());
    }
}
