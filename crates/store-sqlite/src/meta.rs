//! The store's facts about itself.

use rusqlite::params;

use postrider_domain::id::StoreTag;
use postrider_store::copy;

use super::column;

pub fn store_tag(connection: &rusqlite::Connection, if_new: StoreTag) -> Result<StoreTag, rusqlite::Error> {
    let kept = meta_or_insert(connection, "store_tag", &if_new.as_u32().to_be_bytes())?;
    let bytes: [u8; 4] = kept.try_into().map_err(|_| column::unexpected("meta.store_tag"))?;
    Ok(StoreTag::from_u32(u32::from_be_bytes(bytes)))
}

pub fn meta_or_insert(connection: &rusqlite::Connection, name: &str, value: &[u8]) -> Result<Vec<u8>, rusqlite::Error> {
    connection
        .execute("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![name, value])?;
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
}

pub fn is_unfinished_copy(connection: &rusqlite::Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM meta WHERE name = ?1)", [copy::UNFINISHED], |row| row.get(0))
}
