//! The store's event catalogue. `StoredCatalogue` compares versions; this file checks the rest: the brand, and names in
//! use.
//!
//! Writes `catalogues`.

use rusqlite::{Connection, OptionalExtension, params};

use postrider_store::{CatalogueAdoption, NewCatalogue, StoredCatalogue};

use crate::machinery::writer::WriteTx;

pub fn find_newest(connection: &Connection) -> Result<Option<StoredCatalogue>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT version, text, content_hash, brand, names FROM catalogues ORDER BY version DESC LIMIT 1",
        )?
        .query_row([], |row| {
            Ok(StoredCatalogue {
                version: row.get(0)?,
                text: row.get(1)?,
                content_hash: row.get(2)?,
                brand: row.get(3)?,
                names: row.get(4)?,
            })
        })
        .optional()
}

pub fn adopt(tx: &mut WriteTx<'_>, new: &NewCatalogue) -> Result<CatalogueAdoption, rusqlite::Error> {
    if let Some(stored) = find_newest(tx.connection)? {
        if let Some(decided) = stored.compare(new) {
            return Ok(decided);
        }
        if stored.brand != new.brand && has_api_keys(tx.connection)? {
            return Ok(CatalogueAdoption::BrandFixed { stored: stored.brand });
        }
        let mut in_use = Vec::new();
        for name in stored.names_missing_in(new) {
            if is_used(tx.connection, name)? {
                in_use.push(name.to_owned());
            }
        }
        if !in_use.is_empty() {
            return Ok(CatalogueAdoption::NamesInUse(in_use));
        }
    }
    insert(tx, new)?;
    // Nothing reads any but the newest.
    tx.connection.prepare_cached("DELETE FROM catalogues WHERE version < ?1")?.execute([new.version])?;
    Ok(CatalogueAdoption::Adopted)
}

fn insert(tx: &WriteTx<'_>, new: &NewCatalogue) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO catalogues (version, text, content_hash, brand, names, adopted_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![new.version, new.text, new.content_hash, new.brand, new.names.join(" "), tx.now.millis()])?;
    Ok(())
}

fn has_api_keys(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM api_keys)", [], |row| row.get(0))
}

/// Reads all events when none has this name. That happens only when a server starts with a catalogue that drops the
/// name.
fn is_used(connection: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM endpoints
                        WHERE deleted_at IS NULL AND instr(' ' || events || ' ', ' ' || ?1 || ' ') > 0)
             OR EXISTS (SELECT 1 FROM events WHERE type = ?1)",
        [name],
        |row| row.get(0),
    )
}
