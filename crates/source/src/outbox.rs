//! A source that drains an outbox table of a producer's PostgreSQL database.
//!
//! A producer inserts a row in the transaction that changes its own data. This source takes rows, has them accepted,
//! and only then deletes them. There is no cursor: sequences commit out of order, so a cursor would skip the row of a
//! transaction that commits late. What is in the table was not accepted, or is accepted again without effect.
//!
//! Several nodes may drain one table: `FOR UPDATE SKIP LOCKED` gives each row to one of them at a time.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use postrider_domain::limits;
use postrider_domain::source::SourceMessage;
use postrider_store_postgres::{ConnectionConfig, PostgresSettings};

use crate::feed::{Connector, Feed, PullLimit, Settlement, SourceError};
use crate::settings::OutboxSettings;

/// The waits between two looks at an empty table.
const IDLE_MIN: Duration = Duration::from_millis(50);
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What the session gives up after. A node that stands still must not hold rows or the horizon for long.
const SESSION: &str = "SET statement_timeout = '60s'; SET lock_timeout = '10s'; \
                       SET idle_in_transaction_session_timeout = '120s'";

/// The name of an outbox table, with its schema if one is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxTable {
    schema: Option<String>,
    name: String,
}

/// As it stands in SQL.
impl fmt::Display for OutboxTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "\"{schema}\".")?;
        }
        write!(f, "\"{}\"", self.name)
    }
}

impl OutboxTable {
    pub const DEFAULT: &'static str = "postrider_outbox";

    /// # Errors
    /// When the text is not `table` or `schema.table` of plain names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            (1..=63).contains(&name.len())
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        };
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if !is_name(name) || !schema.is_none_or(is_name) {
            return Err("must be table or schema.table, of a-z, 0-9 and _".to_owned());
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    /// The statements that create the table.
    pub fn ddl(&self) -> String {
        let name = &self.name;
        format!(
            "\
-- The outbox of a producer. Insert into it in the transaction that changes your own data:
--   INSERT INTO {self} (type, project_id, data) VALUES ('post.created', 'proj_1', '{{\"id\": \"post_1\"}}');
-- Postrider takes rows in the order of seq, accepts them, and deletes them.
CREATE TABLE {self} (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          uuid   NOT NULL DEFAULT gen_random_uuid(),
    type        text   NOT NULL,
    project_id  text,
    data        jsonb  NOT NULL,
    -- Your own id of the event. Two rows with the same one are one event. By default it is made of id.
    external_id text,
    occurred_at timestamptz,
    -- The trace that the event belongs to, by W3C Trace Context.
    traceparent text
) WITH (
    -- Rows live for milliseconds. Without this, dead ones pile up until a fifth of the table is dead.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000
);

-- What the user of the source needs:
--   CREATE ROLE postrider LOGIN PASSWORD '…';
--   GRANT SELECT, UPDATE, DELETE ON {self} TO postrider;
COMMENT ON TABLE {self} IS 'outbox of events; Postrider deletes what it has accepted ({name})';
"
        )
    }
}

pub struct OutboxConnector(pub OutboxSettings);

#[async_trait]
impl Connector for OutboxConnector {
    async fn connect(&self) -> Result<Box<dyn Feed>, SourceError> {
        let client = connect(&self.0).await?;
        client.batch_execute(SESSION).await.map_err(SourceError::broken("set up the session of the outbox"))?;
        Ok(Box::new(OutboxFeed { client, table: self.0.table.to_string(), taken: Vec::new(), idle: IDLE_MIN }))
    }
}

async fn connect(settings: &OutboxSettings) -> Result<Client, SourceError> {
    let connection = PostgresSettings {
        password_file: settings.password_file.clone(),
        ca_file: settings.ca_file.clone(),
        ..PostgresSettings::new(settings.url.reveal())
    };
    let config = ConnectionConfig::of(settings.url.reveal(), &connection)
        .map_err(SourceError::broken("use the settings of the outbox's database"))?;
    config.client().await.map_err(SourceError::broken("connect to the outbox's database"))
}

struct OutboxFeed {
    client: Client,
    table: String,
    /// The rows of the last pull, which the open transaction holds. Empty: no transaction is open.
    taken: Vec<i64>,
    idle: Duration,
}

