//! The store's event catalogue: which one counts, and what may take its place.

use postrider_store::{CatalogueAdoption, NewCatalogue};

use super::column::{get, number};
use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;

struct StoredCatalogue {
    version: u32,
    text: String,
    content_hash: Vec<u8>,
    brand: String,
    names: String,
}

async fn newest(session: &Session) -> Result<Option<StoredCatalogue>, PgError> {
    let sql = "SELECT version, text, content_hash, brand, names FROM catalogues ORDER BY version DESC LIMIT 1";
    let Some(row) = session.query_opt(sql, &[]).await? else { return Ok(None) };
    Ok(Some(StoredCatalogue {
        version: number(&row, "version")?,
        text: get(&row, "text")?,
        content_hash: get(&row, "content_hash")?,
        brand: get(&row, "brand")?,
        names: get(&row, "names")?,
    }))
}

pub async fn find(session: &Session) -> Result<Option<String>, PgError> {
    Ok(newest(session).await?.map(|stored| stored.text))
}

/// Two nodes may be started with different catalogues at once: the second is judged by what the first has stored.
pub async fn adopt(tx: &mut WriteTx, new: &NewCatalogue) -> Result<CatalogueAdoption, PgError> {
    // Nearly every start brings what is stored already. That needs no lock.
    if let Some(answer) = newest(tx).await?.and_then(|stored| unless_newer(stored, new).ok()) {
        return Ok(answer);
    }
    tx.batch("LOCK TABLE catalogues IN SHARE ROW EXCLUSIVE MODE").await?;
    let Some(stored) = newest(tx).await? else {
        insert(tx, new).await?;
        return Ok(CatalogueAdoption::Adopted);
    };
    let stored = match unless_newer(stored, new) {
        Ok(answer) => return Ok(answer),
        Err(stored) => stored,
    };
    if stored.brand != new.brand && has_api_keys(tx).await? {
        return Ok(CatalogueAdoption::BrandFixed { stored: stored.brand });
    }
    let mut in_use = Vec::new();
    for name in stored.names.split_whitespace().filter(|name| !new.names.iter().any(|kept| kept == name)) {
        if is_used(tx, name).await? {
            in_use.push(name.to_owned());
        }
    }
    if !in_use.is_empty() {
        return Ok(CatalogueAdoption::NamesInUse(in_use));
    }
    insert(tx, new).await?;
    Ok(CatalogueAdoption::Adopted)
}

/// What is answered when `new` is not newer than what is stored, which comes back otherwise.
fn unless_newer(stored: StoredCatalogue, new: &NewCatalogue) -> Result<CatalogueAdoption, StoredCatalogue> {
    if stored.version > new.version {
        return Ok(CatalogueAdoption::NewerStored { version: stored.version, text: stored.text });
    }
    if stored.version == new.version {
        let same = stored.content_hash == new.content_hash;
        return Ok(if same { CatalogueAdoption::Adopted } else { CatalogueAdoption::OtherContent });
    }
    Err(stored)
}

async fn insert(tx: &WriteTx, new: &NewCatalogue) -> Result<(), PgError> {
    tx.execute(
        "INSERT INTO catalogues (version, text, content_hash, brand, names, adopted_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            &i64::from(new.version),
            &new.text,
            &new.content_hash.as_slice(),
            &new.brand,
            &new.names.join(" "),
            &tx.now.millis(),
        ],
    )
    .await?;
    Ok(())
}

async fn has_api_keys(session: &Session) -> Result<bool, PgError> {
    get(&session.query_one("SELECT EXISTS (SELECT 1 FROM api_keys) AS found", &[]).await?, "found")
}

/// Reads all events when none is of this name, however long that takes. It happens at a start that drops a name, and at no
/// other time.
async fn is_used(session: &Session, name: &str) -> Result<bool, PgError> {
    session.batch("SET LOCAL statement_timeout = 0").await?;
    let sql = "SELECT EXISTS (SELECT 1 FROM endpoints
                              WHERE deleted_at IS NULL AND $1 = ANY (string_to_array(events, ' ')))
                   OR EXISTS (SELECT 1 FROM events WHERE type = $1) AS used";
    get(&session.query_one(sql, &[&name]).await?, "used")
}
