//! The delivery log: what became of each delivery, and its attempts.

use std::fmt::Write as _;

use bytes::Bytes;
use tokio_postgres::Row;

use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases};
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_store::column::{headers_from_text, mode_from_code};
use postrider_store::queue::order::NOT_YET;

use super::column::{coded, get, instant, key, number, opt_instant, opt_int, opt_number, parsed, unexpected};
use super::fault::PgError;
use super::session::{Session, Value};

const DELIVERY_COLUMNS: &str =
    "SELECT d.key, d.event_key, e.type, ep.id AS endpoint_id, e.project_id, d.mode, d.status, d.reason, d.cause,
            d.retry_of, COALESCE(q.attempts, d.attempts) AS attempts, d.completed_at, q.due_at, q.claim_token,
            EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = d.key) AS is_blocking";

const DELIVERY_TABLES: &str = "FROM deliveries d
     JOIN events e ON e.key = d.event_key
     JOIN endpoints ep ON ep.key = d.endpoint_key
     LEFT JOIN due q ON q.delivery_key = d.key";

fn delivery_from_row(row: &Row, tag: StoreTag) -> Result<Delivery, PgError> {
    let claimed = opt_int(row, "claim_token")?.is_some();
    let due_at = opt_instant(row, "due_at")?;
    Ok(Delivery {
        id: DeliveryId::new(key(row, "key")?, tag),
        event_id: EventId::new(key(row, "event_key")?, tag),
        event_type: EventTypeName::from_stored(get(row, "type")?),
        endpoint_id: parsed(row, "endpoint_id")?,
        project_id: get(row, "project_id")?,
        mode: coded(row, "mode", mode_from_code)?,
        status: coded(row, "status", DeliveryStatus::from_code)?,
        reason: opt_int(row, "reason")?
            .map(|code| EndReason::from_code(code).ok_or_else(|| unexpected("deliveries.reason")))
            .transpose()?,
        cause: coded(row, "cause", DeliveryCause::from_code)?,
        retry_of: opt_int(row, "retry_of")?.map(|key| DeliveryId::new(RowKey::from_i64(key), tag)),
        attempt_count: number(row, "attempts")?,
        next_attempt_at: due_at.filter(|at| !claimed && *at != NOT_YET),
        completed_at: opt_instant(row, "completed_at")?,
        is_blocking: get(row, "is_blocking")?,
    })
}

/// A page of the log. A filter that passes few rows would walk a large log from end to end, so such a walk is cut after a
/// number of rows; the page then says where to go on, however little it holds.
pub async fn list(
    session: &Session,
    tag: StoreTag,
    workspace_key: RowKey,
    filter: &DeliveryFilter,
    page: PageRequest,
) -> Result<Page<Delivery>, PgError> {
    let before = filter.until.map_or(page.before(), |until| page.before().min(RowKey::first_at(until)));
    let since = filter.since.map_or(RowKey::from_i64(i64::MIN), RowKey::first_at);
    let walk = Walk::of(filter);
    let cut = walk.cut(session, workspace_key, filter, since, before).await?;
    let mut conditions = Conditions::default();
    let tables = walk.tables(&mut conditions, cut.unwrap_or(since), before);
    conditions.and(&format!("{} = ?", walk.column("workspace_key")), workspace_key.as_i64());
    if let Some(endpoint) = filter.endpoint_id {
        let column = walk.column("endpoint_key");
        conditions.and(&format!("{column} = {ENDPOINT}"), endpoint.to_string());
    }
    if let Some(event) = filter.event_id {
        // An id from another store names no event here.
        let key = if event.tag() == tag { event.key().as_i64() } else { -1 };
        conditions.and("d.event_key = ?", key);
        conditions.and("d.key >= ?", key);
    }
    if let Some(event_type) = &filter.event_type {
        conditions.and("e.type = ?", event_type.as_str().to_owned());
    }
    if let Some(status) = filter.status {
        conditions.and(&format!("{} = ?", walk.status()), status.code());
    }
    let limit = conditions.value(i64::from(page.limit()) + 1);
    let sql =
        format!("{DELIVERY_COLUMNS} {tables} WHERE {} ORDER BY {} DESC LIMIT {limit}", conditions.text(), walk.order());
    let rows = session.query(&sql, &conditions.values()).await?;
    let items = rows.iter().map(|row| delivery_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
    let page = page.cut(items, |delivery| delivery.id.key());
    Ok(Page { next: page.next.or(cut), ..page })
}

const ENDPOINT: &str = "(SELECT key FROM endpoints WHERE id = ?)";

/// Conditions of a query and their values, for which `?` stands.
#[derive(Default)]
pub struct Conditions {
    text: String,
    values: Vec<Box<dyn Value + Send>>,
}

impl Conditions {
    pub fn and(&mut self, condition: &str, value: impl Value + Send + 'static) {
        let place = self.value(value);
        let separator = if self.text.is_empty() { "" } else { " AND " };
        let _ = write!(self.text, "{separator}{}", condition.replacen('?', &place, 1));
    }

    /// A value that stands outside of the conditions, and what stands for it.
    pub fn value(&mut self, value: impl Value + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn values(&self) -> Vec<&dyn Value> {
        self.values.iter().map(|value| value.as_ref() as &dyn Value).collect()
    }
}

/// The order in which a page looks for its rows.
///
/// The planner is not told which index to use, and it may know nothing of a day that has just begun. So what must not lead it
/// is written as a sum, by which no index can be used: then the walk's own index is the only one that fits.
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

    /// The tables of the page. Which rows it looks at becomes a condition.
    fn tables(self, conditions: &mut Conditions, from: RowKey, before: RowKey) -> String {
        if self != Self::Queue {
            conditions.and("d.key >= ?", from.as_i64());
            conditions.and("d.key < ?", before.as_i64());
            return DELIVERY_TABLES.to_owned();
        }
        let (from, before) = (conditions.value(from.as_i64()), conditions.value(before.as_i64()));
        // The offset keeps the planner from beginning with the log.
        format!(
            "FROM (SELECT * FROM due WHERE delivery_key >= {from} AND delivery_key < {before}
                   ORDER BY delivery_key DESC OFFSET 0) q
             CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE key = q.delivery_key OFFSET 0) d
             JOIN events e ON e.key = d.event_key
             JOIN endpoints ep ON ep.key = d.endpoint_key"
        )
    }

    const fn order(self) -> &'static str {
        match self {
            Self::Queue => "q.delivery_key",
            // An event has few rows: these are sorted.
            Self::OfEvent => "d.key + 0",
            _ => "d.key",
        }
    }

    /// A column that the walk goes by, or that only passes its rows or not.
    fn column(self, name: &str) -> String {
        let leads = match self {
            Self::OfEvent | Self::Queue => false,
            Self::OfEndpoint => name == "endpoint_key",
            Self::Unusual | Self::OfWorkspace => name == "workspace_key",
        };
        if leads { format!("d.{name}") } else { format!("d.{name} + 0") }
    }

    /// Where the status stands for this walk.
    const fn status(self) -> &'static str {
        if matches!(self, Self::Unusual) { "d.unusual" } else { "d.status" }
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
    async fn cut(
        self,
        session: &Session,
        workspace_key: RowKey,
        filter: &DeliveryFilter,
        since: RowKey,
        before: RowKey,
    ) -> Result<Option<RowKey>, PgError> {
        if !self.is_sparse(filter) {
            return Ok(None);
        }
        let (table, key) = if self == Self::Queue { ("due q", "q.delivery_key") } else { ("deliveries d", "d.key") };
        let mut conditions = Conditions::default();
        conditions.and(&format!("{key} >= ?"), since.as_i64());
        conditions.and(&format!("{key} < ?"), before.as_i64());
        match (self, filter) {
            (Self::Unusual, DeliveryFilter { status: Some(status), .. }) => {
                conditions.and("d.unusual = ?", status.code());
                conditions.and("d.workspace_key = ?", workspace_key.as_i64());
            }
            (Self::OfEndpoint, DeliveryFilter { endpoint_id: Some(endpoint), .. }) => {
                conditions.and(&format!("d.endpoint_key = {ENDPOINT}"), endpoint.to_string());
            }
            (Self::Queue, _) => {}
            _ => conditions.and("d.workspace_key = ?", workspace_key.as_i64()),
        }
        let offset = conditions.value(i64::from(limits::LOG_ROWS_PER_PAGE));
        let text = conditions.text();
        let sql = format!("SELECT {key} AS key FROM {table} WHERE {text} ORDER BY {key} DESC LIMIT 1 OFFSET {offset}");
        let found = session.query_opt(&sql, &conditions.values()).await?;
        found.map(|row| self::key(&row, "key")).transpose()
    }
}

