//! The store's event catalogue: which one is in force, and which may replace it. Writes `catalogues`.

use postrider_store::{CatalogueAdoption, NewCatalogue, StoredCatalogue};

use crate::machinery::column::{get, number, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;

pub async fn find(session: &Session) -> Result<Option<String>, PgError> {
    Ok(find_newest(session).await?.map(|stored| stored.text))
}

/// Two nodes may start with different catalogues at once. The second is compared with the one that the first has
/// stored.
pub async fn adopt(tx: &mut WriteTx, new: &NewCatalogue) -> Result<CatalogueAdoption, PgError> {
    // Nearly every start offers the stored catalogue. That needs no lock.
    if let Some(answer) = find_newest(tx).await?.and_then(|stored| stored.compare(new)) {
        return Ok(answer);
    }
    tx.batch("LOCK TABLE catalogues IN SHARE ROW EXCLUSIVE MODE").await?;
    let Some(stored) = find_newest(tx).await? else {
        insert(tx, new).await?;
        return Ok(CatalogueAdoption::Adopted);
    };
    if let Some(answer) = stored.compare(new) {
        return Ok(answer);
    }
    if stored.brand != new.brand && has_api_keys(tx).await? {
        return Ok(CatalogueAdoption::BrandFixed { stored: stored.brand });
    }
    let mut in_use = Vec::new();
    for name in stored.names_missing_in(new) {
        if is_used(tx, name).await? {
            in_use.push(name.to_owned());
        }
    }
    if !in_use.is_empty() {
        return Ok(CatalogueAdoption::NamesInUse(in_use));
    }
    insert(tx, new).await?;
    // Nothing reads any but the newest.
    tx.execute("DELETE FROM catalogues WHERE version < $1", &[&i64::from(new.version)]).await?;
    Ok(CatalogueAdoption::Adopted)
}

async fn find_newest(session: &Session) -> Result<Option<StoredCatalogue>, PgError> {
    let sql = "SELECT version, text, content_hash, brand, names FROM catalogues ORDER BY version DESC LIMIT 1";
    let Some(row) = session.query_opt(sql, &[]).await? else { return Ok(None) };
    let content_hash: &[u8] = get(&row, "content_hash")?;
    Ok(Some(StoredCatalogue {
        version: number(&row, "version")?,
        text: get(&row, "text")?,
        content_hash: content_hash.try_into().map_err(|_| unexpected("catalogues.content_hash"))?,
        brand: get(&row, "brand")?,
        names: get(&row, "names")?,
    }))
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

/// Whether an endpoint or an event uses this name. Without a match it reads all events, so the statement timeout is
/// off. Runs only at a start whose catalogue drops a name.
async fn is_used(session: &Session, name: &str) -> Result<bool, PgError> {
    session.batch("SET LOCAL statement_timeout = 0").await?;
    let sql = "SELECT EXISTS (SELECT 1 FROM endpoints
                              WHERE deleted_at IS NULL AND $1 = ANY (string_to_array(events, ' ')))
                   OR EXISTS (SELECT 1 FROM events WHERE type = $1) AS used";
    get(&session.query_one(sql, &[&name]).await?, "used")
}
