//! The keys that sign deliveries: each version of an endpoint's secret is opened once, then cached.
//!
//! A version of a secret never changes, so a cached key cannot be stale. The claim names the version that signs. Only
//! the newest version can get its `v1a` key later than its secret, so only there a missing key is looked up again.

use std::sync::{Arc, Mutex, PoisonError};

use postrider_crypto::{MacKey, SigningKey, Unsealable};
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::endpoint::{SecretVersion, sealing_record, signing_key_record};
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::secret::{SigningSecret, WebhookSecret};
use postrider_domain::signing::SignatureKeys;
use postrider_store::sealing::keyring::Keyring;
use postrider_store::{Claim, EndpointTarget, Secrets, StoreError};

pub struct Signer {
    store: Arc<dyn Secrets>,
    keyring: Arc<Keyring>,
    mac_keys: OpenedKeys<MacKey>,
    /// `None` for a version that has no `v1a` key and will get none.
    signing_keys: OpenedKeys<Option<SigningKey>>,
}

/// Why a delivery cannot be signed. Never the receiver's fault.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("cannot read the signing secret from the store")]
    Store(#[from] StoreError),
    #[error("cannot open the signing secret with the master key")]
    Sealed(#[from] Unsealable),
    #[error("the endpoint has no valid signing secret of this version")]
    Missing,
}

impl Signer {
    pub fn new(store: Arc<dyn Secrets>, keyring: Arc<Keyring>) -> Self {
        Self { store, keyring, mac_keys: OpenedKeys::default(), signing_keys: OpenedKeys::default() }
    }

    /// The keys that sign the delivery, in the order of the signatures.
    pub async fn keys(&self, claim: &Claim) -> Result<(SignatureKeys, Option<SignatureKeys>), SignError> {
        let first = self.keys_of(&claim.endpoint, claim.secret_version).await?;
        let second = match claim.also_secret_version {
            None => None,
            Some(version) => Some(self.keys_of(&claim.endpoint, version).await?),
        };
        Ok((first, second))
    }

    async fn keys_of(&self, endpoint: &EndpointTarget, version: SecretVersion) -> Result<SignatureKeys, SignError> {
        let mac = self.mac_key(endpoint, version).await?;
        let signing = match endpoint.options.signature_schemes.has_v1a() {
            true => self.signing_key(endpoint, version).await?,
            false => None,
        };
        Ok(SignatureKeys { mac, signing })
    }

    async fn mac_key(&self, endpoint: &EndpointTarget, version: SecretVersion) -> Result<MacKey, SignError> {
        let name = (endpoint.endpoint_key, version);
        if let Some(key) = self.mac_keys.get(name) {
            return Ok(key);
        }
        let sealed = self.store.find_secret(name.0, version).await?.ok_or(SignError::Missing)?;
        let opened = self.keyring.open_or_refresh(&sealing_record(endpoint.id, version), &sealed).await?;
        let secret = std::str::from_utf8(&opened).ok().and_then(|text| WebhookSecret::parse(text).ok());
        let key = secret.ok_or(SignError::Missing)?.mac_key();
        self.mac_keys.insert(name, key.clone());
        Ok(key)
    }

    async fn signing_key(
        &self,
        endpoint: &EndpointTarget,
        version: SecretVersion,
    ) -> Result<Option<SigningKey>, SignError> {
        let name = (endpoint.endpoint_key, version);
        if let Some(key) = self.signing_keys.get(name) {
            return Ok(key);
        }
        let Some(sealed) = self.store.find_signing_key(name.0, version).await? else {
            if version == endpoint.secret_version {
                return Err(SignError::Missing);
            }
            self.signing_keys.insert(name, None);
            return Ok(None);
        };
        let opened = self.keyring.open_or_refresh(&signing_key_record(endpoint.id, version), &sealed).await?;
        let secret = std::str::from_utf8(&opened).ok().and_then(|text| SigningSecret::parse(text).ok());
        let key = secret.ok_or(SignError::Missing)?.key();
        self.signing_keys.insert(name, Some(key.clone()));
        Ok(Some(key))
    }
}

/// Opened keys by endpoint and version.
struct OpenedKeys<T>(Mutex<BoundedCache<(RowKey, SecretVersion), T>>);

impl<T> Default for OpenedKeys<T> {
    fn default() -> Self {
        Self(Mutex::new(BoundedCache::new(limits::SIGNING_KEYS_CACHED)))
    }
}

impl<T: Clone> OpenedKeys<T> {
    fn get(&self, name: (RowKey, SecretVersion)) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    fn insert(&self, name: (RowKey, SecretVersion), key: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, key);
    }
}
