//! The components below the listeners: store, egress, service and engine, built from the settings.
//!
//! Commands use them without a server.

use std::sync::Arc;

use crate::config::Settings;
use postrider_crypto::{MasterKey, Random};
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::StoreTag;
use postrider_domain::span::Tracing;
use postrider_domain::time::Clock;
use postrider_egress::{AllowTarget, DenyTarget, Egress, EgressSettings};
use postrider_engine::{Engine, EngineParts, EngineSettings, LeasedAttempts};
use postrider_metrics::Metrics;
use postrider_service::{Operator, Service, ServiceParts, adopt_catalogue, note_troubles, stored_catalogue};
use postrider_source::Sources;
use postrider_store::directory::DirectoryLock;
use postrider_store::sealing::keyring::Keyring;
use postrider_store::{EndpointLimits, Meta, Store, StoreSeed};

use super::back_end::{self, BackEnd, OpenedFor};
use super::error::StartError;
use super::traces::{self, SpanExport};
use super::{master_key, metrics, restored_copy};

/// The components below the listeners. Commands open them when no server runs.
pub struct Components {
    pub service: Arc<Service>,
    pub operator: Operator,
    pub random: Random,
    store: Arc<dyn Store>,
    egress: Arc<Egress>,
    keyring: Arc<Keyring>,
    pub(super) catalogue: Arc<Catalogue>,
    clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    tracing: Tracing,
    /// `None` when no spans are exported.
    span_export: Option<SpanExport>,
    /// Held until the store is closed.
    _directory: Option<DirectoryLock>,
}

impl Components {
    /// # Errors
    /// When another process holds the data directory, the database is not usable, or a setting cannot be applied.
    pub async fn open(settings: &Settings, clock: Arc<dyn Clock>, opened_for: OpenedFor) -> Result<Self, StartError> {
        Self::open_with(settings, clock, opened_for, None).await
    }

    /// As [`Self::open`], and also with another master key, if the store belongs to that one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        opened_for: OpenedFor,
        other_key: Option<MasterKey>,
    ) -> Result<Self, StartError> {
        let random = Random::default();
        let metrics = Arc::new(metrics::new(clock.as_ref(), &settings.sources));
        let families = &metrics.families;
        let egress = EgressSettings { metrics: families.egress.clone(), ..egress_settings(settings)? };
        let egress = Arc::new(Egress::new(egress, Arc::clone(&clock))?);
        let seed = StoreSeed {
            version: env!("CARGO_PKG_VERSION"),
            tag: StoreTag::from_u32(u32::from_le_bytes(random.bytes())),
            node: u16::from_le_bytes(random.bytes()),
        };
        let BackEnd { store, directory } =
            back_end::open(settings, Arc::clone(&clock), seed, opened_for, &families.store).await?;
        if let Some(max) = settings.workspace_max_bytes {
            store.limit_stored_bytes(max);
        }
        let keys = std::iter::once(master_key::load(settings, store.as_ref(), &random).await?).chain(other_key);
        let meta: Arc<dyn Meta> = store.clone();
        let keyring = Arc::new(Keyring::of_store(&meta, keys.collect(), &random).await?);
        let catalogue = Arc::new(open_catalogue(settings, store.as_ref(), opened_for).await?);
        let is_restored_copy = match opened_for {
            OpenedFor::Serving => restored_copy::settle(settings, store.as_ref()).await?,
            // A command sends nothing anyway.
            OpenedFor::Command => false,
        };
        let (tracing, span_export) = match opened_for {
            OpenedFor::Command => (Tracing::default(), None),
            _ => traces::start(&settings.traces, &families.traces)?,
        };
        let engine = engine_settings(settings, &catalogue);
        let (service, operator) = ServiceParts {
            store: Arc::clone(&store),
            guard: egress.clone(),
            keyring: Arc::clone(&keyring),
            catalogue: Arc::clone(&catalogue),
            clock: Arc::clone(&clock),
            random: random.clone(),
            endpoint_limits: EndpointLimits {
                per_project: settings.endpoints_per_project,
                per_workspace: settings.endpoints_per_workspace,
            },
            rate_limits: settings.rate_limits,
            retry_schedule: settings.retry_schedule.clone(),
            portal_frame_ancestors: settings.portal.frame_ancestors.clone(),
            retention: settings.retention,
            metrics: families.service.clone(),
            tracing: tracing.clone(),
            sources: settings.sources.iter().map(|source| source.terms.clone()).collect(),
            is_restored_copy,
            attempts: Arc::new(LeasedAttempts::new(store.clone(), Arc::clone(&keyring), random.clone(), &engine)),
        }
        .build();
        if opened_for != OpenedFor::Command {
            note_troubles(store.as_ref(), clock.now()).await.map_err(StartError::NoteTroubles)?;
        }
        Ok(Self {
            service,
            operator,
            store,
            egress,
            keyring,
            catalogue,
            clock,
            random,
            metrics,
            tracing,
            span_export,
            _directory: directory,
        })
    }

    /// Starts the sources of events, if there are some. A restored copy takes none.
    pub fn start_sources(&self, settings: &Settings) -> Option<Sources> {
        if settings.sources.is_empty() || self.operator.is_restored_copy() {
            return None;
        }
        let metrics = &self.metrics.families.source;
        Some(Sources::start(&settings.sources, &self.service, &self.clock, &self.random, metrics))
    }

    pub fn start_engine(&self, settings: &Settings) -> Engine {
        Engine::start(EngineParts {
            store: self.store.clone(),
            transport: self.egress.clone(),
            clock: Arc::clone(&self.clock),
            keyring: Arc::clone(&self.keyring),
            random: self.random.clone(),
            settings: engine_settings(settings, &self.catalogue),
            metrics: self.metrics.families.engine.clone(),
            tracing: self.tracing.clone(),
            gauges: settings.metrics.are_served().then(|| self.metrics.families.queue.clone()),
        })
    }

    /// Returns when all writes are on disk and the directory is free.
    pub async fn close(mut self) {
        if let Some(export) = self.span_export.take() {
            export.stop().await;
        }
        let closed = tokio::task::spawn_blocking(move || drop(self)).await;
        if closed.is_err() {
            tracing::error!("closing the store panicked");
        }
    }
}

