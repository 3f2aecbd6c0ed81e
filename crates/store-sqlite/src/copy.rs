//! The database as bare tables, for the copy from one store to another. It holds the directory lock, so that no server
//! uses the store meanwhile.
//!
//! It writes every table: the rows of the source, marks of the copy in `meta`, and it empties `catalogues` first.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};

use postrider_domain::time::Timestamp;
use postrider_store::copy::{
    BATCH_BYTES, BATCH_ROWS, CopyError, Fault, IS_MARK, Mark, Row, Selection, Side, Tables, Value, bytes_of, quoted,
    reading,
};
use postrider_store::directory::DirectoryLock;
use postrider_store::erasure::OLD_FILE;
use postrider_store::{OpenError, UnexpectedValue};

use crate::SqliteStore;
use crate::machinery::{column, schema};

/// The tables of the store in one directory.
pub struct SqliteTables {
    connection: Arc<Mutex<Connection>>,
    _lock: DirectoryLock,
}

impl SqliteTables {
    /// Opens the store and migrates its schema. Creates the target if it does not exist.
    ///
    /// # Errors
    /// When the source does not exist, another process holds the directory, or the store cannot be opened.
    pub fn open(directory: &Path, side: Side) -> Result<Self, CopyError> {
        if side == Side::Source && !SqliteStore::is_in(directory) {
            return Err(CopyError::Missing(side));
        }
        let opened = || -> Result<Self, OpenError> {
            let lock = DirectoryLock::take(directory)?;
            let database_fault = |error: rusqlite::Error| OpenError::Database(error.into());
            let mut connection = schema::connect(&schema::database_path(directory)).map_err(database_fault)?;
            // No checkpoint thread runs here, so SQLite must checkpoint by itself.
            connection.execute_batch("PRAGMA wal_autocheckpoint = 4000").map_err(database_fault)?;
            schema::migrate(&mut connection)?;
            Ok(Self { connection: Arc::new(Mutex::new(connection)), _lock: lock })
        };
        opened().map_err(|error| CopyError::Open(side, error))
    }

    /// Runs `work` on a thread for blocking work.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Fault> {
        let connection = Arc::clone(&self.connection);
        let work = move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(tokio::task::spawn_blocking(work).await??)
    }
}

#[async_trait]
impl Tables for SqliteTables {
    fn holds_nul(&self) -> bool {
        true
    }

    async fn is_in_use(&self) -> Result<bool, Fault> {
        // The directory lock rules that out.
        Ok(false)
    }

    async fn columns(&self, table: &'static str) -> Result<Vec<String>, Fault> {
        self.with(move |connection| {
            connection
                .prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?
                .query_map([table], |row| row.get(0))?
                .collect()
        })
        .await
    }

    async fn numbers(&self, sql: &str) -> Result<Vec<i64>, Fault> {
        let sql = sql.to_owned();
        self.with(move |connection| {
            connection
                .query_row(&sql, [], |row| (0..row.as_ref().column_count()).map(|column| row.get(column)).collect())
        })
        .await
    }

    async fn read(&self, selection: &Selection, after: Option<&[Value]>) -> Result<Vec<Row>, Fault> {
        let sql = reading(selection, after.is_some(), "?", BATCH_ROWS);
        let (columns, after) = (selection.columns.len(), after.unwrap_or_default().to_vec());
        self.with(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(params_from_iter(after.iter().map(Parameter)))?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES
                && let Some(row) = found.next()?
            {
                let values: Row = (0..columns)
                    .map(|column| value_of(row.get_ref(column)?))
                    .collect::<Result<_, rusqlite::Error>>()?;
                bytes += bytes_of(&values);
                rows.push(values);
            }
            Ok(rows)
        })
        .await
    }

    async fn write(&self, selection: &Selection, rows: Vec<Row>, mark: Mark) -> Result<(), Fault> {
        let parameters: Vec<String> = (1..=selection.columns.len()).map(|number| format!("?{number}")).collect();
        let (table, columns) = (selection.table, quoted(&selection.columns));
        let sql = format!("INSERT INTO {table} ({columns}) VALUES ({})", parameters.join(", "));
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(&sql)?;
            for row in rows {
                statement.execute(params_from_iter(row.iter().map(Parameter)))?;
            }
            drop(statement);
            set_mark(&transaction, &mark)?;
            transaction.commit()
        })
        .await
    }

    async fn find_mark(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let name = name.to_owned();
        self.with(move |connection| {
            connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
        })
        .await
    }

    async fn set_mark(&self, mark: Mark) -> Result<(), Fault> {
        self.with(move |connection| set_mark(connection, &mark)).await
    }

    async fn remove_marks(&self) -> Result<(), Fault> {
        self.with(|connection| connection.execute_batch(&format!("DELETE FROM meta WHERE {IS_MARK}"))).await
    }

    async fn make_ready(&self, _oldest: Timestamp, _now: Timestamp) -> Result<(), Fault> {
        let sql = format!("BEGIN; DELETE FROM meta WHERE NOT {IS_MARK}; DELETE FROM catalogues; COMMIT");
        self.with(move |connection| connection.execute_batch(&sql)).await
    }

    async fn finish(&self, _now: Timestamp) -> Result<(), Fault> {
        // The server that opens the store releases claims, as after every stop of another process.
        self.remove_marks().await?;
        // The source's file may be old; this one is new.
        self.with(|connection| connection.execute("DELETE FROM meta WHERE name = ?1", [OLD_FILE])).await?;
        self.with(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).await
    }
}

fn set_mark(connection: &Connection, mark: &Mark) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.prepare_cached(sql)?.execute(params![mark.name, mark.value])?;
    Ok(())
}

fn value_of(value: ValueRef<'_>) -> Result<Value, rusqlite::Error> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Text(_) => Value::Text(value.as_str()?.to_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Real(_) => return Err(column::broken(UnexpectedValue("of a copied table"))),
    })
}

/// A copied value as a parameter of a statement.
struct Parameter<'v>(&'v Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_store::copy::TABLES;

    /// A table that a migration adds must be added to what is copied. `erasure_filler` holds nothing.
    #[test]
    fn every_table_of_the_schema_is_copied_by_its_primary_key() {
        let directory = tempfile::tempdir().unwrap();
        let tables = SqliteTables::open(directory.path(), Side::Target).unwrap();
        let connection = tables.connection.lock().unwrap();
        let sql = "SELECT t.name, group_concat(c.name, ' ' ORDER BY c.pk) FROM sqlite_schema t
                   JOIN pragma_table_info(t.name) c ON c.pk > 0
                   WHERE t.type = 'table' AND t.name NOT IN ('refinery_schema_history', 'erasure_filler') GROUP BY t.name ORDER BY t.name";
        let mut statement = connection.prepare(sql).unwrap();
        let found: Vec<(String, String)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, rusqlite::Error>>()
            .unwrap();
        let mut copied: Vec<(String, String)> =
            TABLES.iter().map(|table| (table.name.to_owned(), table.key.join(" "))).collect();
        copied.sort();
        assert_eq!(found, copied);
    }
}
