//! Copies one store into another of either kind: from the embedded file to a database server, and back.
//!
//! - Rows are copied unchanged. Ids stay valid, and the same master key opens sealed values.
//! - A batch commits together with its position. A copy that was interrupted resumes there.
//! - Until the copy is complete, the target is marked as unfinished, and no server opens it.
//!
//! This file names no database. [`Tables`] states what a store must offer; `copy.rs` of each back end implements it.

use async_trait::async_trait;
use futures_util::future::join;

use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;

use super::OpenError;
use super::sealing::key_state::{KeyState, STATE as STATE_FACT};

/// A value of a column in any store. Booleans are 0 or 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row's values, in the order of [`Selection::columns`].
pub type Row = Vec<Value>;

/// An error of a database.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Limits of a batch: small enough to hold two in memory, large enough that the cost of commits does not matter.
pub const BATCH_ROWS: usize = 2_000;
pub const BATCH_BYTES: usize = 4 << 20;

/// Selects the rows of the meta table that describe a copy in progress.
pub const IS_MARK: &str = "name LIKE 'copy:%'";
/// The mark of an unfinished copy. Its value is the state of the source when the copy began.
pub const UNFINISHED: &str = "copy:from";

/// A table and its primary key, whose columns are numbers or text.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub name: &'static str,
    pub key: &'static [&'static str],
}

