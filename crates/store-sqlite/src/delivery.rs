//! The delivery log: what became of each delivery, and its attempts.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use postrider_domain::access::Mode;
use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases};
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::time::Timestamp;
use postrider_store::{EndpointTarget, Lane};

use super::column::{coded, parsed, unexpected};
use super::due;
use super::order::{NOT_YET, OrderPlacement};
use super::writer::WriteTx;
use postrider_store::column::{headers_from_text, headers_to_text, mode_code, mode_from_code};

/// A delivery to be made.
pub struct NewDelivery {
    pub key: RowKey,
    pub lane: Lane,
    pub event_key: RowKey,
    pub mode: Mode,
    pub cause: DeliveryCause,
    pub retry_of: Option<RowKey>,
    /// Set when the endpoint is off: then the delivery is over before it began.
    pub skipped: Option<EndReason>,
    pub standing: OrderPlacement,
    /// It is queued although its endpoint is off, and waits until that is on.
    pub is_held: bool,
}

/// Writes a delivery to the log, and to the queue unless it is skipped. `payload` are the bytes of an event that is being
/// accepted.
pub fn insert(
    tx: &mut WriteTx<'_>,
    new: &NewDelivery,
    target: &Arc<EndpointTarget>,
    overlap: Option<SecretVersion>,
    payload: Option<&Bytes>,
) -> Result<(), rusqlite::Error> {
    let status = if new.skipped.is_some() { DeliveryStatus::Skipped } else { DeliveryStatus::Pending };
    tx.connection
        .prepare_cached(
            "INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, reason, cause, retry_of,
                                     completed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            new.key.as_i64(),
            new.lane.workspace_key.as_i64(),
            new.lane.endpoint_key.as_i64(),
            new.event_key.as_i64(),
            mode_code(new.mode),
            status.code(),
            new.skipped.map(EndReason::code),
            new.cause.code(),
            new.retry_of.map(RowKey::as_i64),
            new.skipped.map(|_| tx.now.millis()),
        ])?;
    if new.skipped.is_some() {
        return Ok(());
    }
    due::enqueue(tx, new, target, overlap, payload)
}

pub fn finish(
    tx: &WriteTx<'_>,
    key: RowKey,
    status: DeliveryStatus,
    reason: Option<EndReason>,
    attempts: u32,
) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "UPDATE deliveries SET status = ?2, reason = ?3, attempts = ?4, completed_at = ?5 WHERE key = ?1",
        )?
        .execute(params![key.as_i64(), status.code(), reason.map(EndReason::code), attempts, tx.now.millis()])?;
    Ok(())
}

pub fn insert_attempt(tx: &WriteTx<'_>, delivery_key: RowKey, attempt: &Attempt) -> Result<(), rusqlite::Error> {
    let phases = attempt.phases.unwrap_or_default();
    tx.connection
        .prepare_cached(
            "INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome, request_headers,
                                   response_status, response_headers, response_body, error, next_attempt_at,
                                   dns_ms, connect_ms, tls_ms, first_byte_ms, connection_reused)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            delivery_key.as_i64(),
            attempt.number,
            attempt.started_at.millis(),
            attempt.duration_ms,
            attempt.outcome.code(),
            headers_to_text(&attempt.request_headers),
            attempt.response_status,
            headers_to_text(&attempt.response_headers),
            attempt.response_body.as_deref(),
            attempt.error,
            attempt.next_attempt_at.map(Timestamp::millis),
            phases.dns_ms,
            phases.connect_ms,
            phases.tls_ms,
            phases.first_byte_ms,
            attempt.phases.map(|phases| phases.connection_reused),
        ])?;
    Ok(())
}

const DELIVERY_COLUMNS: &str =
    "SELECT d.key, d.event_key, e.type, ep.id AS endpoint_id, e.project_id, d.mode, d.status, d.reason, d.cause,
            d.retry_of, COALESCE(q.attempts, d.attempts) AS attempts, d.completed_at, q.due_at, q.claim_token,
            EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = d.key) AS is_blocking";

const DELIVERY_TABLES: &str = "FROM deliveries d
     JOIN events e ON e.key = d.event_key
     JOIN endpoints ep ON ep.key = d.endpoint_key
     LEFT JOIN due q ON q.delivery_key = d.key";

fn delivery_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Delivery, rusqlite::Error> {
    let claimed = row.get::<_, Option<i64>>("claim_token")?.is_some();
    let due_at = row.get::<_, Option<i64>>("due_at")?.map(Timestamp::from_millis);
    Ok(Delivery {
        id: DeliveryId::new(RowKey::from_i64(row.get("key")?), tag),
        event_id: EventId::new(RowKey::from_i64(row.get("event_key")?), tag),
        event_type: EventTypeName::from_stored(row.get_ref("type")?.as_str()?),
        endpoint_id: parsed(row, "endpoint_id")?,
        project_id: row.get("project_id")?,
        mode: coded(row, "mode", mode_from_code)?,
        status: coded(row, "status", DeliveryStatus::from_code)?,
        reason: row
            .get::<_, Option<i64>>("reason")?
            .map(|code| EndReason::from_code(code).ok_or_else(|| unexpected("deliveries.reason")))
            .transpose()?,
        cause: coded(row, "cause", DeliveryCause::from_code)?,
        retry_of: row.get::<_, Option<i64>>("retry_of")?.map(|key| DeliveryId::new(RowKey::from_i64(key), tag)),
        attempt_count: row.get("attempts")?,
        next_attempt_at: due_at.filter(|at| !claimed && *at != NOT_YET),
        completed_at: row.get::<_, Option<i64>>("completed_at")?.map(Timestamp::from_millis),
        is_blocking: row.get("is_blocking")?,
    })
}