/// One delivery without its attempts.
pub async fn find_one(
    session: &Session,
    tag: StoreTag,
    workspace_key: RowKey,
    id: DeliveryId,
) -> Result<Option<Delivery>, PgError> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!("{DELIVERY_COLUMNS} {DELIVERY_TABLES} WHERE d.key = $1 AND d.workspace_key = $2");
    let found = session.query_opt(&sql, &[&id.key().as_i64(), &workspace_key.as_i64()]).await?;
    found.map(|row| delivery_from_row(&row, tag)).transpose()
}

pub async fn find(
    session: &Session,
    tag: StoreTag,
    workspace_key: RowKey,
    id: DeliveryId,
) -> Result<Option<(Delivery, Vec<Attempt>)>, PgError> {
    let Some(delivery) = find_one(session, tag, workspace_key, id).await? else { return Ok(None) };
    let sql = "SELECT * FROM attempts WHERE delivery_key = $1 ORDER BY number";
    let rows = session.query(sql, &[&id.key().as_i64()]).await?;
    let attempts = rows.iter().map(attempt_from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(Some((delivery, attempts)))
}

fn attempt_from_row(row: &Row) -> Result<Attempt, PgError> {
    Ok(Attempt {
        number: number(row, "number")?,
        started_at: instant(row, "started_at")?,
        duration_ms: number(row, "duration_ms")?,
        outcome: coded(row, "outcome", AttemptOutcome::from_code)?,
        response_status: opt_number(row, "response_status")?,
        request_headers: headers_from_column(row, "request_headers")?,
        response_headers: headers_from_column(row, "response_headers")?,
        response_body: get::<Option<Vec<u8>>>(row, "response_body")?.map(Bytes::from),
        error: get(row, "error")?,
        next_attempt_at: opt_instant(row, "next_attempt_at")?,
        phases: phases_from_row(row)?,
    })
}

fn phases_from_row(row: &Row) -> Result<Option<AttemptPhases>, PgError> {
    let Some(connection_reused) = get(row, "connection_reused")? else { return Ok(None) };
    Ok(Some(AttemptPhases {
        dns_ms: opt_number(row, "dns_ms")?,
        connect_ms: opt_number(row, "connect_ms")?,
        tls_ms: opt_number(row, "tls_ms")?,
        first_byte_ms: opt_number(row, "first_byte_ms")?,
        connection_reused,
    }))
}

fn headers_from_column(row: &Row, column: &'static str) -> Result<Vec<(String, String)>, PgError> {
    headers_from_text(get(row, column)?).ok_or_else(|| unexpected(column))
}
