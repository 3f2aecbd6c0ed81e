//! The handle that front doors hold. Its verbs are in the files of their nouns.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_crypto::{MacKey, Random};
use postrider_domain::endpoint::OpaqueId;
use postrider_domain::event_type::Catalogue;
use postrider_domain::idempotency::IdempotencyScope;
use postrider_domain::portal::FrameAncestor;
use postrider_domain::rate_limit::RateLimits;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::source::SourceTerms;
use postrider_domain::span::Tracing;
use postrider_domain::target::TargetGuard;
use postrider_domain::time::{Clock, Timestamp};
use postrider_metrics::ServiceMetrics;
use postrider_store::sealing::keyring::Keyring;
use postrider_store::{ConsumerAttempts, EndpointLimits, ServiceStore, Store};
use tokio::sync::watch;

use crate::key_cache::KeyCache;
use crate::key_uses::KeyUses;
use crate::rate_limiter::RateLimiter;
use crate::readiness::Readiness;
use crate::refusal_log::RefusalLog;
use crate::refused_keys::RefusedKeys;
use crate::session::Sessions;
use crate::source::Source;
use crate::violation_log::ViolationLog;

/// What a [`Service`] is made of.
pub struct ServiceParts {
    pub store: Arc<dyn Store>,
    pub guard: Arc<dyn TargetGuard>,
    pub keyring: Arc<Keyring>,
    pub catalogue: Arc<Catalogue>,
    pub clock: Arc<dyn Clock>,
    pub random: Random,
    pub endpoint_limits: EndpointLimits,
    pub rate_limits: RateLimits,
    /// Of endpoints without a schedule of their own.
    pub retry_schedule: RetrySchedule,
    /// The origins that may show a portal in a frame.
    pub portal_frame_ancestors: Vec<FrameAncestor>,
    /// How long events and deliveries are kept.
    pub retention: Duration,
    pub metrics: ServiceMetrics,
    pub tracing: Tracing,
    /// The sources of events of the settings.
    pub sources: Vec<SourceTerms>,
    /// The store is a copy of another one, so nothing is sent.
    pub is_restored_copy: bool,
    /// Renders and judges what the consumers of listeners attempt.
    pub attempts: Arc<dyn ConsumerAttempts>,
}

/// What callers may do. Each verb checks the scopes of its principal.
pub struct Service {
    pub(crate) store: Arc<dyn ServiceStore>,
    pub(crate) guard: Arc<dyn TargetGuard>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
    pub(crate) endpoint_limits: EndpointLimits,
    pub(crate) retry_schedule: RetrySchedule,
    pub(crate) portal_frame_ancestors: Vec<FrameAncestor>,
    pub(crate) retention: Duration,
    pub(crate) metrics: ServiceMetrics,
    pub(crate) tracing: Tracing,
    pub(crate) is_restored_copy: bool,
    pub(crate) sources: Vec<Arc<Source>>,
    pub(crate) attempts: Arc<dyn ConsumerAttempts>,
    /// Turns true when requests must not wait any more.
    pub(crate) waits_ended: watch::Sender<bool>,
    pub(crate) api_key_hash: MacKey,
    pub(crate) keys: KeyCache,
    pub(crate) key_uses: KeyUses,
    pub(crate) sessions: Sessions,
    pub(crate) rates: RateLimiter,
    pub(crate) readiness: Readiness,
    pub(crate) refusals: RefusalLog,
    pub(crate) refused_keys: RefusedKeys,
    pub(crate) violations: ViolationLog,
    /// The idempotency keys of the writes that this process is working on.
    pub(crate) in_flight: Mutex<HashSet<(IdempotencyScope, OpaqueId)>>,
}

impl Service {
    pub(crate) fn new(parts: ServiceParts) -> Self {
        let ServiceParts {
            store,
            guard,
            keyring,
            catalogue,
            clock,
            random,
            endpoint_limits,
            rate_limits,
            retry_schedule,
            portal_frame_ancestors,
            retention,
            metrics,
            tracing,
            sources,
            is_restored_copy,
            attempts,
        } = parts;
        let now = clock.now();
        let sources = sources.into_iter().map(|terms| Arc::new(Source::new(terms, now))).collect();
        let rates = RateLimiter::new(rate_limits, store.nodes_that_share());
        Self {
            api_key_hash: keyring.api_key_hash().clone(),
            store,
            guard,
            keyring,
            catalogue,
            clock,
            random,
            endpoint_limits,
            retry_schedule,
            portal_frame_ancestors,
            retention,
            metrics,
            tracing,
            is_restored_copy,
            sources,
            attempts,
            waits_ended: watch::Sender::new(false),
            keys: KeyCache::default(),
            key_uses: KeyUses::default(),
            sessions: Sessions::default(),
            rates,
            readiness: Readiness::default(),
            refusals: RefusalLog::default(),
            refused_keys: RefusedKeys::default(),
            violations: ViolationLog::default(),
            in_flight: Mutex::default(),
        }
    }

    /// What a front door counts.
    pub fn metrics(&self) -> &ServiceMetrics {
        &self.metrics
    }

    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Events and deliveries that were created before may have been removed.
    pub fn kept_since(&self) -> Timestamp {
        self.clock.now().minus(self.retention)
    }

    /// The retry schedule of endpoints without one of their own.
    pub const fn retry_schedule(&self) -> &RetrySchedule {
        &self.retry_schedule
    }

    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// To be called after keys or sessions may have ended.
    pub(crate) fn forget_callers(&self) {
        self.keys.forget_all();
        self.sessions.forget_all();
    }

    pub fn random(&self) -> &Random {
        &self.random
    }
}