/// A page of the log. A filter that passes few rows would walk a large log from end to end, so such a walk is cut after a
/// number of rows; the page then says where to go on, however little it holds.
pub fn list(
    connection: &Connection,
    tag: StoreTag,
    workspace_key: RowKey,
    filter: &DeliveryFilter,
    page: PageRequest,
) -> Result<Page<Delivery>, rusqlite::Error> {
    let before = filter.until.map_or(page.before(), |until| page.before().min(RowKey::first_at(until)));
    let since = filter.since.map_or(i64::MIN, |since| RowKey::first_at(since).as_i64());
    let walk = Walk::of(filter);
    let cut = walk.cut(connection, workspace_key, filter, since, before)?;
    let mut conditions = Conditions::default();
    conditions.and("d.workspace_key = ?", workspace_key.as_i64());
    conditions.and(&format!("{} < ?", walk.key()), before.as_i64());
    conditions.and(&format!("{} >= ?", walk.key()), cut.map_or(since, RowKey::as_i64));
    if let Some(endpoint) = filter.endpoint_id {
        conditions.and(ENDPOINT_IS, endpoint.to_string());
    }
    if let Some(event) = filter.event_id {
        // An id from another store names no event here.
        let key = if event.tag() == tag { event.key().as_i64() } else { -1 };
        conditions.and("d.event_key = ?", key);
    }
    if let Some(event_type) = &filter.event_type {
        conditions.and("e.type = ?", event_type.as_str().to_owned());
    }
    if let Some(status) = filter.status {
        // As a number in the text, so that SQLite sees which index fits.
        conditions.and_text(&format!("d.status = {}", status.code()));
    }
    let Conditions { text, mut values } = conditions;
    let sql = format!("{DELIVERY_COLUMNS} {} WHERE {text} ORDER BY {} DESC LIMIT ?", walk.tables(), walk.key());
    values.push(Box::new(i64::from(page.limit()) + 1));
    let items = connection
        .prepare_cached(&sql)?
        .query_map(rusqlite::params_from_iter(values), |row| delivery_from_row(row, tag))?
        .collect::<Result<Vec<_>, _>>()?;
    let page = page.cut(items, |delivery| delivery.id.key());
    Ok(Page { next: page.next.or(cut), ..page })
}

const ENDPOINT_IS: &str = "d.endpoint_key = (SELECT key FROM endpoints WHERE id = ?)";

/// Conditions of a query and their values.
#[derive(Default)]
struct Conditions {
    text: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Conditions {
    fn and(&mut self, condition: &str, value: impl ToSql + 'static) {
        self.and_text(condition);
        self.values.push(Box::new(value));
    }

    fn and_text(&mut self, condition: &str) {
        let separator = if self.text.is_empty() { "" } else { " AND " };
        let _ = write!(self.text, "{separator}{condition}");
    }
}

/// The order in which a page looks for its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    OfEvent,
    /// What is pending lies in the queue, which is short even when the log is long.
    Queue,
    Unusual,
    OfEndpoint,
    OfWorkspace,
}

impl Walk {
    fn of(filter: &DeliveryFilter) -> Self {
        match filter {
            DeliveryFilter { event_id: Some(_), .. } => Self::OfEvent,
            DeliveryFilter { status: Some(DeliveryStatus::Pending), .. } => Self::Queue,
            DeliveryFilter { status: Some(status), .. } if *status != DeliveryStatus::Delivered => Self::Unusual,
            DeliveryFilter { endpoint_id: Some(_), .. } => Self::OfEndpoint,
            _ => Self::OfWorkspace,
        }
    }

    /// The tables of the page, with the index told: the planner knows no sizes and might choose to walk another way.
    fn tables(self) -> String {
        let (first, queue) = match self {
            Self::Queue => ("due q CROSS JOIN deliveries d ON d.key = q.delivery_key".to_owned(), ""),
            _ => (format!("deliveries d INDEXED BY {}", self.index()), " LEFT JOIN due q ON q.delivery_key = d.key"),
        };
        format!("FROM {first} JOIN events e ON e.key = d.event_key JOIN endpoints ep ON ep.key = d.endpoint_key{queue}")
    }

