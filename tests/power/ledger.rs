//! What callers were promised, and the checks that a database and its receivers keep it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::str::FromStr;

use futures_util::FutureExt;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::chance::mix;
use crate::support::receiver::Received;
use crate::support::rollups::{LogDatabase, assert_rollups_are_true};

/// Acknowledged effects. An effect without an answer may hold or not.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The key that all callers use.
    pub key: Option<String>,
    pub endpoint: Option<String>,
    /// The secrets of the endpoint that are known, the newest last.
    pub secrets: Vec<String>,
    /// The last rotation had no answer. Its secret is unknown.
    pub rotation_unanswered: bool,
    /// All such rotations.
    pub rotations_unanswered: usize,
    /// The event id of each acknowledged `externalId`.
    pub events: BTreeMap<String, String>,
    /// What was sent and has no answer, to be sent again.
    pub unanswered: Vec<String>,
    pub published: usize,
    /// The name of the endpoint that was acknowledged last, and those sent after it.
    pub name: String,
    pub names_unanswered: Vec<String>,
    /// API keys by id, and whether their revocation was acknowledged; none if it has no answer.
    pub keys: BTreeMap<String, (String, Option<bool>)>,
    pub replays: BTreeSet<String>,
    /// Events that the database had before the first start.
    pub old_events: usize,
    /// The events carry so many bytes.
    pub large: bool,
}

/// A broken promise.
struct Violation(String);

impl From<rusqlite::Error> for Violation {
    fn from(error: rusqlite::Error) -> Self {
        Self(format!("the database cannot be read: {error}"))
    }
}

/// The data of an event, which follows from its `externalId`.
pub fn data_of(external_id: &str, large: bool) -> Value {
    let salt = external_id.bytes().fold(7_u64, |salt, byte| mix(salt ^ u64::from(byte)));
    let lines = if large { 1800 + salt % 1000 } else { salt % 40 };
    let filler: String = (0..lines).map(|line| format!("{:016x}{salt:016x}{:016x}", line, mix(salt ^ line))).collect();
    json!({ "order": external_id, "filler": filler })
}

