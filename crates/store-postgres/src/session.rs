//! One connection while it is used, and the values that go into statements.
//!
//! Every statement goes unnamed with the types of its values told, in one round trip: nothing is prepared that would have to
//! outlive a transaction, so all of it works behind a pooler that gives a connection for one transaction at a time.

use std::pin::pin;

use deadpool_postgres::Object;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, RowStream};

use super::fault::PgError;

/// A value of a statement, which knows the type it goes as.
pub trait Value: ToSql + Sync {
    fn kind(&self) -> Type;
    fn as_sql(&self) -> &(dyn ToSql + Sync);
}

/// A Rust type and the one of PostgreSQL it goes as.
pub trait Typed: ToSql + Sync {
    const TYPE: Type;
}

impl<T: Typed> Value for T {
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
            impl Typed for $rust {
                const TYPE: Type = Type::$one;
            }
            impl Typed for Option<$rust> {
                const TYPE: Type = Type::$one;
            }
            impl Typed for Vec<$rust> {
                const TYPE: Type = Type::$many;
            }
            impl Typed for Vec<Option<$rust>> {
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

/// The values of a statement, in order.
pub type Values<'v> = &'v [&'v dyn Value];

/// What follows each BEGIN. Whoever stands still in the middle of a transaction, or is cut off from the network, is thrown out of it: its
/// locks must not keep the other nodes from their work.
pub const NO_STANDSTILL: &str = "SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// A connection that nobody else uses meanwhile.
pub struct Session(Object);

impl Session {
    pub const fn new(connection: Object) -> Self {
        Self(connection)
    }

    pub async fn query(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, PgError> {
        Ok(self.0.query_typed(sql, &typed(values)).await?)
    }

    /// The one row, if there is one.
    pub async fn query_opt(&self, sql: &str, values: Values<'_>) -> Result<Option<Row>, PgError> {
        Ok(self.0.query_typed_opt(sql, &typed(values)).await?)
    }

    /// The one row that there must be.
    pub async fn query_one(&self, sql: &str, values: Values<'_>) -> Result<Row, PgError> {
        Ok(self.0.query_typed_one(sql, &typed(values)).await?)
    }

    /// How many rows it changed.
    pub async fn execute(&self, sql: &str, values: Values<'_>) -> Result<u64, PgError> {
        Ok(self.0.execute_typed(sql, &typed(values)).await?)
    }

    /// Statements without values, one after the other.
    pub async fn batch(&self, sql: &str) -> Result<(), PgError> {
        Ok(self.0.batch_execute(sql).await?)
    }

    /// Rows as they come. Those that are not waited for are thrown away as they arrive.
    pub async fn stream(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<RowStream, PgError> {
        let values = values.iter().map(|(value, kind)| (*value, kind.clone()));
        Ok(self.0.query_typed_raw(sql, values).await?)
    }

    /// Adds rows by a `COPY … FROM STDIN (FORMAT binary)`, each of as many values as there are types.
    pub async fn copy_in<T: ToSql + Sync>(&self, sql: &str, types: &[Type], rows: &[Vec<T>]) -> Result<(), PgError> {
        let writer = BinaryCopyInWriter::new(self.0.copy_in(sql).await?, types);
        let mut writer = pin!(writer);
        for row in rows {
            writer.as_mut().write_raw(row).await?;
        }
        writer.finish().await?;
        Ok(())
    }

    /// Closes the connection instead of giving it back: its state is not known.
    pub fn discard(self) {
        drop(Object::take(self.0));
    }
}

fn typed<'v>(values: Values<'v>) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
    values.iter().map(|value| (value.as_sql(), value.kind())).collect()
}