const fn table(name: &'static str, key: &'static [&'static str]) -> Table {
    Table { name, key }
}

/// All tables to copy. A table comes after those it refers to. The tables of running nodes and of
/// their request counts are not copied.
pub const TABLES: &[Table] = &[
    table("meta", &["name"]),
    table("catalogues", &["version"]),
    table("workspaces", &["key"]),
    table("api_keys", &["key"]),
    table("dashboard_sessions", &["key"]),
    table("login_codes", &["key"]),
    table("portal_sessions", &["key"]),
    table("parked_messages", &["key"]),
    table("paused_sources", &["workspace_key", "mode", "source"]),
    table("endpoints", &["key"]),
    table("endpoint_secrets", &["endpoint_key", "version"]),
    table("endpoint_sealed", &["endpoint_key", "part"]),
    table("endpoint_health", &["endpoint_key"]),
    table("events", &["key"]),
    table("deliveries", &["key"]),
    table("attempts", &["delivery_key", "number"]),
    table("due", &["delivery_key"]),
    table("lanes", &["lane_key"]),
    table("ordered_lanes", &["lane_key"]),
    table("late_payloads", &["event_key"]),
    table("publish_keys", &["workspace_key", "mode", "external_id"]),
    table("idempotency", &["key"]),
    table("replays", &["key"]),
    table("erasures", &["key"]),
    table("audit", &["key"]),
    table("stored_bytes", &["workspace_key", "part", "day", "shard"]),
    table("rollups", &["size", "start", "workspace_key", "mode", "endpoint_key", "name", "counter", "shard"]),
];

/// Statements that show, beside row counts, whether a store was used. Each returns one row of numbers.
const STATE: &[&str] = &[
    "SELECT COALESCE(MAX(key), 0) FROM events",
    "SELECT COALESCE(MAX(key), 0) FROM deliveries",
    "SELECT COALESCE(MAX(key), 0) FROM idempotency",
    "SELECT COALESCE(MAX(key), 0) FROM audit",
    "SELECT CAST(COALESCE(SUM(config_version), 0) AS BIGINT) FROM workspaces",
    "SELECT CAST(COALESCE(SUM(attempts), 0) AS BIGINT), COALESCE(MAX(claim_token), 0) FROM due",
    "SELECT CAST(COALESCE(SUM(replayed + unavailable + status), 0) AS BIGINT) FROM replays",
];

/// The columns of a table to read or write. Those of the primary key come first.
#[derive(Clone, Debug)]
pub struct Selection {
    pub table: &'static str,
    pub columns: Vec<String>,
    pub key_columns: usize,
}

/// A row of the meta table about a copy in progress.
#[derive(Clone, Debug)]
pub struct Mark {
    pub name: String,
    pub value: Vec<u8>,
}

/// A store as bare tables. No other process uses it.
#[async_trait]
pub trait Tables: Send + Sync {
    /// Whether a text of this store may contain U+0000.
    fn holds_nul(&self) -> bool;

    /// Whether a server has used the store within the last seconds.
    async fn is_in_use(&self) -> Result<bool, Fault>;

    /// A table's columns, generated columns excluded.
    async fn columns(&self, table: &'static str) -> Result<Vec<String>, Fault>;

    /// The numbers in the only row of a statement's result. The statements of this file are valid in every store.
    async fn numbers(&self, sql: &str) -> Result<Vec<i64>, Fault>;

    /// The next rows by primary key, after the row with this key: up to [`BATCH_ROWS`] rows or about [`BATCH_BYTES`].
    /// An empty result means the end.
    async fn read(&self, selection: &Selection, after: Option<&[Value]>) -> Result<Vec<Row>, Fault>;

    /// Adds rows and sets the mark, in one durable transaction.
    async fn write(&self, selection: &Selection, rows: Vec<Row>, mark: Mark) -> Result<(), Fault>;

    async fn find_mark(&self, name: &str) -> Result<Option<Vec<u8>>, Fault>;

    async fn set_mark(&self, mark: Mark) -> Result<(), Fault>;

    async fn remove_marks(&self) -> Result<(), Fault>;

    /// Removes the rows that a server writes into a new store, the marks excepted, and creates partitions for rows from
    /// `oldest` to
    /// `now`.
    async fn make_ready(&self, oldest: Timestamp, now: Timestamp) -> Result<(), Fault>;

    /// Leaves the store as if its last server had just ended: open claims are due, since nobody holds them. Removes the
    /// marks.
    async fn finish(&self, now: Timestamp) -> Result<(), Fault>;
}

/// What happens to a text with U+0000 that the target cannot hold. Names may not contain it, but older stores have
/// some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NulText {
    Refuse,
    /// U+FFFD takes the place of each U+0000.
    Replace,
}

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "the store to copy from",
            Self::Target => "the store to copy to",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot open {0}")]
    Open(Side, #[source] OpenError),
    #[error("{0} does not exist: start a server there once, or check the path or URL")]
    Missing(Side),
    #[error(
        "a server has used {0} within the last 10 seconds: stop all servers first; after a kill, wait that long and try again"
    )]
    InUse(Side),
    #[error("another copy to or from {0} is running")]
    Busy(Side),
    #[error("the store to copy to is not empty ({0} has rows): copy to a new directory, or to an empty schema")]
    NotEmpty(&'static str),
    #[error("the store to copy from is itself an unfinished copy: finish it first")]
    SourceUnfinished,
    #[error(
        "the master key of the store to copy from is being changed: finish that with `postrider keys rotate-master` first"
    )]
    SourceChangesKey,
    #[error(
        "the store to copy to holds an unfinished copy of another store, or of this one in an earlier state: empty it and start again"
    )]
    AnotherCopy,
    #[error(
        "the store to copy from was used during the copy: stop all servers and commands on it, empty the target and start again"
    )]
    SourceChanged,
    #[error("the columns of {table} are not the same on both sides: {source_columns} here, {target_columns} there")]
    Columns { table: &'static str, source_columns: String, target_columns: String },
    #[error("the mark of the table {0} in the unfinished copy cannot be read: empty the target and start again")]
    Cursor(&'static str),
    #[error(
        "the store to copy to cannot hold the column {column} of the row {key} in the table {table}: its text contains \
        U+0000; change it, or replace each with U+FFFD (--replace-nul)"
    )]
    Nul { table: &'static str, key: String, column: String },
    #[error("{side} failed{what}")]
    Store {
        side: Side,
        /// Starts with a space.
        what: String,
        #[source]
        fault: Fault,
    },
}

/// Receives the progress of a copy.
pub trait Watch: Send {
    /// `done` of `rows` are in the target already.
    fn table_begins(&mut self, table: &'static str, rows: u64, done: u64);
    fn rows_written(&mut self, rows: u64);
    /// U+0000 was replaced in a column of the row with this primary key.
    fn text_replaced(&mut self, key: &str, column: &str);
    fn table_ends(&mut self);
}

/// The number of rows of a table on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub table: &'static str,
    pub source: u64,
    pub target: u64,
}

