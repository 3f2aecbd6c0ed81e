//! Where row keys go on after a start.
//!
//! Keys grow within one process whatever the clock does. Over a restart they could meet again: the clock may have been set
//! back meanwhile, and the part of a key that tells processes apart is drawn at random and small.

use rusqlite::Connection;

use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

/// The largest key in the store, short of those that a clock gone wild has made: to go on after these would stamp everything
/// with its time for good. Both cases are told in the log.
pub fn largest(connection: &Connection, now: Timestamp) -> Result<RowKey, rusqlite::Error> {
    let bound = RowKey::first_at(now.plus(limits::CLOCK_AHEAD_MAX));
    let (mut followed, mut beyond) = (0, 0);
    for table in keyed_tables(connection)? {
        let last_below = |bound: i64| {
            let sql = format!("SELECT COALESCE(MAX(key), 0) FROM {table} WHERE key < ?1");
            connection.query_row(&sql, [bound], |row| row.get::<_, i64>(0))
        };
        followed = followed.max(last_below(bound.as_i64())?);
        beyond = beyond.max(last_below(i64::MAX)?);
    }
    let (followed, beyond) = (RowKey::from_i64(followed), RowKey::from_i64(beyond));
    if beyond > followed {
        tracing::error!(
            latest = %beyond.created_at(), %now, bound_secs = limits::CLOCK_AHEAD_MAX.as_secs(),
            "the store holds rows from far in the future: a clock was wrong, then or now"
        );
    } else if followed.created_at() > now {
        let ahead_ms = followed.created_at().since(now).as_millis();
        tracing::warn!(ahead_ms, "the clock is behind the newest row; new rows are stamped as if it were not");
    }
    Ok(followed)
}

/// Every table whose rows have keys from the sequence.
fn keyed_tables(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    connection
        .prepare(
            "SELECT t.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c ON c.name = 'key' AND c.pk = 1
             WHERE t.type = 'table'",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn the_tables_with_keys_of_the_sequence_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = schema::connect(&schema::database_path(directory.path())).unwrap();
        schema::migrate(&mut connection).unwrap();
        let tables = keyed_tables(&connection).unwrap();
        for table in ["workspaces", "api_keys", "endpoints", "events", "deliveries", "idempotency", "replays"] {
            assert!(tables.iter().any(|found| found == table), "{table} is not among {tables:?}");
        }
        assert_eq!(largest(&connection, Timestamp::from_millis(1)).unwrap(), RowKey::from_i64(0));
    }
}
