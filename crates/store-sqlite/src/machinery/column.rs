//! Reads columns into the types of the domain.

use std::str::FromStr;

use rusqlite::Row;
use rusqlite::types::Type;

use postrider_store::UnexpectedValue;

/// A column that holds the text of an id.
pub fn parsed<T: FromStr>(row: &Row<'_>, column: &'static str) -> Result<T, rusqlite::Error> {
    row.get_ref(column)?.as_str()?.parse().map_err(|_| unexpected(column))
}

/// A column that holds the text of an id, or nothing.
pub fn opt_parsed<T: FromStr>(row: &Row<'_>, column: &'static str) -> Result<Option<T>, rusqlite::Error> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| text.parse().map_err(|_| unexpected(column))).transpose()
}

/// A column that holds the code of a variant.
pub fn coded<T>(
    row: &Row<'_>,
    column: &'static str,
    from_code: impl Fn(i64) -> Option<T>,
) -> Result<T, rusqlite::Error> {
    from_code(row.get(column)?).ok_or_else(|| unexpected(column))
}

pub fn unexpected(column: &'static str) -> rusqlite::Error {
    broken(UnexpectedValue(column))
}

pub fn broken(value: UnexpectedValue) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Null, Box::new(value))
}