    const fn index(self) -> &'static str {
        match self {
            Self::OfEvent => "deliveries_by_event",
            Self::Queue => "",
            Self::Unusual => "deliveries_unusual",
            Self::OfEndpoint => "deliveries_by_endpoint",
            Self::OfWorkspace => "deliveries_by_workspace",
        }
    }

    const fn key(self) -> &'static str {
        if matches!(self, Self::Queue) { "q.delivery_key" } else { "d.key" }
    }

    /// Whether the filter may pass over rows of this walk.
    fn is_sparse(self, filter: &DeliveryFilter) -> bool {
        let (by_type, by_status) = (filter.event_type.is_some(), filter.status.is_some());
        match self {
            Self::OfEvent => false,
            Self::Queue => true,
            Self::Unusual => by_type || filter.endpoint_id.is_some(),
            Self::OfEndpoint | Self::OfWorkspace => by_type || by_status,
        }
    }

    /// The oldest row that this page looks at, if there are more behind it.
    fn cut(
        self,
        connection: &Connection,
        workspace_key: RowKey,
        filter: &DeliveryFilter,
        since: i64,
        before: RowKey,
    ) -> Result<Option<RowKey>, rusqlite::Error> {
        if !self.is_sparse(filter) {
            return Ok(None);
        }
        let mut conditions = Conditions::default();
        conditions.and(&format!("{} >= ?", self.key()), since);
        conditions.and(&format!("{} < ?", self.key()), before.as_i64());
        let table = match self {
            Self::Queue => "due q".to_owned(),
            _ => format!("deliveries d INDEXED BY {}", self.index()),
        };
        match (self, filter) {
            (Self::Unusual, DeliveryFilter { status: Some(status), .. }) => {
                conditions.and_text(&format!("d.status = {}", status.code()));
                conditions.and("d.workspace_key = ?", workspace_key.as_i64());
            }
            (Self::OfEndpoint, DeliveryFilter { endpoint_id: Some(endpoint), .. }) => {
                conditions.and(ENDPOINT_IS, endpoint.to_string());
            }
            (Self::Queue, _) => {}
            _ => conditions.and("d.workspace_key = ?", workspace_key.as_i64()),
        }
        let Conditions { text, mut values } = conditions;
        values.push(Box::new(limits::LOG_ROWS_PER_PAGE));
        let key = self.key();
        connection
            .prepare_cached(&format!("SELECT {key} FROM {table} WHERE {text} ORDER BY {key} DESC LIMIT 1 OFFSET ?"))?
            .query_row(rusqlite::params_from_iter(values), |row| Ok(RowKey::from_i64(row.get(0)?)))
            .optional()
    }
}

/// One delivery without its attempts.
pub fn find_one(
    connection: &Connection,
    tag: StoreTag,
    workspace_key: RowKey,
    id: DeliveryId,
) -> Result<Option<Delivery>, rusqlite::Error> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!("{DELIVERY_COLUMNS} {DELIVERY_TABLES} WHERE d.key = ?1 AND d.workspace_key = ?2");
    connection
        .prepare_cached(&sql)?
        .query_row(params![id.key().as_i64(), workspace_key.as_i64()], |row| delivery_from_row(row, tag))
        .optional()
}

pub fn find(
    connection: &Connection,
    tag: StoreTag,
    workspace_key: RowKey,
    id: DeliveryId,
) -> Result<Option<(Delivery, Vec<Attempt>)>, rusqlite::Error> {
    let found = find_one(connection, tag, workspace_key, id)?;
    let Some(delivery) = found else { return Ok(None) };
    let attempts = connection
        .prepare_cached("SELECT * FROM attempts WHERE delivery_key = ?1 ORDER BY number")?
        .query_map([id.key().as_i64()], attempt_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some((delivery, attempts)))
}

fn attempt_from_row(row: &Row<'_>) -> Result<Attempt, rusqlite::Error> {
    Ok(Attempt {
        number: row.get("number")?,
        started_at: Timestamp::from_millis(row.get("started_at")?),
        duration_ms: row.get("duration_ms")?,
        outcome: coded(row, "outcome", AttemptOutcome::from_code)?,
        response_status: row.get("response_status")?,
        request_headers: headers_from_column(row, "request_headers")?,
        response_headers: headers_from_column(row, "response_headers")?,
        response_body: row.get::<_, Option<Vec<u8>>>("response_body")?.map(Bytes::from),
        error: row.get("error")?,
        next_attempt_at: row.get::<_, Option<i64>>("next_attempt_at")?.map(Timestamp::from_millis),
        phases: phases_from_row(row)?,
    })
}

fn phases_from_row(row: &Row<'_>) -> Result<Option<AttemptPhases>, rusqlite::Error> {
    let Some(connection_reused) = row.get("connection_reused")? else { return Ok(None) };
    Ok(Some(AttemptPhases {
        dns_ms: row.get("dns_ms")?,
        connect_ms: row.get("connect_ms")?,
        tls_ms: row.get("tls_ms")?,
        first_byte_ms: row.get("first_byte_ms")?,
        connection_reused,
    }))
}

fn headers_from_column(row: &Row<'_>, column: &'static str) -> Result<Vec<(String, String)>, rusqlite::Error> {
    headers_from_text(row.get_ref(column)?.as_str_or_null()?).ok_or_else(|| unexpected(column))
}
