//! The row key after which a new process continues.
//!
//! Keys grow within one process whatever the clock does. After a restart they could collide: the clock may have been
//! set back, and the part of a key that identifies the process is random and small.

use rusqlite::Connection;

use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

/// The largest key in the store, apart from keys that are more than [`limits::CLOCK_AHEAD_MAX`] ahead: a wrong clock
/// made those, and every later row would get their time. The log reports keys that are ahead.
pub fn largest(connection: &Connection, now: Timestamp) -> Result<RowKey, rusqlite::Error> {
    let bound = RowKey::first_at(now.plus(limits::CLOCK_AHEAD_MAX));
    let (mut newest, mut newest_of_all) = (0, 0);
    for table in keyed_tables(connection)? {
        let last_below = |bound: i64| {
            let sql = format!("SELECT COALESCE(MAX(key), 0) FROM {table} WHERE key < ?1");
            connection.query_row(&sql, [bound], |row| row.get::<_, i64>(0))
        };
        newest = newest.max(last_below(bound.as_i64())?);
        newest_of_all = newest_of_all.max(last_below(i64::MAX)?);
    }
    let (newest, newest_of_all) = (RowKey::from_i64(newest), RowKey::from_i64(newest_of_all));
    if newest_of_all > newest {
        tracing::error!(
            latest = %newest_of_all.created_at(), %now, bound_secs = limits::CLOCK_AHEAD_MAX.as_secs(),
            "the store holds rows from far in the future: the clock is wrong now, or was wrong then"
        );
    } else if newest.created_at() > now {
        let ahead_ms = newest.created_at().since(now).as_millis();
        tracing::warn!(
            ahead_ms,
            "the clock is behind the newest row: new rows get the time of that row until the clock has caught up"
        );
    }
    Ok(newest)
}

/// The tables whose primary key comes from the key sequence.
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
    fn the_tables_with_row_keys_are_found() {
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
