//! An endpoint's secret headers and client certificate: opened for the first request that needs them, then cached.
//!
//! The claim names the version that counts: options opened before a change are never used for a delivery claimed after
//! it. A delivery claimed before the change may use newer options, but only for the origin that they were given for.
//! Nothing here prints a value.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderName, HeaderValue};

use postrider_crypto::Unsealable;
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::endpoint::is_same_origin;
use postrider_domain::endpoint_options::SealedPart;
use postrider_domain::event_type::Brand;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::private_options::ClientCertificate;
use postrider_egress::{ClientIdentity, InvalidIdentity};
use postrider_store::sealing::keyring::Keyring;
use postrider_store::{EndpointTarget, SealedParts, Secrets, StoreError};

/// The secret options of one endpoint, ready for a request.
#[derive(Default)]
pub struct OpenedOptions {
    /// Marked as sensitive, so that the delivery log redacts their values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub identity: Option<Arc<ClientIdentity>>,
}

pub struct OptionsOpener {
    store: Arc<dyn Secrets>,
    keyring: Arc<Keyring>,
    brand: Brand,
    /// For endpoints without secret options.
    none: Arc<OpenedOptions>,
    opened: Mutex<BoundedCache<RowKey, CachedOptions>>,
}

/// The options of one endpoint at one version, and the URL that it had then.
struct CachedOptions {
    version: u32,
    url: String,
    opened: Arc<OpenedOptions>,
}

impl CachedOptions {
    fn serves(&self, endpoint: &EndpointTarget) -> bool {
        self.version >= endpoint.options.sealed_version && is_same_origin(&self.url, &endpoint.url)
    }
}

/// Why an endpoint's secret options cannot be used. Never the receiver's fault.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("cannot read the endpoint's sealed options from the store")]
    Store(#[from] StoreError),
    #[error("cannot open the endpoint's sealed options with the master key")]
    Sealed(#[from] Unsealable),
    #[error("cannot use the endpoint's client certificate")]
    Identity(#[from] InvalidIdentity),
    #[error("the endpoint's sealed options are missing or malformed")]
    Unexpected,
    /// The endpoint got another origin after the claim. Its options are for the new origin alone.
    #[error("the endpoint's sealed options are for another origin than the claim's")]
    OtherOrigin,
}

impl OptionsOpener {
    pub fn new(store: Arc<dyn Secrets>, keyring: Arc<Keyring>, brand: Brand) -> Self {
        Self {
            store,
            keyring,
            brand,
            none: Arc::default(),
            opened: Mutex::new(BoundedCache::new(limits::ENDPOINT_OPTIONS_CACHED)),
        }
    }

    pub async fn open(&self, endpoint: &EndpointTarget) -> Result<Arc<OpenedOptions>, OptionsError> {
        if !endpoint.options.has_sealed() {
            return Ok(Arc::clone(&self.none));
        }
        let key = endpoint.endpoint_key;
        if let Some(cached) = self.cached().get(&key)
            && cached.serves(endpoint)
        {
            return Ok(Arc::clone(&cached.opened));
        }
        let mut parts = self.store.find_sealed_parts(key).await?.ok_or(OptionsError::Unexpected)?;
        let (version, url) = (parts.version, std::mem::take(&mut parts.url));
        if !is_same_origin(&url, &endpoint.url) {
            return Err(OptionsError::OtherOrigin);
        }
        let opened = Arc::new(self.opened(endpoint, parts).await?);
        self.cached().insert(key, CachedOptions { version, url, opened: Arc::clone(&opened) });
        Ok(opened)
    }

    async fn opened(&self, endpoint: &EndpointTarget, parts: SealedParts) -> Result<OpenedOptions, OptionsError> {
        let mut headers = Vec::with_capacity(parts.headers.len());
        for (name, sealed) in parts.headers {
            // The name was reserved after the endpoint got it. A receiver could take it for one of ours.
            if name.is_reserved(&self.brand) {
                continue;
            }
            let wire_name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| OptionsError::Unexpected)?;
            let value = self.keyring.open_or_refresh(&SealedPart::Header(name).record(endpoint.id), &sealed).await?;
            let mut value = HeaderValue::from_bytes(&value).map_err(|_| OptionsError::Unexpected)?;
            value.set_sensitive(true);
            headers.push((wire_name, value));
        }
        let identity = match parts.client_certificate {
            None => None,
            Some(sealed) => {
                let stored =
                    self.keyring.open_or_refresh(&SealedPart::Certificate.record(endpoint.id), &sealed).await?;
                let certificate = ClientCertificate::from_stored(&stored).ok_or(OptionsError::Unexpected)?;
                let identity = ClientIdentity::from_pem(certificate.chain.as_bytes(), certificate.key.as_bytes())?;
                Some(Arc::new(identity))
            }
        };
        Ok(OpenedOptions { headers, identity })
    }

    fn cached(&self) -> MutexGuard<'_, BoundedCache<RowKey, CachedOptions>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
