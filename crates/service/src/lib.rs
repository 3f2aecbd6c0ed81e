//! What a caller may do: authorise, check, and turn a request into one call of the store.
//!
//! Every front door (API, command line) comes through here, so none can skip authorisation. A file per noun, a
//! function per verb. Nothing here knows HTTP, SQL or sockets.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider_crypto::{MacKey, MasterKey, Random};
use postrider_domain::endpoint::OpaqueId;
use postrider_domain::event_type::Catalogue;
use postrider_domain::idempotency::IdempotencyScope;
use postrider_domain::rate_limit::RateLimits;
use postrider_domain::target::TargetGuard;
use postrider_domain::time::Clock;
use postrider_store::{EndpointLimits, Store};

mod access;
mod api_key;
mod audit;
mod catalogue;
mod delivery;
mod endpoint;
mod endpoint_options;
mod error;
mod event;
mod health;
mod idempotency;
mod key_cache;
mod master_key;
mod misfit;
mod operations;
mod operator;
mod rate_limit;
mod replay;
mod workspace;

pub use api_key::{CreateApiKey, CreatedApiKey};
pub use catalogue::{AdoptError, adopt_catalogue, stored_catalogue};
pub use endpoint::{CreateEndpoint, EndpointWithSecret, RotateSecret, UpdateEndpoint};
pub use error::{ParameterFault, ServiceError};
pub use event::PublishEvent;
pub use idempotency::{Idempotent, RenderAnswer, WriteError};
pub use master_key::{MasterKeyError, check_master_key};
pub use operations::OperatorWebhook;

use key_cache::KeyCache;
use misfit::MisfitLog;
use rate_limit::RateLimiter;

/// What the service is made of.
pub struct ServiceParts {
    pub store: Arc<dyn Store>,
    pub guard: Arc<dyn TargetGuard>,
    pub master_key: Arc<MasterKey>,
    pub catalogue: Arc<Catalogue>,
    pub clock: Arc<dyn Clock>,
    pub random: Random,
    pub endpoint_limits: EndpointLimits,
    pub rate_limits: RateLimits,
}

pub struct Service {
    store: Arc<dyn Store>,
    guard: Arc<dyn TargetGuard>,
    master_key: Arc<MasterKey>,
    catalogue: Arc<Catalogue>,
    clock: Arc<dyn Clock>,
    random: Random,
    endpoint_limits: EndpointLimits,
    api_key_hash: MacKey,
    keys: KeyCache,
    rates: RateLimiter,
    misfits: MisfitLog,
    in_flight: Mutex<HashSet<(IdempotencyScope, OpaqueId)>>,
}

impl Service {
    pub fn new(parts: ServiceParts) -> Self {
        let ServiceParts { store, guard, master_key, catalogue, clock, random, endpoint_limits, rate_limits } = parts;
        Self {
            api_key_hash: master_key.mac_key("api key hash"),
            store,
            guard,
            master_key,
            catalogue,
            clock,
            random,
            endpoint_limits,
            keys: KeyCache::default(),
            rates: RateLimiter::new(rate_limits),
            misfits: MisfitLog::default(),
            in_flight: Mutex::default(),
        }
    }

    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub fn random(&self) -> &Random {
        &self.random
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