#[async_trait]
impl Feed for OutboxFeed {
    async fn pull(&mut self, limit: PullLimit) -> Result<Vec<SourceMessage>, SourceError> {
        let messages = self.take(limit).await.map_err(SourceError::broken("read the outbox"))?;
        if messages.is_empty() {
            tokio::time::sleep(self.idle).await;
            self.idle = (self.idle * 2).min(IDLE_MAX);
        } else {
            self.idle = IDLE_MIN;
        }
        Ok(messages)
    }

    async fn settle(&mut self, settlements: &[Settlement]) -> Result<(), SourceError> {
        let taken = std::mem::take(&mut self.taken);
        let done = taken.iter().zip(settlements).filter(|(_, settlement)| **settlement == Settlement::Done);
        let done: Vec<i64> = done.map(|(seq, _)| *seq).collect();
        self.delete(&done).await.map_err(SourceError::broken("delete accepted rows of the outbox"))
    }

    async fn keep(&mut self) -> Result<(), SourceError> {
        match self.client.is_closed() {
            true => Err(SourceError::Setup("the connection to the outbox's database was closed".to_owned())),
            false => Ok(()),
        }
    }

    /// A transaction that stays open would keep the producer's database from removing dead rows.
    fn keeps_over_failures(&self) -> bool {
        false
    }
}

impl OutboxFeed {
    /// Takes the next rows in a transaction that stays open.
    async fn take(&mut self, limit: PullLimit) -> Result<Vec<SourceMessage>, tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await?;
        let sql = format!(
            "SELECT seq, LEAST(octet_length(data::text), {max}) AS bytes FROM {table} ORDER BY seq LIMIT $1
             FOR UPDATE SKIP LOCKED",
            max = limits::BODY_BYTES,
            table = self.table,
        );
        let rows = i64::try_from(limit.messages).unwrap_or(i64::MAX);
        let found = self.client.query_typed(&sql, &[(&rows, Type::INT8)]).await?;
        let mut bytes = 0;
        for row in &found {
            let size = usize::try_from(row.get::<_, i32>("bytes")).unwrap_or_default();
            // The others wait for the next pull. The end of the transaction frees them.
            if !self.taken.is_empty() && bytes + size > limit.bytes {
                break;
            }
            bytes += size;
            self.taken.push(row.get("seq"));
        }
        if self.taken.is_empty() {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(Vec::new());
        }
        // A row of more bytes than an event may have is parked with its beginning, so no more of it is read.
        let sql = format!(
            "SELECT seq, id::text AS id, type, project_id, left(data::text, {max} + 1) AS data, external_id, traceparent,
                    to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS occurred_at
             FROM {table} WHERE seq = ANY ($1) ORDER BY seq",
            max = limits::BODY_BYTES,
            table = self.table,
        );
        let rows = self.client.query_typed(&sql, &[(&self.taken, Type::INT8_ARRAY)]).await?;
        Ok(rows.iter().map(message_of).collect())
    }

    /// Ends the transaction: with these rows deleted, or as if nothing had been taken.
    async fn delete(&mut self, done: &[i64]) -> Result<(), tokio_postgres::Error> {
        if done.is_empty() {
            return self.client.batch_execute("ROLLBACK").await;
        }
        let sql = format!("DELETE FROM {} WHERE seq = ANY ($1)", self.table);
        self.client.execute_typed(&sql, &[(&done, Type::INT8_ARRAY)]).await?;
        self.client.batch_execute("COMMIT").await
    }
}

/// The row as the body that `POST /v1/events` takes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'r> {
    r#type: &'r str,
    data: &'r RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<&'r str>,
}

fn message_of(row: &Row) -> SourceMessage {
    let data: &str = row.get("data");
    let body = match serde_json::from_str::<&RawValue>(data) {
        Ok(data) => {
            let body = Body {
                r#type: row.get("type"),
                data,
                project_id: row.get("project_id"),
                external_id: row.get("external_id"),
                occurred_at: row.get("occurred_at"),
            };
            serde_json::to_vec(&body).expect("texts are JSON")
        }
        // The column is text of something else, or the data was cut.
        Err(_) => data.as_bytes().to_vec(),
    };
    let trace: Option<String> = row.get("traceparent");
    SourceMessage {
        headers: trace.map(|trace| ("traceparent".to_owned(), trace)).into_iter().collect(),
        subject: None,
        sequence: Some(row.get::<_, i64>("seq").to_string()),
        message_id: row.get("id"),
        body: Bytes::from(body),
    }
}