/// Copies everything, or resumes an interrupted copy. The target is finished only if each of its tables has as many
/// rows as in the source.
///
/// # Errors
/// When either store is in use, the target holds other data or cannot hold a text, or a store fails. Rows copied so far
/// stay.
pub async fn copy(
    source: &dyn Tables,
    target: &dyn Tables,
    now: Timestamp,
    nul: NulText,
    watch: &mut dyn Watch,
) -> Result<Vec<Counted>, CopyError> {
    refuse_in_use(source, Side::Source).await?;
    refuse_in_use(target, Side::Target).await?;
    let is_unfinished = source.find_mark(UNFINISHED).await.map_err(failed(Side::Source))?.is_some();
    if is_unfinished {
        return Err(CopyError::SourceUnfinished);
    }
    if is_key_changing(source).await? {
        return Err(CopyError::SourceChangesKey);
    }
    let counts = counts(source, Side::Source).await?;
    let state = state(source, &counts).await?;
    take_target(target, &state).await?;
    if find_mark(target, &mark_of("meta")).await?.is_none() {
        let oldest = oldest(source, now).await?;
        target.make_ready(oldest, now).await.map_err(failed(Side::Target))?;
    }
    for (table, count) in TABLES.iter().zip(&counts) {
        copy_table(source, target, (*table, *count), nul, watch).await?;
    }
    refuse_in_use(source, Side::Source).await?;
    let counts_after = self::counts(source, Side::Source).await?;
    if self::state(source, &counts_after).await? != state {
        return Err(CopyError::SourceChanged);
    }
    let copied = self::counts(target, Side::Target).await?;
    let counted: Vec<Counted> = TABLES
        .iter()
        .zip(counts.iter().zip(&copied))
        .map(|(table, (source, target))| Counted { table: table.name, source: *source, target: *target })
        .collect();
    if counted.iter().all(|counted| counted.source == counted.target) {
        target.finish(now).await.map_err(failed(Side::Target))?;
    }
    Ok(counted)
}

async fn refuse_in_use(store: &dyn Tables, side: Side) -> Result<(), CopyError> {
    let is_in_use = store.is_in_use().await.map_err(failed(side))?;
    if is_in_use { Err(CopyError::InUse(side)) } else { Ok(()) }
}

/// Whether the master key is being changed. Rows copied before a step of the change and rows copied after it would not
/// fit together.
async fn is_key_changing(source: &dyn Tables) -> Result<bool, CopyError> {
    let fact = source.find_mark(STATE_FACT).await.map_err(failed(Side::Source))?;
    let state = KeyState::read(fact.as_deref()).map_err(|error| failed(Side::Source)(error.into()))?;
    Ok(state.change.is_some())
}

/// Marks the target as an unfinished copy of the source in this state, unless it is one already.
async fn take_target(target: &dyn Tables, state: &str) -> Result<(), CopyError> {
    if let Some(mark) = find_mark(target, UNFINISHED).await? {
        return if mark == state.as_bytes() { Ok(()) } else { Err(CopyError::AnotherCopy) };
    }
    // Rows that a server writes before first use are removed later.
    for (table, count) in TABLES.iter().zip(counts(target, Side::Target).await?) {
        if count > 0 && !["meta", "catalogues"].contains(&table.name) {
            return Err(CopyError::NotEmpty(table.name));
        }
    }
    let mark = Mark { name: UNFINISHED.to_owned(), value: state.as_bytes().to_vec() };
    target.set_mark(mark).await.map_err(failed(Side::Target))?;
    // A server that starts now finds the mark. A server that started before the mark was set is visible by now.
    let refused = refuse_in_use(target, Side::Target).await;
    if refused.is_err() {
        target.remove_marks().await.map_err(failed(Side::Target))?;
    }
    refused
}

async fn copy_table(
    source: &dyn Tables,
    target: &dyn Tables,
    (table, count): (Table, u64),
    nul: NulText,
    watch: &mut dyn Watch,
) -> Result<(), CopyError> {
    let failed = |side| move |fault| CopyError::Store { side, what: format!(" at the table {}", table.name), fault };
    let selection = select(source, target, table).await?;
    let mark = mark_of(table.name);
    let after = match find_mark(target, &mark).await? {
        Some(cursor) => Some(decode(&cursor, table)?),
        None => None,
    };
    let done = if after.is_some() { count_of(target, Side::Target, table).await? } else { 0 };
    watch.table_begins(table.name, count, done);
    let mut rows = source.read(&selection, after.as_deref()).await.map_err(failed(Side::Source))?;
    while let Some(last) = rows.last() {
        let key = last[..selection.key_columns].to_vec();
        let mark = Mark { name: mark.clone(), value: encode(&key) };
        let written = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        if !target.holds_nul() {
            replace_nul(&selection, &mut rows, nul, watch)?;
        }
        // The next batch is read while this one is written.
        let next = source.read(&selection, Some(&key));
        let (next, outcome) = join(next, target.write(&selection, rows, mark)).await;
        outcome.map_err(failed(Side::Target))?;
        watch.rows_written(written);
        rows = next.map_err(failed(Side::Source))?;
    }
    watch.table_ends();
    Ok(())
}

