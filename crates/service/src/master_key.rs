//! Ties a store to its master key: another key could not open the stored secrets.

use postrider_crypto::{MasterKey, Random};
use postrider_store::{Meta, StoreError};

/// Why a store cannot be used with a key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("the store was made with the master key {expected}, but the given key is {given}")]
    Other { expected: String, given: String },
    #[error("the master key has the right id but cannot open what it sealed: the key or the store is damaged")]
    Damaged,
    #[error(transparent)]
    Store(#[from] StoreError),
}

const CANARY: &[u8] = b"postrider canary";
const CANARY_RECORD: &str = "meta/canary";

/// Ties a new store to the key. Checks that an existing store belongs to it.
///
/// # Errors
/// When the store belongs to another key.
pub async fn check_master_key(store: &dyn Meta, key: &MasterKey, random: &Random) -> Result<(), MasterKeyError> {
    let given = key.id();
    let kept = store.meta_or_insert("master_key_id", given.clone().into_bytes()).await?;
    if kept != given.as_bytes() {
        let expected = String::from_utf8_lossy(&kept).into_owned();
        return Err(MasterKeyError::Other { expected, given });
    }
    let sealed = key.seal(random, CANARY_RECORD, CANARY);
    let sealed = store.meta_or_insert("canary", sealed).await?;
    match key.open(CANARY_RECORD, &sealed) {
        Ok(opened) if opened.as_slice() == CANARY => Ok(()),
        _ => Err(MasterKeyError::Damaged),
    }
}
