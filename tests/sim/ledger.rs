//! Checks the database against the model: after each life, as the next one finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use postrider_domain::attempt::{AttemptOutcome, Fault};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::id::DeliveryId;
use rusqlite::{Connection, OpenFlags, Row};

use crate::actors::is_expected;
use crate::model::{Event, Model, Seen};
use crate::options::{Feature, Mode};
use crate::script::is_test;
use crate::sim::{Sim, memory_directory};

/// The rows of a delivery.
struct Rows {
    key: i64,
    endpoint_key: i64,
    event_key: i64,
    status: DeliveryStatus,
    reason: Option<EndReason>,
    cause: DeliveryCause,
    attempts: u32,
    /// Attempts allocated, and whether one is claimed, while it is in the queue.
    due: Option<(u32, bool)>,
    log: Vec<(u32, AttemptOutcome, Option<u16>)>,
}

struct Database {
    paused: usize,
    events: BTreeMap<i64, String>,
    deliveries: Vec<Rows>,
}

fn delivery(row: &Row<'_>) -> Result<Rows, rusqlite::Error> {
    let due: Option<u32> = row.get("due_attempts")?;
    Ok(Rows {
        key: row.get("key")?,
        endpoint_key: row.get("endpoint_key")?,
        event_key: row.get("event_key")?,
        status: DeliveryStatus::from_code(row.get("status")?).expect("a status"),
        reason: row.get::<_, Option<i64>>("reason")?.map(|code| EndReason::from_code(code).expect("a reason")),
        cause: DeliveryCause::from_code(row.get("cause")?).expect("a cause"),
        attempts: row.get("attempts")?,
        due: due.zip(Some(row.get::<_, Option<i64>>("claim_token")?.is_some())),
        log: Vec::new(),
    })
}