/// Replaces U+0000 in texts, or refuses the first one.
fn replace_nul(selection: &Selection, rows: &mut [Row], nul: NulText, watch: &mut dyn Watch) -> Result<(), CopyError> {
    for row in rows {
        let has_nul = |value: &Value| matches!(value, Value::Text(text) if text.contains('\0'));
        let Some(first) = row.iter().position(has_nul) else { continue };
        let key = shown_key(&selection.columns[..selection.key_columns], row);
        if nul == NulText::Refuse {
            let column = selection.columns[first].clone();
            return Err(CopyError::Nul { table: selection.table, key, column });
        }
        for (value, column) in row.iter_mut().zip(&selection.columns).skip(first) {
            if has_nul(value)
                && let Value::Text(text) = value
            {
                *text = text.replace('\0', "\u{fffd}");
                watch.text_replaced(&key, column);
            }
        }
    }
    Ok(())
}

/// `key = 5`, `delivery_key = 5, number = 1`.
fn shown_key(columns: &[String], row: &[Value]) -> String {
    let shown = columns.iter().zip(row).map(|(column, value)| match value {
        Value::Integer(number) => format!("{column} = {number}"),
        Value::Text(text) => format!("{column} = {text:?}"),
        Value::Null | Value::Bytes(_) => format!("{column} = ?"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The columns of the target, which must be those of the source.
async fn select(source: &dyn Tables, target: &dyn Tables, table: Table) -> Result<Selection, CopyError> {
    let theirs = target.columns(table.name).await.map_err(failed(Side::Target))?;
    let ours = source.columns(table.name).await.map_err(failed(Side::Source))?;
    let named = |columns: &[String]| {
        let mut names = columns.to_vec();
        names.sort_unstable();
        names.join(", ")
    };
    let (source_columns, target_columns) = (named(&ours), named(&theirs));
    if source_columns != target_columns {
        return Err(CopyError::Columns { table: table.name, source_columns, target_columns });
    }
    let key = table.key.iter().map(|column| (*column).to_owned());
    let others = theirs.into_iter().filter(|column| !table.key.contains(&column.as_str()));
    Ok(Selection { table: table.name, columns: key.chain(others).collect(), key_columns: table.key.len() })
}

async fn counts(store: &dyn Tables, side: Side) -> Result<Vec<u64>, CopyError> {
    let mut counts = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        counts.push(count_of(store, side, *table).await?);
    }
    Ok(counts)
}

async fn count_of(store: &dyn Tables, side: Side, table: Table) -> Result<u64, CopyError> {
    let only = if table.name == "meta" { format!(" WHERE NOT {IS_MARK}") } else { String::new() };
    let numbers = store.numbers(&format!("SELECT COUNT(*) FROM {}{only}", table.name)).await.map_err(failed(side))?;
    Ok(numbers.first().and_then(|count| u64::try_from(*count).ok()).unwrap_or_default())
}

/// A text that is the same as long as nobody uses the store, and differs for every other store.
async fn state(source: &dyn Tables, counts: &[u64]) -> Result<String, CopyError> {
    let tag = source.find_mark("store_tag").await.map_err(failed(Side::Source))?.unwrap_or_default();
    let mut state: Vec<String> = tag.iter().map(u8::to_string).collect();
    state.extend(counts.iter().map(u64::to_string));
    if let Some(fact) = source.find_mark(STATE_FACT).await.map_err(failed(Side::Source))? {
        let key_state = KeyState::read(Some(&fact)).map_err(|error| failed(Side::Source)(error.into()))?;
        state.push(format!("key {}", key_state.epoch));
    }
    for sql in STATE {
        let numbers = source.numbers(sql).await.map_err(failed(Side::Source))?;
        state.extend(numbers.iter().map(i64::to_string));
    }
    Ok(state.join(" "))
}

/// The creation time of the oldest row of the log.
async fn oldest(source: &dyn Tables, now: Timestamp) -> Result<Timestamp, CopyError> {
    let mut oldest = now;
    for table in ["events", "deliveries"] {
        let sql = format!("SELECT COALESCE(MIN(key), {}) FROM {table}", i64::MAX);
        for key in source.numbers(&sql).await.map_err(failed(Side::Source))? {
            oldest = oldest.min(RowKey::from_i64(key).created_at());
        }
    }
    Ok(oldest)
}

async fn find_mark(target: &dyn Tables, name: &str) -> Result<Option<Vec<u8>>, CopyError> {
    target.find_mark(name).await.map_err(failed(Side::Target))
}

fn failed(side: Side) -> impl Fn(Fault) -> CopyError {
    move |fault| CopyError::Store { side, what: String::new(), fault }
}

fn mark_of(table: &str) -> String {
    format!("copy:{table}")
}

/// The values of a key, as JSON.
fn encode(key: &[Value]) -> Vec<u8> {
    let values = key.iter().map(|value| match value {
        Value::Integer(number) => serde_json::Value::from(*number),
        Value::Text(text) => serde_json::Value::from(text.as_str()),
        Value::Null | Value::Bytes(_) => serde_json::Value::Null,
    });
    serde_json::Value::from_iter(values).to_string().into_bytes()
}

fn decode(cursor: &[u8], table: Table) -> Result<Vec<Value>, CopyError> {
    let unreadable = || CopyError::Cursor(table.name);
    let values: Vec<serde_json::Value> = serde_json::from_slice(cursor).map_err(|_| unreadable())?;
    let key: Option<Vec<Value>> = values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::Number(number) => number.as_i64().map(Value::Integer),
            serde_json::Value::String(text) => Some(Value::Text(text)),
            _ => None,
        })
        .collect();
    key.filter(|key| key.len() == table.key.len()).ok_or_else(unreadable)
}

/// The approximate memory of a row.
pub fn bytes_of(row: &[Value]) -> usize {
    let held = row.iter().map(|value| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Null | Value::Integer(_) => 0,
    });
    size_of_val(row) + held.sum::<usize>()
}

