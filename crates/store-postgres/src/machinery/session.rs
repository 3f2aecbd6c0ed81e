//! One connection in use, and the parameters of statements.
//!
//! Each statement is sent unnamed, with the types of its parameters, in one round trip. Nothing is prepared that would
//! have to outlive a transaction. So everything works behind a pooler that assigns connections per transaction.

use std::pin::pin;

use deadpool_postgres::Object;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, RowStream};

use super::fault::PgError;

/// A parameter of a statement, which knows its SQL type.
pub trait Parameter: ToSql + Sync {
    fn kind(&self) -> Type;
    fn as_sql(&self) -> &(dyn ToSql + Sync);
}

/// A Rust type and the PostgreSQL type it is sent as.
pub trait SqlType: ToSql + Sync {
    const TYPE: Type;
}

impl<T: SqlType> Parameter for T {
    fn kind(&self) -> Type {
        T::TYPE
    }

    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        self
    }
}

macro_rules! typed {
    ($($rust:ty => $one:ident, $many:ident);+ $(;)?) => {
        $(
            impl SqlType for $rust {
                const TYPE: Type = Type::$one;
            }
            impl SqlType for Option<$rust> {
                const TYPE: Type = Type::$one;
            }
            impl SqlType for Vec<$rust> {
                const TYPE: Type = Type::$many;
            }
            impl SqlType for Vec<Option<$rust>> {
                const TYPE: Type = Type::$many;
            }
        )+
    };
}

typed! {
    i16 => INT2, INT2_ARRAY;
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    bool => BOOL, BOOL_ARRAY;
    String => TEXT, TEXT_ARRAY;
    &str => TEXT, TEXT_ARRAY;
    Vec<u8> => BYTEA, BYTEA_ARRAY;
    &[u8] => BYTEA, BYTEA_ARRAY;
}

/// The parameters of a statement, in order.
pub type Parameters<'v> = &'v [&'v dyn Parameter];

/// Follows each BEGIN. Ends a transaction whose node stands still or is cut off from the network: its locks must not
/// stop the other nodes.
pub const IDLE_TIMEOUT: &str = "SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// Planner settings of every transaction: use the indexes, whatever the planner thinks of the table sizes. The indexes
/// are made for the statements, and a table that grows from nothing is planned by its old size.
pub const PLANNER: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

/// A connection that nobody else uses meanwhile.
pub struct Session(Object);

impl Session {
    pub const fn new(connection: Object) -> Self {
        Self(connection)
    }

    pub async fn query(&self, sql: &str, values: Parameters<'_>) -> Result<Vec<Row>, PgError> {
        Ok(self.0.query_typed(sql, &typed(values)).await?)
    }

    /// At most one row.
    pub async fn query_opt(&self, sql: &str, values: Parameters<'_>) -> Result<Option<Row>, PgError> {
        Ok(self.0.query_typed_opt(sql, &typed(values)).await?)
    }

    /// Exactly one row.
    pub async fn query_one(&self, sql: &str, values: Parameters<'_>) -> Result<Row, PgError> {
        Ok(self.0.query_typed_one(sql, &typed(values)).await?)
    }

    /// Returns the number of changed rows.
    pub async fn execute(&self, sql: &str, values: Parameters<'_>) -> Result<u64, PgError> {
        Ok(self.0.execute_typed(sql, &typed(values)).await?)
    }

    /// Statements without parameters, one after the other.
    pub async fn batch(&self, sql: &str) -> Result<(), PgError> {
        Ok(self.0.batch_execute(sql).await?)
    }

    /// Rows as they arrive. Rows not read before the stream is dropped are discarded.
    pub async fn stream(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<RowStream, PgError> {
        let values = values.iter().map(|(value, kind)| (*value, kind.clone()));
        Ok(self.0.query_typed_raw(sql, values).await?)
    }

    /// Adds rows by `COPY … FROM STDIN (FORMAT binary)`. Each row has one value per type.
    pub async fn copy_in<T: ToSql + Sync>(&self, sql: &str, types: &[Type], rows: &[Vec<T>]) -> Result<(), PgError> {
        let writer = BinaryCopyInWriter::new(self.0.copy_in(sql).await?, types);
        let mut writer = pin!(writer);
        for row in rows {
            writer.as_mut().write_raw(row).await?;
        }
        writer.finish().await?;
        Ok(())
    }

    /// Closes the connection instead of returning it to the pool: its state is unknown.
    pub fn discard(self) {
        drop(Object::take(self.0));
    }
}

fn typed<'v>(values: Parameters<'v>) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
    values.iter().map(|value| (value.as_sql(), value.kind())).collect()
}
