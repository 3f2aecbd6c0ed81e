//! The tables of the database as plain rows, for copying a store. Writes every copied table.
//!
//! Nothing is set for a session except a lock, which a transaction of its own holds. So copying works through a pooler
//! too.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::TryStreamExt;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use postrider_domain::time::Timestamp;
use postrider_store::copy::{
    BATCH_BYTES, BATCH_ROWS, CopyError, Fault, IS_MARK, Mark, Row, Selection, Side, Tables, Value, bytes_of, quoted,
    reading,
};
use postrider_store::{OpenError, UnexpectedValue};

use crate::machinery::column::{get, int};
use crate::machinery::connect::{ConnectionConfig, connection};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::settings::PostgresSettings;
use crate::machinery::{node, partition, schema};
use crate::meta;
use crate::queue::lane;

/// A store's tables in its database.
pub struct PostgresTables {
    session: Session,
    /// Holds the lock that allows one copy at a time.
    _lock: Session,
    lock_class: i32,
    /// The column types of the tables read so far.
    types: Mutex<HashMap<&'static str, HashMap<String, Type>>>,
    /// Rows to request at once: fewer when they are large.
    rows: AtomicUsize,
}

/// One connection for the copy and one for the lock. The migrations before need both.
const CONNECTIONS: usize = 2;

/// Begins a transaction without a time limit that reads by the primary keys, whatever statistics the planner has.
const BEGIN: &str =
    "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
                     SET LOCAL jit = off";

impl PostgresTables {
    /// Opens the store and migrates its schema. Creates the schema of the target if it does not exist.
    ///
    /// # Errors
    /// When there is no store to copy from, another copy uses the store, or it cannot be opened.
    pub async fn open(settings: &PostgresSettings, side: Side) -> Result<Self, CopyError> {
        let unusable = |error: PgError| CopyError::Open(side, OpenError::Database(error.into()));
        let config = ConnectionConfig::of(&settings.url, settings);
        let pool = config.and_then(|config| config.pool(CONNECTIONS));
        let pool = pool.map_err(|error| CopyError::Open(side, OpenError::Database(error.into())))?;
        let lock = Session::new(connection(&pool).await.map_err(unusable)?);
        if side == Side::Source && !exists(&lock).await.map_err(unusable)? {
            return Err(CopyError::Missing(side));
        }
        drop(lock);
        schema::migrate(&pool).await.map_err(|error| CopyError::Open(side, error))?;
        let lock = Session::new(connection(&pool).await.map_err(unusable)?);
        if !try_lock(&lock).await.map_err(unusable)? {
            return Err(CopyError::Busy(side));
        }
        let session = Session::new(connection(&pool).await.map_err(unusable)?);
        let row = session.query_one("SELECT 'meta'::regclass::oid::bigint AS class", &[]).await.map_err(unusable)?;
        let class = int(&row, "class").map_err(unusable)?;
        Ok(Self {
            session,
            _lock: lock,
            lock_class: u32::try_from(class).unwrap_or_default().cast_signed(),
            types: Mutex::default(),
            rows: AtomicUsize::new(64),
        })
    }

    /// Runs `work` in a transaction. A failed transaction is rolled back, at the latest by the end of the connection.
    async fn committed<T>(&self, work: impl Future<Output = Result<T, PgError>> + Send) -> Result<T, Fault> {
        self.session.batch(BEGIN).await?;
        let outcome = work.await;
        match outcome {
            Ok(value) => {
                self.session.batch("COMMIT").await?;
                Ok(value)
            }
            Err(error) => {
                let _ = self.session.batch("ROLLBACK").await;
                Err(error.into())
            }
        }
    }