/// What is wrong with an outbox, for `postrider doctor`.
///
/// # Errors
/// When the database cannot be reached, or a statement fails.
pub async fn check(settings: &OutboxSettings) -> Result<Vec<String>, SourceError> {
    let client = connect(settings).await?;
    let mut faults = Vec::new();
    let table = settings.table.to_string();
    let fault = || SourceError::broken("examine the outbox");
    let exists = "SELECT to_regclass($1) IS NOT NULL";
    if !client.query_typed_one(exists, &[(&table, Type::TEXT)]).await.map_err(fault())?.get::<_, bool>(0) {
        return Ok(vec![format!("there is no table {table}: create it with what `postrider outbox sql` prints")]);
    }
    for right in ["SELECT", "UPDATE", "DELETE"] {
        let sql = format!("SELECT has_table_privilege(to_regclass($1), '{right}')");
        if !client.query_typed_one(&sql, &[(&table, Type::TEXT)]).await.map_err(fault())?.get::<_, bool>(0) {
            faults.push(format!("the user lacks {right} on {table}: GRANT {right} ON {table}"));
        }
    }
    let columns = "SELECT column_name FROM unnest($2::text[]) AS column_name
                   WHERE NOT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1)
                                     AND attname = column_name AND NOT attisdropped)";
    let wanted = ["seq", "id", "type", "project_id", "data", "external_id", "occurred_at", "traceparent"];
    let missing = client.query_typed(columns, &[(&table, Type::TEXT), (&&wanted[..], Type::TEXT_ARRAY)]).await;
    for row in missing.map_err(fault())? {
        faults.push(format!("{table} has no column {}", row.get::<_, &str>(0)));
    }
    let indexed = "SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
                   AND a.attnum = i.indkey[0] WHERE i.indrelid = to_regclass($1) AND a.attname = 'seq')";
    if !client.query_typed_one(indexed, &[(&table, Type::TEXT)]).await.map_err(fault())?.get::<_, bool>(0) {
        faults.push(format!("{table} has no index that begins with seq: each pull reads the whole table"));
    }
    let vacuum = "SELECT COALESCE(reloptions::text LIKE '%autovacuum_vacuum_scale_factor%', false)
                  FROM pg_class WHERE oid = to_regclass($1)";
    if !client.query_typed_one(vacuum, &[(&table, Type::TEXT)]).await.map_err(fault())?.get::<_, bool>(0) {
        faults.push(format!(
            "{table} has no autovacuum settings of its own: dead rows pile up between two vacuums (`postrider outbox sql` shows them)"
        ));
    }
    faults.extend(horizon_holder(&client).await.map_err(fault())?);
    Ok(faults)
}

/// The oldest transaction that keeps dead rows from being removed, if it is old.
async fn horizon_holder(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let sql = "SELECT pid, EXTRACT(EPOCH FROM now() - xact_start)::bigint AS seconds FROM pg_stat_activity
               WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND xact_start < now() - interval '60 s'
               ORDER BY age(backend_xmin) DESC LIMIT 1";
    let found = client.query_typed(sql, &[]).await?;
    Ok(found.first().map(|row| {
        let (pid, seconds): (i32, i64) = (row.get("pid"), row.get("seconds"));
        format!(
            "the transaction of process {pid} is {seconds} s old: until it ends, deleted rows of the outbox cannot be \
             removed, and each pull gets slower"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_table_cannot_carry_sql() {
        assert_eq!(OutboxTable::parse("shop.outbox_1").unwrap().to_string(), "\"shop\".\"outbox_1\"");
        for text in ["", "a b", "a\"b", "a;b", "a.b.c", "Outbox", "1a", ".a", "a."] {
            OutboxTable::parse(text).unwrap_err();
        }
    }
}