fn read(directory: &Path) -> Result<Database, rusqlite::Error> {
    // The next life opens a copy that recovery has not touched, so this reads another one.
    let copy = memory_directory();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("postrider.db") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
        }
    }
    let connection = Connection::open_with_flags(copy.path().join("postrider.db"), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let problem: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(problem, "ok", "the database is damaged");
    let events = connection
        .prepare("SELECT key, CAST(envelope AS TEXT) FROM events")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut deliveries = connection
        .prepare(
            "SELECT deliveries.*, due.attempts AS due_attempts, due.claim_token
             FROM deliveries LEFT JOIN due ON delivery_key = deliveries.key ORDER BY deliveries.key",
        )?
        .query_map([], delivery)?
        .collect::<Result<Vec<_>, _>>()?;
    let mut log = connection
        .prepare("SELECT number, outcome, response_status FROM attempts WHERE delivery_key = ?1 ORDER BY number")?;
    for rows in &mut deliveries {
        rows.log = log
            .query_map([rows.key], |row| {
                Ok((row.get(0)?, AttemptOutcome::from_code(row.get(1)?).expect("an outcome"), row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
    }
    let queued: usize = connection.query_row("SELECT COUNT(*) FROM due", [], |row| row.get(0))?;
    let known = deliveries.iter().filter(|rows| rows.due.is_some()).count();
    assert_eq!(queued, known, "the queue holds deliveries that the log does not have");
    let paused = "SELECT COUNT(*) FROM lanes WHERE paused_since IS NOT NULL";
    let paused = connection.query_row(paused, [], |row| row.get(0))?;
    Ok(Database { paused, events, deliveries })
}

/// # Errors
/// The first promise that the database breaks. `has_ended`: the world has come to its end by a stop.
pub fn check(sim: &Sim, directory: &Path, now: Duration, has_ended: bool) -> Result<(), String> {
    let database = read(directory).map_err(|error| format!("the database cannot be read: {error}"))?;
    let mut state = sim.state();
    (0..database.paused).for_each(|_| state.tally.count("paused endpoint", &["attempt"]));
    let abandoned = database.deliveries.iter().flat_map(|rows| &rows.log);
    let abandoned = abandoned.filter(|(_, outcome, _)| *outcome == AttemptOutcome::Abandoned).count();
    (0..abandoned).for_each(|_| state.tally.count("abandoned attempt", &["attempt"]));
    let check = Check { sim, model: &state.model, database: &database, now };
    check.events()?;
    database.deliveries.iter().try_for_each(|rows| check.delivery(rows))?;
    check.arrivals()?;
    if has_ended && sim.options.mode == Mode::Liveness {
        let pending = database.deliveries.iter().filter(|rows| rows.status == DeliveryStatus::Pending).count();
        if pending > 0 {
            return Err(format!("{pending} deliveries are pending at the end"));
        }
    }
    Ok(())
}

struct Check<'c> {
    sim: &'c Sim,
    model: &'c Model,
    database: &'c Database,
    now: Duration,
}

impl Check<'_> {
    fn is_old(&self, event: &Event) -> bool {
        let retention = Duration::from_secs(self.sim.options.retention_s);
        event.acknowledged_at.is_none_or(|at| self.now >= at + retention)
    }

    /// Each acknowledged event is there with its deliveries, and none that nobody published.
    fn events(&self) -> Result<(), String> {
        let mut known = BTreeSet::new();
        for (index, event) in self.model.events.iter().enumerate() {
            let Some(key) = event.id.map(|id| id.key().as_i64()) else { continue };
            known.insert(key);
            let Some(envelope) = self.database.events.get(&key) else {
                if event.acknowledged_at.is_some() && !self.is_old(event) {
                    return Err(format!("the acknowledged {} is lost", event.marker));
                }
                continue;
            };
            let may_be_empty = event.erased.is_some() || self.sim.options.has(Feature::Payloads);
            if !(envelope.contains(&event.data) || envelope.is_empty() && may_be_empty) {
                return Err(format!("{} has another content: {envelope:?}", event.marker));
            }
            if event.acknowledged_at.is_some() {
                self.deliveries_of(index, event, key)?;
            }
        }
        let unanswered = self.model.events.iter().filter(|event| event.id.is_none());
        let unanswered: Vec<&str> = unanswered.map(|event| event.marker.as_str()).collect();
        for (key, envelope) in &self.database.events {
            let is_known = known.contains(key)
                || unanswered.iter().any(|marker| envelope.contains(marker))
                || self.is_of_test(*key)
                || envelope.is_empty();
            if !is_known {
                return Err(format!("nobody published {envelope:?}"));
            }
        }
        Ok(())
    }

    fn is_of_test(&self, event_key: i64) -> bool {
        let mut of_event = self.database.deliveries.iter().filter(|rows| rows.event_key == event_key);
        // A test's event is removed a moment after its delivery.
        of_event.all(|rows| rows.cause == DeliveryCause::Test)
    }

    fn deliveries_of(&self, index: usize, event: &Event, key: i64) -> Result<(), String> {
        for (place, endpoint) in self.model.endpoints.iter().enumerate() {
            let of = self.model.matching(event, endpoint);
            let is_this = |rows: &&Rows| {
                rows.event_key == key && rows.endpoint_key == endpoint.key && rows.cause == DeliveryCause::Event
            };
            let rows: Vec<&Rows> = self.database.deliveries.iter().filter(is_this).collect();
            if let [one] = rows[..]
                && one.status == DeliveryStatus::Skipped
                && !of.may_skip
            {
                return Err(format!("{} was skipped for the active endpoint {place}", event.marker));
            }
            if is_expected(of, rows.len()) {
                continue;
            }
            if rows.is_empty() && self.is_old(event) && self.may_have_ended(index, place) {
                continue;
            }
            return Err(format!("{} has {} deliveries to endpoint {place}, not {of:?}", event.marker, rows.len()));
        }
        Ok(())
    }

    /// Whether retention may have removed the delivery: it has ended, as far as receivers and callers know.
    fn may_have_ended(&self, event: usize, endpoint: usize) -> bool {
        let (of, to) = (&self.model.events[event], &self.model.endpoints[endpoint]);
        let is_excused = of.erased.is_some()
            || to.deleted.is_some()
            || is_test(of.owner)
            || self.model.matching(of, to).may_skip
            || self.model.released.contains(&(event, endpoint));
        let is_this = |seen: &&Seen| seen.event == Some(event) && seen.endpoint == Some(endpoint) && !seen.is_requeued;
        is_excused
            || self
                .model
                .seen
                .values()
                .filter(is_this)
                .any(|seen| seen.is_delivered() || seen.attempts.len() > self.sim.options.schedule.len())
    }

    fn delivery(&self, rows: &Rows) -> Result<(), String> {
        let fail = |problem: String| Err(format!("delivery {} ({:?}): {problem}", rows.key, rows.status));
        let numbers: Vec<u32> = rows.log.iter().map(|(number, ..)| *number).collect();
        let last = u32::try_from(numbers.len()).expect("few attempts");
        if numbers != (1..=last).collect::<Vec<_>>() {
            return fail(format!("its attempts are {numbers:?}"));
        }
        match (rows.status, rows.due) {
            (DeliveryStatus::Pending, None) => return fail("it is pending, but not in the queue".to_owned()),
            (DeliveryStatus::Pending, Some((allocated, is_claimed))) => {
                if allocated != last + u32::from(is_claimed) {
                    return fail(format!("{allocated} attempts are allocated, claimed: {is_claimed}; log {numbers:?}"));
                }
            }
            (_, Some(_)) => return fail("it has ended, but is in the queue".to_owned()),
            (_, None) if rows.attempts != last => {
                return fail(format!("it counts {} attempts, and the log has {last}", rows.attempts));
            }
            (_, None) => {}
        }
        let is_delivered = |outcome: AttemptOutcome| outcome == AttemptOutcome::Delivered;
        let delivered = rows.log.iter().filter(|(_, outcome, _)| is_delivered(*outcome)).count();
        let ends_delivered = rows.log.last().is_some_and(|(_, outcome, _)| is_delivered(*outcome));
        if delivered != usize::from(rows.status == DeliveryStatus::Delivered) || (delivered == 1 && !ends_delivered) {
            return fail(format!("its attempts are {:?}", rows.log));
        }
        let failed = rows.log.iter().filter(|(_, outcome, _)| outcome.fault() == Fault::Receiver).count();
        let steps = self.sim.options.schedule.len();
        let is_exhausted = rows.reason == Some(EndReason::Exhausted);
        if is_exhausted && rows.cause != DeliveryCause::Test && failed < steps + 1 {
            return fail(format!("it is exhausted after {failed} failed attempts of {}", steps + 1));
        }
        Ok(())
    }

    /// Each attempt that a receiver saw is known, and its outcome is what the receiver answered.
    fn arrivals(&self) -> Result<(), String> {
        let by_key: BTreeMap<i64, &Rows> = self.database.deliveries.iter().map(|rows| (rows.key, rows)).collect();
        for (id, seen) in &self.model.seen {
            let key = id.parse::<DeliveryId>().expect("checked").key().as_i64();
            let Some(rows) = by_key.get(&key) else {
                let is_old = seen.event.is_none_or(|event| self.is_old(&self.model.events[event]));
                if is_old || seen.is_requeued {
                    continue;
                }
                return Err(format!("{id} was sent, but is not in the database"));
            };
            let allocated = rows.due.map_or(rows.attempts, |(allocated, _)| allocated);
            for (number, answered) in &seen.attempts {
                if *number > allocated {
                    return Err(format!("attempt {number} of {id} was sent, but {allocated} are allocated"));
                }
                let logged = rows.log.iter().find(|(each, ..)| each == number);
                let Some((_, outcome, status)) = logged else { continue };
                if *outcome != AttemptOutcome::Abandoned && status != answered {
                    return Err(format!("attempt {number} of {id} was answered {answered:?}, and logged {status:?}"));
                }
            }
        }
        for rows in &self.database.deliveries {
            for (number, outcome, _) in &rows.log {
                let is_sent = outcome.fault() == Fault::Receiver || *outcome == AttemptOutcome::Delivered;
                let seen = || {
                    let of = self
                        .model
                        .seen
                        .iter()
                        .find(|(id, _)| id.parse::<DeliveryId>().is_ok_and(|id| id.key().as_i64() == rows.key));
                    of.is_some_and(|(_, seen)| seen.attempts.iter().any(|(each, _)| each == number))
                };
                if is_sent && !seen() {
                    return Err(format!("attempt {number} of delivery {} is logged, but never arrived", rows.key));
                }
            }
        }
        Ok(())
    }
}
