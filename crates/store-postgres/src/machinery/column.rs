//! Reads columns into the types of the domain. Integers are read whatever their width.

use std::str::FromStr;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::UnexpectedValue;

use super::fault::PgError;

/// An integer of any width.
struct Int(i64);

impl<'a> FromSql<'a> for Int {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match *kind {
            Type::INT2 => i16::from_sql(kind, raw)?.into(),
            Type::INT4 => i32::from_sql(kind, raw)?.into(),
            _ => i64::from_sql(kind, raw)?,
        }))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT2 | Type::INT4 | Type::INT8)
    }
}

/// A column of a type that the driver reads itself: text, bytes, boolean. `Option` for a nullable column.
pub fn get<'r, T: FromSql<'r>>(row: &'r Row, column: &'static str) -> Result<T, PgError> {
    Ok(row.try_get(column)?)
}

pub fn opt_int(row: &Row, column: &'static str) -> Result<Option<i64>, PgError> {
    Ok(row.try_get::<_, Option<Int>>(column)?.map(|Int(value)| value))
}

pub fn int(row: &Row, column: &'static str) -> Result<i64, PgError> {
    Ok(row.try_get::<_, Int>(column)?.0)
}

/// An integer that fits another type: `u32`, `u16`, `usize`, `u64`.
pub fn number<T: TryFrom<i64>>(row: &Row, column: &'static str) -> Result<T, PgError> {
    T::try_from(int(row, column)?).map_err(|_| unexpected(column))
}

pub fn opt_number<T: TryFrom<i64>>(row: &Row, column: &'static str) -> Result<Option<T>, PgError> {
    opt_int(row, column)?.map(|value| T::try_from(value).map_err(|_| unexpected(column))).transpose()
}

pub fn key(row: &Row, column: &'static str) -> Result<RowKey, PgError> {
    int(row, column).map(RowKey::from_i64)
}

pub fn instant(row: &Row, column: &'static str) -> Result<Timestamp, PgError> {
    int(row, column).map(Timestamp::from_millis)
}

pub fn opt_instant(row: &Row, column: &'static str) -> Result<Option<Timestamp>, PgError> {
    Ok(opt_int(row, column)?.map(Timestamp::from_millis))
}

/// A column whose text is an id.
pub fn parsed<T: FromStr>(row: &Row, column: &'static str) -> Result<T, PgError> {
    get::<&str>(row, column)?.parse().map_err(|_| unexpected(column))
}

/// A column whose text is an id, or nothing.
pub fn opt_parsed<T: FromStr>(row: &Row, column: &'static str) -> Result<Option<T>, PgError> {
    get::<Option<&str>>(row, column)?.map(|text| text.parse().map_err(|_| unexpected(column))).transpose()
}

/// A column whose number encodes a variant.
pub fn coded<T>(row: &Row, column: &'static str, from_code: impl Fn(i64) -> Option<T>) -> Result<T, PgError> {
    from_code(int(row, column)?).ok_or_else(|| unexpected(column))
}

pub fn unexpected(column: &'static str) -> PgError {
    UnexpectedValue(column).into()
}
