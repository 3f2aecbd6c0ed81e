//! The store's facts about itself.

use super::column::get;
use super::fault::PgError;
use super::session::Session;

pub async fn find(session: &Session, name: &str) -> Result<Option<Vec<u8>>, PgError> {
    let row = session.query_opt("SELECT value FROM meta WHERE name = $1", &[&name]).await?;
    row.map(|row| get(&row, "value")).transpose()
}

/// Of two nodes that ask at once, the second waits here and then reads what the first has kept.
pub async fn meta_or_insert(session: &Session, name: &str, value: &[u8]) -> Result<Vec<u8>, PgError> {
    session
        .execute("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", &[&name, &value])
        .await?;
    get(&session.query_one("SELECT value FROM meta WHERE name = $1", &[&name]).await?, "value")
}

/// Whether this transaction could write. Only a write itself would be refused otherwise.
pub async fn check_writable(session: &Session) -> Result<(), PgError> {
    let sql = "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only FROM meta LIMIT 1";
    match session.query_opt(sql, &[]).await? {
        Some(row) if get(&row, "is_read_only")? => Err(PgError::Unavailable("the database is read-only")),
        _ => Ok(()),
    }
}
