//! The keys that sign: opened once for each version of an endpoint's secret, then remembered.
//!
//! A version of a secret never changes, so what is remembered cannot be stale; which version signs stands in the
//! claim.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::crypto::{MacKey, MasterKey, Unsealable};
use crate::domain::endpoint::{SecretVersion, sealing_record};
use crate::domain::id::RowKey;
use crate::domain::secret::WebhookSecret;
use crate::store::{Claim, EndpointTarget, Store, StoreError};

/// Keys remembered; beyond it all are forgotten and opened again when needed.
const KEYS_KEPT: usize = 50_000;

pub struct Signer {
    store: Arc<dyn Store>,
    master_key: Arc<MasterKey>,
    keys: Mutex<HashMap<(RowKey, SecretVersion), MacKey>>,
}

/// Why a delivery cannot be signed. Never the receiver's fault.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the signing secret cannot be read")]
    Store(#[from] StoreError),
    #[error("the signing secret does not open")]
    Sealed(#[from] Unsealable),
    #[error("there is no signing secret of this version")]
    Missing,
}

impl Signer {
    pub fn new(store: Arc<dyn Store>, master_key: Arc<MasterKey>) -> Self {
        Self { store, master_key, keys: Mutex::default() }
    }

    /// The keys whose signatures the delivery carries, in their order.
    pub async fn keys(&self, claim: &Claim) -> Result<(MacKey, Option<MacKey>), SignError> {
        let first = self.key(&claim.endpoint, claim.secret_version).await?;
        let second = match claim.also_secret_version {
            None => None,
            Some(version) => Some(self.key(&claim.endpoint, version).await?),
        };
        Ok((first, second))
    }

    async fn key(&self, endpoint: &EndpointTarget, version: SecretVersion) -> Result<MacKey, SignError> {
        let name = (endpoint.lane.endpoint_key, version);
        if let Some(key) = self.remembered().get(&name) {
            return Ok(key.clone());
        }
        let sealed = self.store.find_secret(name.0, version).await?.ok_or(SignError::Missing)?;
        let opened = self.master_key.open(&sealing_record(endpoint.id, version), &sealed)?;
        let secret = std::str::from_utf8(&opened).ok().and_then(|text| WebhookSecret::parse(text).ok());
        let key = secret.ok_or(SignError::Missing)?.mac_key();
        let mut remembered = self.remembered();
        if remembered.len() >= KEYS_KEPT {
            remembered.clear();
        }
        remembered.insert(name, key.clone());
        Ok(key)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<(RowKey, SecretVersion), MacKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