fn engine_settings(settings: &Settings, catalogue: &Catalogue) -> EngineSettings {
    EngineSettings {
        brand: catalogue.brand.clone(),
        schedule: settings.retry_schedule.clone(),
        attempt_deadline: settings.attempt_deadline,
        retention: settings.retention,
        payload_retention: settings.kept_payloads(),
        audit_retention: settings.audit_retention,
        parked_retention: settings.parked_retention,
        max_disk: settings.max_disk,
        forwards_traces: settings.traces.are_forwarded,
        ..EngineSettings::default()
    }
}

/// The text of the configured event catalogue: of a file, or built in.
///
/// # Errors
/// When the file cannot be read.
pub fn read_events_file(settings: &Settings) -> Result<String, StartError> {
    let Some(path) = &settings.events_file else { return Ok(Catalogue::BUILT_IN.to_owned()) };
    let fault = |source| StartError::EventsFile { path: path.display().to_string(), source };
    std::fs::read_to_string(path).map_err(fault)
}

async fn open_catalogue(
    settings: &Settings,
    store: &dyn Store,
    opened_for: OpenedFor,
) -> Result<Catalogue, StartError> {
    if opened_for == OpenedFor::Command
        && let Some(stored) = stored_catalogue(store).await?
    {
        return Ok(stored);
    }
    Ok(adopt_catalogue(store, &read_events_file(settings)?).await?)
}

/// The settings of egress.
///
/// # Errors
/// When an `--allow-target` or `--deny-target` is invalid, or the file of certificate authorities cannot be read.
pub fn egress_settings(settings: &Settings) -> Result<EgressSettings, StartError> {
    let allow_targets = settings
        .allow_targets
        .iter()
        .map(|target| {
            target.parse::<AllowTarget>().map_err(|source| StartError::AllowTarget { target: target.clone(), source })
        })
        .collect::<Result<_, _>>()?;
    let deny_targets = settings
        .deny_targets
        .iter()
        .map(|target| {
            target.parse::<DenyTarget>().map_err(|source| StartError::DenyTarget { target: target.clone(), source })
        })
        .collect::<Result<_, _>>()?;
    let extra_ca_pem = match &settings.ca_file {
        None => None,
        Some(path) => Some(
            std::fs::read(path).map_err(|source| StartError::CaFile { path: path.display().to_string(), source })?,
        ),
    };
    let dns_servers = settings.dns_servers.clone();
    let proxy = settings.egress_proxy.clone();
    Ok(EgressSettings { allow_targets, deny_targets, dns_servers, extra_ca_pem, proxy, ..EgressSettings::default() })
}