/// Fails the world when a condition does not hold.
macro_rules! must {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use must;

impl Ledger {
    /// The events to send next, those without an answer first.
    pub fn next_events(&mut self, count: usize) -> Vec<String> {
        let mut next = Vec::new();
        while next.len() < count {
            let id = self.unanswered.pop().unwrap_or_else(|| {
                self.published += 1;
                format!("order-{}", self.published)
            });
            next.push(id);
        }
        next
    }

    /// # Errors
    /// When the answers give another id than before.
    pub fn acknowledge(&mut self, external_id: &str, event: String) -> Result<(), String> {
        let before = self.events.insert(external_id.to_owned(), event.clone());
        must!(before.as_ref().is_none_or(|before| *before == event), "{external_id} was {before:?} and is {event}");
        Ok(())
    }

    /// Checks a database that no process has open. Works on a copy, so that it recovers nothing for the server.
    ///
    /// # Errors
    /// The first promise that it breaks.
    pub fn check_database(&self, data_dir: &Path, received: &[Received]) -> Result<(), String> {
        let copy = tempfile::tempdir().expect("a temporary directory");
        for name in ["postrider.db", "postrider.db-wal", "postrider.db-journal"] {
            let from = data_dir.join(name);
            if from.exists() {
                std::fs::copy(from, copy.path().join(name)).expect("a file that can be copied");
            }
        }
        let path = copy.path().join("postrider.db");
        let is_new = !std::fs::metadata(&path).is_ok_and(|found| found.len() > 0);
        if is_new {
            must!(self.key.is_none() && self.old_events == 0, "the database is gone");
            return Ok(());
        }
        let database = Connection::open(path).map_err(|error| error.to_string())?;
        self.check_tables(&database, received).map_err(|Violation(text)| text)
    }

    fn check_tables(&self, database: &Connection, received: &[Received]) -> Result<(), Violation> {
        let integrity: String = database.query_row("PRAGMA integrity_check(3)", [], |row| row.get(0))?;
        if integrity != "ok" {
            return Err(Violation(format!("integrity_check: {integrity}")));
        }
        if self.old_events > 0 {
            let old: usize =
                database
                    .query_row("SELECT COUNT(*) FROM events WHERE external_id LIKE 'old-%'", [], |row| row.get(0))?;
            if old != self.old_events {
                return Err(Violation(format!("{old} events of the old schema; there were {}", self.old_events)));
            }
        }
        // A crash of the first start or of an upgrade may leave an earlier schema, with nothing acknowledged.
        if self.key.is_none() {
            return Ok(());
        }
        for (what, sql) in BROKEN_ROWS {
            let broken: usize = database.query_row(&format!("SELECT COUNT(*) FROM ({sql})"), [], |row| row.get(0))?;
            if broken > 0 {
                return Err(Violation(format!("{broken} times {what}")));
            }
        }
        if self.old_events == 0 {
            let database = LogDatabase::Sqlite(database);
            assert_rollups_are_true(&database).now_or_never().expect("SQLite answers at once");
        }
        self.check_registry(database)?;
        self.check_log(database, received)
    }

    fn check_registry(&self, database: &Connection) -> Result<(), Violation> {
        for (id, (_, revoked)) in &self.keys {
            let sql = "SELECT MAX(revoked_at IS NOT NULL) FROM api_keys WHERE id = ?1";
            let found: Option<bool> = database.query_row(sql, [id], |row| row.get(0))?;
            match (found, revoked) {
                (None, _) => return Err(Violation(format!("the API key {id} is gone"))),
                (Some(is), Some(was)) if is != *was => {
                    return Err(Violation(format!("the API key {id} is revoked: {is}; acknowledged: {was}")));
                }
                _ => {}
            }
        }
        if let Some(endpoint) = &self.endpoint {
            let sql = "SELECT name, secret_last4 FROM endpoints WHERE id = ?1 AND deleted_at IS NULL";
            let (name, last4): (String, String) =
                database.query_row(sql, [endpoint], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if name != self.name && !self.names_unanswered.contains(&name) {
                return Err(Violation(format!("the endpoint is named {name:?}; acknowledged: {:?}", self.name)));
            }
            let newest = self.secrets.last().expect("an endpoint has a secret");
            if !self.rotation_unanswered && !newest.ends_with(&last4) {
                return Err(Violation(format!("the secret ends in {last4}; a rotation was lost")));
            }
        }
        Ok(())
    }

    fn check_log(&self, database: &Connection, received: &[Received]) -> Result<(), Violation> {
        let tag: Vec<u8> =
            database.query_row("SELECT value FROM meta WHERE name = 'store_tag'", [], |row| row.get(0))?;
        let tag = StoreTag::from_u32(u32::from_be_bytes(tag.try_into().expect("4 bytes")));
        let mut stored = HashMap::new();
        let mut rows =
            database.prepare("SELECT external_id, key, envelope FROM events WHERE external_id IS NOT NULL")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (external_id, key): (String, i64) = (row.get(0)?, row.get(1)?);
            let id = EventId::new(RowKey::from_i64(key), tag).to_string();
            let envelope: Value = serde_json::from_slice(&row.get::<_, Vec<u8>>(2)?).unwrap_or_default();
            if external_id.starts_with("order-") {
                if envelope["id"] != id || envelope["data"] != data_of(&external_id, self.large) {
                    return Err(Violation(format!("the event {external_id} holds something else: {envelope}")));
                }
                if stored.insert(external_id.clone(), id).is_some() {
                    return Err(Violation(format!("{external_id} was accepted twice")));
                }
            }
        }
        for (external_id, event) in &self.events {
            if stored.get(external_id) != Some(event) {
                let found = stored.get(external_id);
                return Err(Violation(format!("{external_id} was acknowledged as {event} and is {found:?}")));
            }
        }
        for request in received {
            check_received(database, &stored, request)?;
        }
        Ok(())
    }
}

/// Nothing arrived that the database does not know, with its attempt.
fn check_received(
    database: &Connection,
    stored: &HashMap<String, String>,
    request: &Received,
) -> Result<(), Violation> {
    let (delivery, attempt) = attempt_of(request);
    let Some(order) = order_of(request) else { return Ok(()) };
    let event = request.header("webhook-id").unwrap_or_default();
    if stored.get(&order).map(String::as_str) != Some(event) {
        return Err(Violation(format!("{order} arrived as {event} and is {:?}", stored.get(&order))));
    }
    let key = DeliveryId::from_str(&delivery).expect("the id of a delivery").key().as_i64();
    let sql = "SELECT MAX(attempts, COALESCE((SELECT attempts FROM due WHERE delivery_key = key), 0))
               FROM deliveries WHERE key = ?1";
    let made: Option<u64> = match database.query_row(sql, [key], |row| row.get(0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => None,
        other => Some(other?),
    };
    if made.is_none_or(|made| made < attempt) {
        return Err(Violation(format!("attempt {attempt} of {delivery} arrived, and the database knows of {made:?}")));
    }
    Ok(())
}

/// The `externalId` of the event, unless it is none of ours.
pub fn order_of(request: &Received) -> Option<String> {
    request.json()["data"]["order"].as_str().map(str::to_owned)
}

pub fn attempt_of(request: &Received) -> (String, u64) {
    let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
    (header("scripe-delivery-id"), header("scripe-delivery-attempt").parse().expect("the number of an attempt"))
}

/// Statements that select rows which must not exist.
const BROKEN_ROWS: &[(&str, &str)] = &[
    ("a reference leads nowhere", "SELECT * FROM pragma_foreign_key_check"),
    (
        "the attempts of a delivery have a gap",
        "SELECT delivery_key FROM attempts GROUP BY delivery_key HAVING COUNT(*) <> MAX(number)",
    ),
    (
        "a pending delivery is not in the queue",
        "SELECT key FROM deliveries WHERE status = 0 AND key NOT IN (SELECT delivery_key FROM due)",
    ),
    (
        "the queue holds a delivery that has ended",
        "SELECT delivery_key FROM due WHERE delivery_key NOT IN (SELECT key FROM deliveries WHERE status = 0)",
    ),
    ("the queue has no lane", "SELECT lane_key FROM due WHERE lane_key NOT IN (SELECT lane_key FROM lanes)"),
    (
        "an event lacks a delivery",
        "SELECT key FROM events e WHERE deliveries <> (SELECT COUNT(*) FROM deliveries d WHERE d.event_key = e.key
                                                       AND d.retry_of IS NULL AND d.cause = 0)",
    ),
    (
        "an attempt belongs to no delivery",
        "SELECT 1 FROM attempts WHERE delivery_key NOT IN (SELECT key FROM deliveries)",
    ),
    (
        "an event belongs to no workspace",
        "SELECT 1 FROM events WHERE workspace_key NOT IN (SELECT key FROM workspaces)",
    ),
];
