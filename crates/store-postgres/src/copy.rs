//! The database's tables as bare tables, for copying.
//!
//! Nothing is set for a session but a lock, which lies in a transaction of its own: so copying works through a pooler too.

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
    /// Holds the lock that lets one copy at a time use the store.
    _lock: Session,
    lock_class: i32,
    /// The types of the columns of the tables looked at.
    types: Mutex<HashMap<&'static str, HashMap<String, Type>>>,
    /// Rows to ask for at once: the fewer, the larger they were.
    rows: AtomicUsize,
}

/// One to copy on, one for the lock; while the schema is brought up to date, both are needed for that.
const CONNECTIONS: usize = 2;

/// How each transaction begins: it may take as long as it takes, and goes by the indexes on the primary keys whatever the planner
/// knows of the tables by now.
const BEGIN: &str =
    "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
                     SET LOCAL jit = off";

impl PostgresTables {
    /// Opens the store and brings its schema up to date. That of the target is made when it does not exist.
    ///
    /// # Errors
    /// When there is none to copy from, another copy uses it, or it cannot be opened.
    pub async fn open(settings: &PostgresSettings, side: Side) -> Result<Self, CopyError> {
        let unusable = |error: PgError| CopyError::Open(side, OpenError::Database(error.into()));
        let target = ConnectionConfig::of(&settings.url, settings);
        let pool = target.and_then(|target| target.pool(CONNECTIONS));
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

    /// Runs in a transaction, which is rolled back by the end of the connection if it failed.
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

/// Whether a store was made there, and not only its tables.
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
        // To count all rows, all are read.
        let all = "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on";
        let counting = async {
            self.session.batch(all).await?;
            self.session.query_one(sql, &[]).await
        };
        let row = self.committed(counting).await?;
        (0..row.len())
            .map(|column| match row.try_get::<_, Column>(column)?.0 {
                Value::Integer(number) => Ok(number),
                _ => Err(Box::new(UnexpectedValue("of a count")).into()),
            })
            .collect()
    }

    async fn read(&self, selection: &Selection, after: Option<&[Value]>) -> Result<Vec<Row>, Fault> {
        let types = self.types_of(selection).await?;
        let most = self.rows.load(Ordering::Relaxed);
        let sql = reading(selection, after.is_some(), "$", most);
        let after: Vec<Column> = after.unwrap_or_default().iter().cloned().map(Column).collect();
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
                        .map(|column| Ok(row.try_get::<_, Column>(column)?.0))
                        .collect::<Result<_, tokio_postgres::Error>>()?;
                    bytes += bytes_of(&values);
                    rows.push(values);
                }
                Ok((rows, bytes >= BATCH_BYTES))
            })
            .await?;
        // What is asked for beyond a full batch is sent for nothing.
        let next = if is_full { rows.len().max(1) } else { (most * 2).min(BATCH_ROWS) };
        self.rows.store(next, Ordering::Relaxed);
        Ok(rows)
    }

    async fn write(&self, selection: &Selection, rows: Vec<Row>, mark: Mark) -> Result<(), Fault> {
        let types = self.types_of(selection).await?;
        let rows: Vec<Vec<Column>> = rows.into_iter().map(|row| row.into_iter().map(Column).collect()).collect();
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
        partition::make_days_since(&self.session, self.lock_class, oldest, now).await?;
        let sql = format!("DELETE FROM meta WHERE NOT {IS_MARK}; DELETE FROM catalogues");
        self.committed(self.session.batch(&sql)).await
    }

    async fn finish(&self, now: Timestamp) -> Result<(), Fault> {
        let release = "UPDATE due SET due_at = $1 WHERE claim_token IS NOT NULL AND due_at > $1";
        let unmark = format!("DELETE FROM meta WHERE {IS_MARK}");
        self.committed(async {
            // The token stays: whoever claims next records the attempt that was lost.
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

/// The types that columns of ours have.
fn type_named(name: &str) -> Option<Type> {
    [Type::INT2, Type::INT4, Type::INT8, Type::BOOL, Type::TEXT, Type::BYTEA]
        .into_iter()
        .find(|kind| kind.name() == name)
}

/// A copied value, as the driver reads and writes it.
#[derive(Debug)]
struct Column(Value);

impl ToSql for Column {
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

impl<'a> FromSql<'a> for Column {
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