/// The statement that reads a batch, valid in every store. Its parameters are the values of the key, if there is one.
pub fn reading(selection: &Selection, is_after: bool, parameter: &str, most: usize) -> String {
    let columns = quoted(&selection.columns);
    let keys = quoted(&selection.columns[..selection.key_columns]);
    let parameters: Vec<String> = (1..=selection.key_columns).map(|number| format!("{parameter}{number}")).collect();
    let after = if is_after { format!("WHERE ({keys}) > ({})", parameters.join(", ")) } else { String::new() };
    format!("SELECT {columns} FROM {} {after} ORDER BY {keys} LIMIT {most}", selection.table)
}

/// Column names, quoted for a statement.
pub fn quoted(columns: &[String]) -> String {
    columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_as_it_was_written() {
        let publish_keys = TABLES.iter().find(|table| table.name == "publish_keys").unwrap();
        let key = vec![Value::Integer(i64::MAX), Value::Integer(-1), Value::Text("a \"b\" ü".to_owned())];
        assert_eq!(decode(&encode(&key), *publish_keys).unwrap(), key);
        for bad in [&b"[1, 2]"[..], b"[1, 2, null]", b"1", b"", b"[1.5, 1, \"a\"]"] {
            assert!(matches!(decode(bad, *publish_keys), Err(CopyError::Cursor("publish_keys"))));
        }
    }

    #[test]
    fn a_batch_begins_after_the_last_key_of_the_one_before() {
        let columns = ["delivery_key", "number", "error"].map(str::to_owned).to_vec();
        let selection = Selection { table: "attempts", columns, key_columns: 2 };
        assert_eq!(
            reading(&selection, true, "$", 3),
            "SELECT \"delivery_key\", \"number\", \"error\" FROM attempts \
             WHERE (\"delivery_key\", \"number\") > ($1, $2) ORDER BY \"delivery_key\", \"number\" LIMIT 3"
        );
    }
}
