//! The store's facts about itself. Writes `meta`.

use async_trait::async_trait;

use postrider_domain::disk::DiskState;
use postrider_domain::id::{RowKey, StoreTag};
use postrider_store::sealing::key_state::{KeyState, STATE};
use postrider_store::sealing::{FactChange, OUTDATED_KEY};
use postrider_store::{CatalogueAdoption, Meta, NewCatalogue, StoreError};

use crate::PostgresStore;
use crate::machinery::column::{get, unexpected};
use crate::machinery::fault::{PgError, unavailable};
use crate::machinery::session::Session;
use crate::machinery::time::CLOCK_IS_OFF;
use crate::machinery::transaction::{WriteTx, effect};

mod catalogue;

#[async_trait]
impl Meta for PostgresStore {
    fn tag(&self) -> StoreTag {
        self.database.tag
    }

    fn next_key(&self) -> RowKey {
        self.database.next_key(self.database.time.about_now())
    }

    fn enable_operational_events(&self, workspace: RowKey) {
        if self.database.operations.set(workspace).is_err() {
            tracing::error!("operational events are already enabled; the second workspace is ignored");
        }
    }

    fn limit_stored_bytes(&self, max: u64) {
        if self.database.stored.max.set(max).is_err() {
            tracing::error!("the budget of workspaces is already set: the second one is ignored");
        }
    }

    fn disk_state(&self) -> DiskState {
        self.disk.state()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.write(effect!(|tx| check_writable(tx))).await?;
        if self.database.time.is_off() { Err(unavailable(CLOCK_IS_OFF)) } else { Ok(()) }
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |session| Box::pin(find(session, name))).await
    }

    async fn meta_or_insert(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.write(effect!(|tx, value| find_or_insert(tx, name, &value))).await
    }

    async fn adopt_catalogue(&self, new: NewCatalogue) -> Result<CatalogueAdoption, StoreError> {
        self.write(effect!(|tx, new| catalogue::adopt(tx, &new))).await
    }

    async fn catalogue(&self) -> Result<Option<String>, StoreError> {
        self.read(|session| Box::pin(catalogue::find(session))).await
    }
}

pub async fn find(session: &Session, name: &str) -> Result<Option<Vec<u8>>, PgError> {
    let row = session.query_opt("SELECT value FROM meta WHERE name = $1", &[&name]).await?;
    row.map(|row| get(&row, "value")).transpose()
}

/// When two nodes insert at once, the second waits for the first and then reads the first node's value.
pub async fn find_or_insert(session: &Session, name: &str, value: &[u8]) -> Result<Vec<u8>, PgError> {
    session
        .execute("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", &[&name, &value])
        .await?;
    get(&session.query_one("SELECT value FROM meta WHERE name = $1", &[&name]).await?, "value")
}

/// A row key that is kept as a fact, 0 if it was not. Locks the fact. `None` while another transaction holds it.
pub async fn lock_row_key(tx: &WriteTx, name: &str) -> Result<Option<RowKey>, PgError> {
    let none = 0_i64.to_be_bytes().to_vec();
    tx.execute("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", &[&name, &none]).await?;
    let sql = "SELECT value FROM meta WHERE name = $1 FOR UPDATE SKIP LOCKED";
    let Some(row) = tx.query_opt(sql, &[&name]).await? else { return Ok(None) };
    let bytes: [u8; 8] = get::<Vec<u8>>(&row, "value")?.try_into().map_err(|_| unexpected("meta.value"))?;
    Ok(Some(RowKey::from_i64(i64::from_be_bytes(bytes))))
}

pub async fn set_row_key(tx: &WriteTx, name: &str, key: RowKey) -> Result<(), PgError> {
    let value = key.as_i64().to_be_bytes().to_vec();
    tx.execute("UPDATE meta SET value = $2 WHERE name = $1", &[&name, &value]).await.map(drop)
}

/// Writes a row. Without a write, a full disk and a table that may not be written would go unnoticed.
async fn check_writable(session: &Session) -> Result<(), PgError> {
    let sql = "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only";
    if get(&session.query_one(sql, &[]).await?, "is_read_only")? {
        return Err(PgError::Unavailable("the database is read-only"));
    }
    let sql = "INSERT INTO meta (name, value) VALUES ('last_check', '') ON CONFLICT (name) DO UPDATE SET value = ''";
    session.execute(sql, &[]).await.map(|_| ())
}

/// Changes the facts if each is as its change says. Otherwise writes nothing and returns false.
pub async fn change_if_unchanged(tx: &WriteTx, facts: &[FactChange]) -> Result<bool, PgError> {
    for fact in facts {
        let row = tx.query_opt("SELECT value FROM meta WHERE name = $1 FOR UPDATE", &[&fact.name]).await?;
        if row.map(|row| get::<Vec<u8>>(&row, "value")).transpose()? != fact.from {
            return Ok(false);
        }
    }
    for FactChange { name, from, to } in facts {
        let changed = match (from, to) {
            (_, None) => tx.execute("DELETE FROM meta WHERE name = $1", &[name]).await?,
            (Some(_), Some(value)) => tx.execute("UPDATE meta SET value = $2 WHERE name = $1", &[name, value]).await?,
            (None, Some(value)) => {
                let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
                tx.execute(sql, &[name, value]).await?
            }
        };
        if changed == 0 && from != to {
            // Another transaction inserted the fact meanwhile.
            return Err(PgError::Overtaken);
        }
    }
    Ok(true)
}

/// Refuses sealed bytes that would not open once the change of the master key is complete.
///
/// The lock keeps the state as it is until this transaction ends. So a phase of a change begins only when every value
/// that the phase before allowed is committed.
pub async fn check_sealed(tx: &WriteTx, sealed: &[&[u8]]) -> Result<(), PgError> {
    if sealed.is_empty() {
        return Ok(());
    }
    let row = tx.query_opt("SELECT value FROM meta WHERE name = $1 FOR SHARE", &[&STATE]).await?;
    let fact = row.as_ref().map(|row| get::<&[u8]>(row, "value")).transpose()?;
    let state = KeyState::read(fact).map_err(|_| unexpected("meta.master_key_state"))?;
    match sealed.iter().all(|sealed| state.accepts(sealed)) {
        true => Ok(()),
        false => Err(PgError::Unavailable(OUTDATED_KEY)),
    }
}