    /// The types of the selection's columns, in their order.
    async fn types_of(&self, selection: &Selection) -> Result<Vec<Type>, Fault> {
        let known = |types: &HashMap<&'static str, HashMap<String, Type>>| -> Option<Vec<Type>> {
            let types = types.get(selection.table)?;
            selection.columns.iter().map(|column| types.get(column).cloned()).collect()
        };
        if self.types().get(selection.table).is_none() {
            self.columns(selection.table).await?;
        }
        known(&self.types()).ok_or_else(|| Box::new(UnexpectedValue("of a copied table")).into())
    }

    fn types(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, HashMap<String, Type>>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a store exists there, and not only its tables.
async fn exists(session: &Session) -> Result<bool, PgError> {
    let table = session.query_one("SELECT to_regclass('meta') IS NOT NULL AS made", &[]).await?;
    if !get(&table, "made")? {
        return Ok(false);
    }
    Ok(meta::find(session, "store_tag").await?.is_some())
}

/// Holds the lock until the connection is closed.
async fn try_lock(session: &Session) -> Result<bool, PgError> {
    session.batch("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    let sql = "SELECT pg_try_advisory_xact_lock(hashtext('postrider copy'), hashtext(current_schema())) AS locked";
    get(&session.query_one(sql, &[]).await?, "locked")
}

#[async_trait]
impl Tables for PostgresTables {
    fn holds_nul(&self) -> bool {
        false
    }

    async fn is_in_use(&self) -> Result<bool, Fault> {
        Ok(node::is_any_active(&self.session).await?)
    }

    async fn columns(&self, table: &'static str) -> Result<Vec<String>, Fault> {
        let sql = "SELECT attname::text AS name, typname::text AS kind
                   FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
                   WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum";
        let mut names = Vec::new();
        let mut types = HashMap::new();
        for row in self.session.query(sql, &[&table]).await? {
            let name: String = get(&row, "name")?;
            let kind = type_named(get(&row, "kind")?).ok_or(UnexpectedValue("pg_type.typname"))?;
            types.insert(name.clone(), kind);
            names.push(name);
        }
        self.types().insert(table, types);
        Ok(names)
    }

    async fn numbers(&self, sql: &str) -> Result<Vec<i64>, Fault> {
        // A count of all rows reads all of them.
        let all = "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on";
        let counting = async {
            self.session.batch(all).await?;
            self.session.query_one(sql, &[]).await
        };
        let row = self.committed(counting).await?;
        (0..row.len())
            .map(|column| match row.try_get::<_, CopiedValue>(column)?.0 {
                Value::Integer(number) => Ok(number),
                _ => Err(Box::new(UnexpectedValue("of a count")).into()),
            })
            .collect()
    }

    async fn read(&self, selection: &Selection, after: Option<&[Value]>) -> Result<Vec<Row>, Fault> {
        let types = self.types_of(selection).await?;
        let most = self.rows.load(Ordering::Relaxed);
        let sql = reading(selection, after.is_some(), "$", most);
        let after: Vec<CopiedValue> = after.unwrap_or_default().iter().cloned().map(CopiedValue).collect();
        let key: Vec<(&(dyn ToSql + Sync), Type)> =
            after.iter().zip(types).map(|(value, kind)| (value as &(dyn ToSql + Sync), kind)).collect();
        let (rows, is_full) = self
            .committed(async {
                let mut found = pin!(self.session.stream(&sql, &key).await?);
                let (mut rows, mut bytes) = (Vec::new(), 0);
                while bytes < BATCH_BYTES
                    && let Some(row) = found.try_next().await?
                {
                    let values: Row = (0..row.len())
                        .map(|column| Ok(row.try_get::<_, CopiedValue>(column)?.0))
                        .collect::<Result<_, tokio_postgres::Error>>()?;
                    bytes += bytes_of(&values);
                    rows.push(values);
                }
                Ok((rows, bytes >= BATCH_BYTES))
            })
            .await?;
        // Rows beyond a full batch are transferred for nothing, so request fewer next time.
        let next = if is_full { rows.len().max(1) } else { (most * 2).min(BATCH_ROWS) };
        self.rows.store(next, Ordering::Relaxed);
        Ok(rows)
    }

    async fn write(&self, selection: &Selection, rows: Vec<Row>, mark: Mark) -> Result<(), Fault> {
        let types = self.types_of(selection).await?;
        let rows: Vec<Vec<CopiedValue>> =
            rows.into_iter().map(|row| row.into_iter().map(CopiedValue).collect()).collect();
        let (table, columns) = (selection.table, quoted(&selection.columns));
        let sql = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
        self.committed(async {
            self.session.copy_in(&sql, &types, &rows).await?;
            set_mark(&self.session, &mark).await
        })
        .await
    }

    async fn find_mark(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        Ok(meta::find(&self.session, name).await?)
    }

    async fn set_mark(&self, mark: Mark) -> Result<(), Fault> {
        self.committed(set_mark(&self.session, &mark)).await
    }

    async fn remove_marks(&self) -> Result<(), Fault> {
        let sql = format!("DELETE FROM meta WHERE {IS_MARK}");
        self.committed(self.session.batch(&sql)).await
    }

    async fn make_ready(&self, oldest: Timestamp, now: Timestamp) -> Result<(), Fault> {
        partition::ensure_days_since(&self.session, self.lock_class, oldest, now).await?;
        let sql = format!("DELETE FROM meta WHERE NOT {IS_MARK}; DELETE FROM catalogues");
        self.committed(self.session.batch(&sql)).await
    }

    async fn finish(&self, now: Timestamp) -> Result<(), Fault> {
        let release = "UPDATE due SET due_at = $1 WHERE claim_token IS NOT NULL AND due_at > $1";
        let unmark = format!("DELETE FROM meta WHERE {IS_MARK}");
        self.committed(async {
            // The token stays: the next claim records the lost attempt.
            self.session.execute(release, &[&now.millis()]).await?;
            lane::reset_released(&self.session).await?;
            self.session.batch(&unmark).await
        })
        .await
    }
}

async fn set_mark(session: &Session, mark: &Mark) -> Result<(), PgError> {
    let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    session.execute(sql, &[&mark.name, &mark.value]).await?;
    Ok(())
}

/// A column type that the store uses.
fn type_named(name: &str) -> Option<Type> {
    [Type::INT2, Type::INT4, Type::INT8, Type::BOOL, Type::TEXT, Type::BYTEA]
        .into_iter()
        .find(|kind| kind.name() == name)
}

/// A copied value as the driver reads and writes it.
#[derive(Debug)]
struct CopiedValue(Value);

impl ToSql for CopiedValue {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        match (&self.0, kind) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Integer(number), &Type::INT8) => number.to_sql(kind, out),
            (Value::Integer(number), &Type::INT4) => i32::try_from(*number)?.to_sql(kind, out),
            (Value::Integer(number), &Type::INT2) => i16::try_from(*number)?.to_sql(kind, out),
            (Value::Integer(number @ 0..=1), &Type::BOOL) => (*number == 1).to_sql(kind, out),
            (Value::Text(text), &Type::TEXT) => text.to_sql(kind, out),
            (Value::Bytes(bytes), &Type::BYTEA) => bytes.to_sql(kind, out),
            _ => Err(Box::new(UnexpectedValue("of a copied table"))),
        }
    }

    fn accepts(kind: &Type) -> bool {
        type_named(kind.name()).is_some()
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for CopiedValue {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Fault> {
        Ok(Self(match *kind {
            Type::INT8 => Value::Integer(i64::from_sql(kind, raw)?),
            Type::INT4 => Value::Integer(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Value::Integer(i16::from_sql(kind, raw)?.into()),
            Type::BOOL => Value::Integer(bool::from_sql(kind, raw)?.into()),
            Type::TEXT => Value::Text(String::from_sql(kind, raw)?),
            _ => Value::Bytes(Vec::from_sql(kind, raw)?),
        }))
    }

    fn from_sql_null(_kind: &Type) -> Result<Self, Fault> {
        Ok(Self(Value::Null))
    }

    fn accepts(kind: &Type) -> bool {
        type_named(kind.name()).is_some()
    }
}
