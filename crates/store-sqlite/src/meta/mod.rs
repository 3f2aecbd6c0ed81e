//! The store's own facts: its tag, its keys, named values, and its event catalogue.
//!
//! Writes `meta`.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use postrider_domain::disk::DiskState;
use postrider_domain::id::{RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::sealing::key_state::{KeyState, STATE};
use postrider_store::sealing::{FactChange, OutdatedKey};
use postrider_store::{CatalogueAdoption, Meta, NewCatalogue, StoreError, copy};

use crate::SqliteStore;
use crate::machinery::column;
use crate::machinery::writer::{JobSize, WriteTx};

mod catalogue;

#[async_trait]
impl Meta for SqliteStore {
    fn tag(&self) -> StoreTag {
        self.tag
    }

    fn next_key(&self) -> RowKey {
        self.keys.next(self.clock.now())
    }

    fn enable_operational_events(&self, workspace: RowKey) {
        if let Some(writer) = &self.writer {
            writer.enable_operational_events(workspace);
        }
    }

    fn limit_stored_bytes(&self, max: u64) {
        if let Some(writer) = &self.writer {
            writer.limit_stored_bytes(max);
        }
    }

    fn disk_state(&self) -> DiskState {
        self.disk.state()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.read(|tx| tx.connection.query_row("SELECT 1", [], |_row| Ok(()))).await?;
        // A real write: an empty transaction succeeds on a full disk and in a read-only database.
        self.write(JobSize::ONE_ROW, |tx| keep_time(tx.connection, tx.now)).await
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |tx| find(tx.connection, name)).await
    }

    async fn meta_or_insert(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| meta_or_insert(tx.connection, name, &value)).await
    }

    async fn adopt_catalogue(&self, new: NewCatalogue) -> Result<CatalogueAdoption, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| catalogue::adopt(tx, &new)).await
    }

    async fn catalogue(&self) -> Result<Option<String>, StoreError> {
        self.read(|tx| Ok(catalogue::find_newest(tx.connection)?.map(|stored| stored.text))).await
    }
}

/// The store's tag. Stores `if_new` first if it has none.
pub fn store_tag(connection: &Connection, if_new: StoreTag) -> Result<StoreTag, rusqlite::Error> {
    let stored = meta_or_insert(connection, "store_tag", &if_new.as_u32().to_be_bytes())?;
    let bytes: [u8; 4] = stored.try_into().map_err(|_| column::unexpected("meta.store_tag"))?;
    Ok(StoreTag::from_u32(u32::from_be_bytes(bytes)))
}

/// The tag of a store that has one.
pub fn stored_tag(connection: &Connection) -> Result<StoreTag, rusqlite::Error> {
    let stored = find(connection, "store_tag")?.ok_or_else(|| column::unexpected("meta.store_tag"))?;
    let bytes: [u8; 4] = stored.try_into().map_err(|_| column::unexpected("meta.store_tag"))?;
    Ok(StoreTag::from_u32(u32::from_be_bytes(bytes)))
}

pub const LAST_TIME: &str = "last_time";

/// The last kept instant of the store's clock. Zero if there is none, or if it is so far ahead that the clock was
/// wrong.
pub fn last_time(connection: &Connection, now: Timestamp) -> Result<Timestamp, rusqlite::Error> {
    let find = "SELECT value FROM meta WHERE name = ?1";
    let stored: Option<Vec<u8>> = connection.query_row(find, [LAST_TIME], |row| row.get(0)).optional()?;
    let bytes: Option<[u8; 8]> =
        stored.map(|bytes| bytes.try_into().map_err(|_| column::unexpected("meta.last_time"))).transpose()?;
    let last = Timestamp::from_millis(bytes.map_or(0, i64::from_be_bytes));
    Ok(if last > now.plus(limits::CLOCK_AHEAD_MAX) { Timestamp::default() } else { last })
}

/// Keeps the instant, so that the clock of the next run does not begin before it.
pub fn keep_time(connection: &Connection, now: Timestamp) -> Result<(), rusqlite::Error> {
    set_fact(connection, LAST_TIME, &now.millis().to_be_bytes())
}

/// Stores the fact, whatever it was before.
pub fn set_fact(connection: &Connection, name: &str, value: &[u8]) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.prepare_cached(sql)?.execute(params![name, value])?;
    Ok(())
}

/// A row key that is kept as a fact. The lowest of all if there is none.
pub fn row_key(connection: &Connection, name: &str) -> Result<RowKey, rusqlite::Error> {
    let Some(bytes) = find(connection, name)? else { return Ok(RowKey::from_i64(0)) };
    let bytes: [u8; 8] = bytes.try_into().map_err(|_| column::unexpected("meta.value"))?;
    Ok(RowKey::from_i64(i64::from_be_bytes(bytes)))
}

pub fn set_row_key(tx: &WriteTx<'_>, name: &str, key: RowKey) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.connection.prepare_cached(sql)?.execute(params![name, key.as_i64().to_be_bytes()])?;
    Ok(())
}

pub fn is_unfinished_copy(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM meta WHERE name = ?1)", [copy::UNFINISHED], |row| row.get(0))
}

fn meta_or_insert(connection: &Connection, name: &str, value: &[u8]) -> Result<Vec<u8>, rusqlite::Error> {
    connection
        .execute("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![name, value])?;
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
}

/// The fact, if it is stored.
pub fn find(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// Changes the facts if each is as its change says. Otherwise writes nothing and returns false.
pub fn change_if_unchanged(tx: &WriteTx<'_>, facts: &[FactChange]) -> Result<bool, rusqlite::Error> {
    for fact in facts {
        if find(tx.connection, fact.name)? != fact.from {
            return Ok(false);
        }
    }
    for FactChange { name, to, .. } in facts {
        match to {
            Some(value) => tx
                .connection
                .prepare_cached(
                    "INSERT INTO meta (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                )?
                .execute(params![name, value])?,
            None => tx.connection.prepare_cached("DELETE FROM meta WHERE name = ?1")?.execute([name])?,
        };
    }
    Ok(true)
}

/// Refuses sealed bytes that would not open once the change of the master key is complete.
pub fn check_sealed(tx: &WriteTx<'_>, sealed: &[u8]) -> Result<(), rusqlite::Error> {
    let state = KeyState::read(find(tx.connection, STATE)?.as_deref())
        .map_err(|_| column::unexpected("meta.master_key_state"))?;
    match state.accepts(sealed) {
        true => Ok(()),
        false => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(OutdatedKey))),
    }
}
