//! An endpoint's secret options, opened for the request that needs them, then remembered.
//!
//! The claim tells which version of them counts: what was opened before a change is never used for what is claimed after
//! it. Nothing here prints a value.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderName, HeaderValue};

use postrider_crypto::{MasterKey, Unsealable};
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::endpoint_options::SealedPart;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::private_options::ClientCertificate;
use postrider_egress::{ClientIdentity, InvalidIdentity};
use postrider_store::{EndpointTarget, SealedParts, Secrets, StoreError};

/// What a request to an endpoint carries beside what every request does.
#[derive(Default)]
pub struct Opened {
    /// Marked as sensitive, by which the log knows them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub identity: Option<Arc<ClientIdentity>>,
}

pub struct Opener {
    store: Arc<dyn Secrets>,
    master_key: Arc<MasterKey>,
    nothing: Arc<Opened>,
    /// Each with the version that was opened.
    opened: Mutex<BoundedCache<RowKey, (u32, Arc<Opened>)>>,
}

/// Why a request cannot be given what its endpoint asks for. Never the receiver's fault.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the endpoint's sealed options cannot be read")]
    Store(#[from] StoreError),
    #[error("the endpoint's sealed options do not open")]
    Sealed(#[from] Unsealable),
    #[error("the endpoint's certificate cannot be used")]
    Identity(#[from] InvalidIdentity),
    #[error("the endpoint's sealed options are not what they should be")]
    Unexpected,
}

impl Opener {
    pub fn new(store: Arc<dyn Secrets>, master_key: Arc<MasterKey>) -> Self {
        Self {
            store,
            master_key,
            nothing: Arc::default(),
            opened: Mutex::new(BoundedCache::new(limits::ENDPOINT_OPTIONS_CACHED)),
        }
    }

    pub async fn open(&self, endpoint: &EndpointTarget) -> Result<Arc<Opened>, OpenError> {
        if !endpoint.options.has_sealed() {
            return Ok(Arc::clone(&self.nothing));
        }
        let key = endpoint.endpoint_key;
        if let Some((version, opened)) = self.cached().get(&key)
            && *version >= endpoint.options.sealed_version
        {
            return Ok(Arc::clone(opened));
        }
        let parts = self.store.find_sealed_parts(key).await?.ok_or(OpenError::Unexpected)?;
        let version = parts.version;
        let opened = Arc::new(self.opened(endpoint, parts)?);
        self.cached().insert(key, (version, Arc::clone(&opened)));
        Ok(opened)
    }

    fn opened(&self, endpoint: &EndpointTarget, parts: SealedParts) -> Result<Opened, OpenError> {
        let mut headers = Vec::with_capacity(parts.headers.len());
        for (name, sealed) in parts.headers {
            let wire_name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| OpenError::Unexpected)?;
            let value = self.master_key.open(&SealedPart::Header(name).record(endpoint.id), &sealed)?;
            let mut value = HeaderValue::from_bytes(&value).map_err(|_| OpenError::Unexpected)?;
            value.set_sensitive(true);
            headers.push((wire_name, value));
        }
        let identity = match parts.client_certificate {
            None => None,
            Some(sealed) => {
                let stored = self.master_key.open(&SealedPart::Certificate.record(endpoint.id), &sealed)?;
                let certificate = ClientCertificate::from_stored(&stored).ok_or(OpenError::Unexpected)?;
                let identity = ClientIdentity::from_pem(certificate.chain.as_bytes(), certificate.key.as_bytes())?;
                Some(Arc::new(identity))
            }
        };
        Ok(Opened { headers, identity })
    }

    fn cached(&self) -> MutexGuard<'_, BoundedCache<RowKey, (u32, Arc<Opened>)>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
