//! The store's event catalogue: which one counts, and what may take its place.

use rusqlite::{Connection, OptionalExtension, params};

use postrider_store::{CatalogueAdoption, NewCatalogue};

use super::writer::WriteTx;

struct StoredCatalogue {
    version: u32,
    text: String,
    content_hash: [u8; 32],
    brand: String,
    names: String,
}

fn newest(connection: &Connection) -> Result<Option<StoredCatalogue>, rusqlite::Error> {
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

pub fn find(connection: &Connection) -> Result<Option<String>, rusqlite::Error> {
    Ok(newest(connection)?.map(|stored| stored.text))
}

pub fn adopt(tx: &mut WriteTx<'_>, new: &NewCatalogue) -> Result<CatalogueAdoption, rusqlite::Error> {
    let Some(stored) = newest(tx.connection)? else {
        insert(tx, new)?;
        return Ok(CatalogueAdoption::Adopted);
    };
    if stored.version > new.version {
        return Ok(CatalogueAdoption::NewerStored { version: stored.version, text: stored.text });
    }
    if stored.version == new.version {
        let same = stored.content_hash == new.content_hash;
        return Ok(if same { CatalogueAdoption::Adopted } else { CatalogueAdoption::OtherContent });
    }
    if stored.brand != new.brand && has_api_keys(tx.connection)? {
        return Ok(CatalogueAdoption::BrandFixed { stored: stored.brand });
    }
    let mut in_use = Vec::new();
    for name in stored.names.split_whitespace().filter(|name| !new.names.iter().any(|kept| kept == name)) {
        if is_used(tx.connection, name)? {
            in_use.push(name.to_owned());
        }
    }
    if !in_use.is_empty() {
        return Ok(CatalogueAdoption::NamesInUse(in_use));
    }
    insert(tx, new)?;
    Ok(CatalogueAdoption::Adopted)
}

fn insert(tx: &WriteTx<'_>, new: &NewCatalogue) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO catalogues (version, text, content_hash, brand, names, adopted_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![new.version, new.text, new.content_hash, new.brand, new.names.join(" "), tx.now.millis(),])?;
    Ok(())
}

fn has_api_keys(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM api_keys)", [], |row| row.get(0))
}

/// Reads all events when none is of this name. That happens at a start that drops a name, and at no other time.
fn is_used(connection: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM endpoints
                        WHERE deleted_at IS NULL AND instr(' ' || events || ' ', ' ' || ?1 || ' ') > 0)
             OR EXISTS (SELECT 1 FROM events WHERE type = ?1)",
        [name],
        |row| row.get(0),
    )
}
