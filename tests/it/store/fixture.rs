//! The store under test on a manual clock, with short helpers that bring it into the state a test needs.
//!
//! The helpers panic on failure. A test of a refusal calls the `try_…` variant or the store itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use postrider_domain::access::{ApiKey, ApiKeyHash, Mode, Scope, Scopes};
use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::audit::{AuditEntry, AuditFilter, Author};
use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::endpoint::{
    DisabledReason, Endpoint, EndpointChange, EndpointName, EndpointUrl, OpaqueId, ProjectId, SecretVersion,
};
use postrider_domain::endpoint_health::{Failure, Signal};
use postrider_domain::endpoint_options::{DeliveryOrder, OptionsChange};
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{
    ApiKeyId, DeliveryId, EndpointId, EventId, ReplayId, RowKey, SessionId, StoreTag, WorkspaceId,
};
use postrider_domain::limits;
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::page::PageRequest;
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange};
use postrider_domain::session::{LoginCodeHash, SessionHash};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::{Clock, Timestamp};
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::{
    AfterAttempt, Claim, Claimed, CreateEndpointError, DeleteEndpointError, Destination, EndpointLimits,
    EndpointUpdate, Lane, LaneQuota, NewApiKey, NewEndpoint, NewLoginCode, NewReplay, NewWorkspace, OutcomeRecord,
    Recorded, ReplayScope, RequeueError, RotateSecretError, SealedOptions, SealedSigningKey, SecretRotation,
    SessionOpening, SkipDeliveryError, StopReplayError, Store, StoreSeed, UpdateEndpointError, Write, Written,
};

use crate::support::clock::ManualClock;
use crate::support::wait::bounded;

pub const START: Timestamp = Timestamp::from_millis(1_778_846_400_000);

/// The tag in the seed of every new store.
pub const TAG: StoreTag = StoreTag::from_u32(0x00c0_ffee);

/// The type of every event and of every subscription, unless a test names another.
pub const EVENT_TYPE: &str = "post.created";

/// The author of every write, unless a test names another.
pub const AUTHOR: Author = Author::COMMAND_LINE;

/// A live tenant.
pub const fn tenant_of(workspace: RowKey) -> Tenant {
    Tenant::whole(workspace, Mode::Live)
}

/// A write for the tenant, from the command line and without an idempotency key.
pub const fn write<T>(tenant: Tenant) -> Write<T> {
    Write { tenant, author: Author { mode: tenant.mode, ..AUTHOR }, recording: None }
}

/// A database or directory that a later store can open again.
#[async_trait]
pub trait Backend: Send + Sync {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store>;
}

/// The same quota for every lane.
pub struct EachLane(pub usize);

impl LaneQuota for EachLane {
    fn quota(&self, _lane: Lane) -> usize {
        self.0
    }
}

pub struct Fixture {
    backend: Box<dyn Backend>,
    pub clock: ManualClock,
    /// `None` between [`Fixture::close`] and [`Fixture::reopen`].
    store: Option<Arc<dyn Store>>,
    /// Exists from the start.
    pub workspace: Workspace,
    starts: u16,
    drawn: AtomicU32,
}

impl Fixture {
    pub async fn new(backend: impl Backend + 'static) -> Self {
        Self::on_clock(backend, ManualClock::new(START)).await
    }

    pub async fn on_clock(backend: impl Backend + 'static, clock: ManualClock) -> Self {
        let store = backend.open(Arc::new(clock.clone()), super::seed(TAG, 0)).await;
        let name = WorkspaceName::parse("the workspace").unwrap();
        let new = NewWorkspace { id: WorkspaceId::from_letters([b'w'; 16]), name, author: AUTHOR };
        let workspace = store.ensure_workspace(new).await.unwrap();
        let backend = Box::new(backend);
        Self { backend, clock, store: Some(store), workspace, starts: 0, drawn: AtomicU32::new(0) }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().expect("the store is open outside of `reopen`")
    }

    /// Drops the store, if it is open. [`Fixture::reopen`] opens it again.
    pub fn close(&mut self) {
        if let Some(last) = self.store.take() {
            assert_eq!(Arc::strong_count(&last), 1, "the store to close is still in use");
        }
    }

    /// Drops the store and opens the same data again, as the next process does.
    pub async fn reopen(&mut self) {
        self.starts += 1;
        self.close();
        let seed = super::seed(StoreTag::from_u32(TAG.as_u32() + 1), self.starts);
        self.store = Some(self.backend.open(Arc::new(self.clock.clone()), seed).await);
    }

    /// A second process on the same data. SQLite does not allow it.
    pub async fn another_node(&self, clock: impl Clock) -> Arc<dyn Store> {
        self.backend.open(Arc::new(clock), super::seed(TAG, self.starts + 1)).await
    }

    /// The fixture's workspace in live mode.
    pub const fn tenant(&self) -> Tenant {
        tenant_of(self.workspace.key)
    }

    /// The fixture's workspace in test mode.
    pub const fn test_tenant(&self) -> Tenant {
        Tenant { mode: Mode::Test, ..self.tenant() }
    }

    pub async fn other_workspace(&self) -> Workspace {
        let name = WorkspaceName::parse("another workspace").unwrap();
        let new = NewWorkspace { id: WorkspaceId::from_letters([b'x'; 16]), name, author: AUTHOR };
        self.store().ensure_workspace(new).await.unwrap()
    }

    /// Letters for an id. Each call returns others.
    pub fn letters(&self) -> [u8; 16] {
        let mut number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut letters = [b'0'; 16];
        for letter in letters.iter_mut().rev() {
            *letter = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
            number /= 36;
        }
        letters
    }

    pub fn new_api_key(&self, hash: u8) -> NewApiKey {
        NewApiKey {
            id: ApiKeyId::from_letters(self.letters()),
            tenant: self.tenant(),
            name: None,
            hash: ApiKeyHash([hash; 32]),
            last4: "wxyz".to_owned(),
            scopes: Scopes::of(&[Scope::EventsWrite, Scope::WebhooksRead]),
            expires_at: None,
            limit: 1_000,
            author: AUTHOR,
        }
    }

    /// A session whose only limit in a test is the one that it sets.
    pub fn session_opening(&self, hash: u8) -> SessionOpening {
        SessionOpening {
            hash: SessionHash([hash; 32]),
            lifetime: limits::SESSION_LIFETIME,
            idle: limits::SESSION_IDLE,
            limit: 1_000,
            request_id: None,
            address: None,
        }
    }

    pub fn new_login_code(&self, hash: u8) -> NewLoginCode {
        NewLoginCode {
            hash: LoginCodeHash([hash; 32]),
            session_id: SessionId::from_letters(self.letters()),
            tenant: self.tenant(),
            scopes: Scopes::of(&[Scope::WebhooksRead, Scope::KeysManage]),
            lifetime: limits::LOGIN_CODE_LIFETIME,
            limit: 1_000,
            author: AUTHOR,
        }
    }

    pub async fn api_key(&self, new: NewApiKey) -> ApiKey {
        done(self.store().create_api_key(new, None).await.unwrap())
    }

    /// An endpoint for `post.created`, without a project.
    pub fn new_endpoint(&self) -> NewEndpoint {
        let id = EndpointId::from_letters(self.letters());
        NewEndpoint {
            key: self.store().next_key(),
            id,
            project_id: None,
            name: EndpointName::parse("an endpoint").unwrap(),
            destination: Destination::Url(EndpointUrl::parse(&format!("https://hooks.example.com/{id}")).unwrap()),
            events: vec![EventTypeName::from_stored(EVENT_TYPE)],
            sealed_secret: id.to_string().into_bytes(),
            secret_last4: "beef".to_owned(),
            options: OptionsChange::default(),
            sealed: SealedOptions::default(),
            limits: EndpointLimits { per_project: 10_000, per_workspace: 10_000 },
        }
    }

    /// The audit log of the workspace, newest first.
    pub async fn audit(&self) -> Vec<AuditEntry> {
        self.store().list_audit(Some(self.tenant()), AuditFilter::default(), Self::page()).await.unwrap().items
    }

    pub async fn create(&self, new: NewEndpoint) -> Endpoint {
        self.create_in(self.tenant(), new).await
    }

    pub async fn create_in(&self, tenant: Tenant, new: NewEndpoint) -> Endpoint {
        self.try_create(tenant, new).await.unwrap()
    }

    /// An endpoint as a test key creates it.
    pub async fn test_endpoint(&self) -> Endpoint {
        self.create_in(self.test_tenant(), self.new_endpoint()).await
    }

    pub async fn try_create(&self, tenant: Tenant, new: NewEndpoint) -> Result<Endpoint, CreateEndpointError> {
        self.store().create_endpoint(write(tenant), new).await.map(done)
    }

    pub async fn endpoint(&self) -> Endpoint {
        self.create(self.new_endpoint()).await
    }

    pub async fn strict_endpoint(&self) -> Endpoint {
        let options = OptionsChange { ordering: Some(DeliveryOrder::Strict), ..OptionsChange::default() };
        self.create(NewEndpoint { options, ..self.new_endpoint() }).await
    }

    pub async fn set_order(&self, endpoint: &Endpoint, ordering: DeliveryOrder) {
        let options = OptionsChange { ordering: Some(ordering), ..OptionsChange::default() };
        self.update(endpoint, EndpointChange { options, ..EndpointChange::default() }).await;
    }

    /// `count` endpoints, created concurrently.
    pub async fn endpoints(&self, count: usize) -> Vec<Endpoint> {
        futures_util::stream::iter((0..count).map(|_| self.endpoint())).buffered(32).collect().await
    }

    /// A live `post.created` without a project.
    pub fn event(&self) -> NewEvent {
        let id = EventId::new(self.store().next_key(), self.store().tag());
        NewEvent {
            is_misfit: false,
            trace: None,
            id,
            tenant: self.tenant(),
            event_type: EventTypeName::from_stored(EVENT_TYPE),
            project_id: None,
            external_id: None,
            occurred_at: None,
            body_hash: [1; 32],
            envelope: Bytes::from(format!("{{\"id\":\"{id}\"}}")),
        }
    }

    /// [`Self::event`] as a test key publishes it.
    pub fn test_event(&self) -> NewEvent {
        NewEvent { tenant: self.test_tenant(), ..self.event() }
    }

    pub fn event_of(&self, event_type: &str, project: Option<&str>) -> NewEvent {
        let project_id = project.map(|project| ProjectId::parse(project).unwrap());
        NewEvent { event_type: EventTypeName::from_stored(event_type), project_id, ..self.event() }
    }

    pub fn event_with(&self, external_id: &str, body_hash: u8) -> NewEvent {
        NewEvent {
            external_id: Some(OpaqueId::parse(external_id).unwrap()),
            body_hash: [body_hash; 32],
            ..self.event()
        }
    }

    pub async fn accept(&self, events: Vec<NewEvent>) -> Vec<EventReceipt> {
        done(self.store().accept_events(events, None).await.unwrap())
    }

    /// Accepts `count` events like [`Self::event`].
    pub async fn publish(&self, count: usize) -> Vec<EventReceipt> {
        self.accept((0..count).map(|_| self.event()).collect()).await
    }

    pub async fn accept_test(&self, endpoint: &Endpoint) -> Delivery {
        self.try_test(endpoint.id, self.event()).await.unwrap()
    }

    pub async fn try_test(&self, endpoint_id: EndpointId, event: NewEvent) -> Result<Delivery, RequeueError> {
        self.store().accept_test(write(event.tenant), endpoint_id, event).await.map(done)
    }

    pub async fn retry_by_hand(&self, id: DeliveryId) -> Delivery {
        self.try_retry(self.tenant(), id).await.unwrap()
    }

    pub async fn try_retry(&self, tenant: Tenant, id: DeliveryId) -> Result<Delivery, RequeueError> {
        self.store().retry_delivery(write(tenant), id).await.map(done)
    }

    pub async fn skip(&self, id: DeliveryId) -> Delivery {
        self.try_skip(self.tenant(), id).await.unwrap()
    }

    pub async fn try_skip(&self, tenant: Tenant, id: DeliveryId) -> Result<Delivery, SkipDeliveryError> {
        self.store().skip_delivery(write(tenant), id).await.map(done)
    }

    pub async fn update(&self, endpoint: &Endpoint, change: EndpointChange) -> Endpoint {
        self.try_update(self.tenant(), endpoint.id, change, 10_000).await.unwrap()
    }

    pub async fn try_update(
        &self,
        tenant: Tenant,
        id: EndpointId,
        change: EndpointChange,
        per_project: u32,
    ) -> Result<Endpoint, UpdateEndpointError> {
        let limits = EndpointLimits { per_project, per_workspace: 10_000 };
        let update = EndpointUpdate { change, sealed: SealedOptions::default(), limits };
        self.store().update_endpoint(write(tenant), id, update).await.map(done)
    }

    pub async fn switch(&self, endpoint: &Endpoint, is_active: bool) -> Endpoint {
        self.update(endpoint, EndpointChange { is_active: Some(is_active), ..EndpointChange::default() }).await
    }

    pub async fn delete(&self, endpoint: &Endpoint) {
        self.try_delete(self.tenant(), endpoint.id).await.unwrap();
    }

    pub async fn try_delete(&self, tenant: Tenant, id: EndpointId) -> Result<(), DeleteEndpointError> {
        self.store().delete_endpoint(write(tenant), id).await.map(done)
    }

    pub async fn found(&self, endpoint: &Endpoint) -> Option<Endpoint> {
        self.store().find_endpoint(self.tenant(), endpoint.id).await.unwrap()
    }

    /// Rotates to this version. The sealed secret is the byte `version`.
    pub async fn rotate(&self, endpoint: &Endpoint, version: u32, overlap: Duration, revoke_queued: bool) -> Endpoint {
        self.try_rotate(self.tenant(), endpoint.id, version, overlap, revoke_queued).await.unwrap()
    }

    pub async fn try_rotate(
        &self,
        tenant: Tenant,
        id: EndpointId,
        version: u32,
        overlap: Duration,
        revoke_queued: bool,
    ) -> Result<Endpoint, RotateSecretError> {
        let sealed = vec![u8::try_from(version).unwrap()];
        let last4 = format!("{version:04}");
        let (version, signing_key) = (SecretVersion(version), signing_key(version));
        let rotation = SecretRotation { version, sealed, last4, signing_key, overlap, revoke_queued, author: AUTHOR };
        self.store().rotate_secret(tenant, id, rotation).await
    }

    /// The first step of [`Self::count_replay`], and where the next one begins.
    pub async fn first_count(
        &self,
        endpoint: &Endpoint,
        range: ReplayRange,
        mode: Mode,
    ) -> (ReplayCount, Option<RowKey>) {
        let scope = ReplayScope { endpoint_key: endpoint.key, mode, range, project: None };
        self.store().count_replayable(scope, RowKey::from_i64(0)).await.unwrap()
    }

    /// Counts the deliveries that a replay would send.
    pub async fn count_replay(&self, endpoint: &Endpoint, range: ReplayRange, mode: Mode) -> ReplayCount {
        let (mut sum, mut after) = self.first_count(endpoint, range.clone(), mode).await;
        while let Some(from) = after {
            let scope = ReplayScope { endpoint_key: endpoint.key, mode, range: range.clone(), project: None };
            let (step, next) = self.store().count_replayable(scope, from).await.unwrap();
            sum.total += step.total;
            sum.unavailable += step.unavailable;
            after = next;
        }
        sum
    }

    /// Counts and creates a live replay.
    pub async fn replay(&self, endpoint: &Endpoint, range: ReplayRange) -> Replay {
        let total = self.count_replay(endpoint, range.clone(), Mode::Live).await.total;
        self.try_replay(endpoint, range, Mode::Live, total).await.unwrap()
    }

    pub async fn try_replay(
        &self,
        endpoint: &Endpoint,
        range: ReplayRange,
        mode: Mode,
        total: u64,
    ) -> Result<Replay, RequeueError> {
        let new = NewReplay::of_endpoint(endpoint.id, range, total);
        self.store().create_replay(write(Tenant { mode, ..self.tenant() }), new).await.map(done)
    }

    pub async fn stop_replay(&self, endpoint: &Endpoint, id: ReplayId) -> Result<Replay, StopReplayError> {
        self.try_stop_replay(self.tenant(), endpoint.id, id).await
    }

    pub async fn try_stop_replay(
        &self,
        tenant: Tenant,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Replay, StopReplayError> {
        self.store().stop_replay(write(tenant), Some(endpoint_id), id).await.map(done)
    }

    pub fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub async fn claim(&self, limit: usize) -> Claimed {
        self.claim_within(limit, EachLane(usize::MAX)).await
    }

    pub async fn claim_within(&self, limit: usize, quota: impl LaneQuota + 'static) -> Claimed {
        let claiming = self.store().claim_due(limit, limits::LEASE, Arc::new(quota));
        bounded("a claim", claiming).await.unwrap()
    }

    pub async fn claim_one(&self) -> Claim {
        self.claim(1).await.claims.pop().expect("a delivery is due")
    }

    pub async fn give_back(&self, claim: &Claim) {
        self.store().give_back_if_claimed(vec![(claim.delivery_id, claim.token)]).await.unwrap();
    }

    pub async fn record(&self, outcome: OutcomeRecord) -> Recorded {
        let recorded = self.store().record_outcomes_if_claimed(vec![outcome]).await.unwrap();
        assert_eq!(recorded.len(), 1, "one answer for one outcome");
        recorded[0]
    }

    /// Claims one delivery of this endpoint. Returns all other claims to the queue.
    pub async fn claim_of(&self, endpoint: &Endpoint) -> Claim {
        let mut found = None;
        for claim in self.claim(100).await.claims {
            if claim.endpoint.id == endpoint.id && found.is_none() {
                found = Some(claim);
            } else {
                self.give_back(&claim).await;
            }
        }
        found.expect("a delivery of this endpoint is due")
    }

    /// Enables operational events in another workspace, with an endpoint for all of them.
    pub async fn operations(&self) -> Workspace {
        let workspace = self.other_workspace().await;
        let events = OperationalEvent::ALL.map(OperationalEvent::event_type).to_vec();
        self.create_in(tenant_of(workspace.key), NewEndpoint { events, ..self.new_endpoint() }).await;
        self.store().enable_operational_events(workspace.key);
        workspace
    }

    /// The envelopes of the operational events so far, oldest first.
    pub async fn reported(&self, operations: &Workspace) -> Vec<serde_json::Value> {
        let tenant = tenant_of(operations.key);
        let mut reported = Vec::new();
        for delivery in self.deliveries_of(tenant, DeliveryFilter::default()).await {
            let event = self.store().find_event(tenant, delivery.event_id).await.unwrap().unwrap();
            reported.push(serde_json::from_slice(&event.envelope).unwrap());
        }
        reported.reverse();
        reported
    }

    /// The first page, as long as a page may be.
    pub fn page() -> PageRequest {
        PageRequest::parse(Some("200"), None).unwrap()
    }

    /// The outcome of the claim's attempt when the receiver answered with `status`.
    pub fn outcome(&self, claim: &Claim, status: u16, after: AfterAttempt) -> OutcomeRecord {
        OutcomeRecord {
            delivery_id: claim.delivery_id,
            token: claim.token,
            mode: claim.mode,
            cause: claim.cause,
            attempt: Attempt {
                number: claim.attempt,
                started_at: self.clock.now(),
                duration_ms: 120,
                outcome: AttemptOutcome::of_status(status),
                request: None,
                request_headers: Vec::new(),
                remote_address: None,
                response_status: Some(status),
                response_headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
                response_body: Some(Bytes::from_static(b"answer")),
                error: None,
                next_attempt_at: None,
                phases: None,
                payload: postrider_domain::payload::PayloadState::Kept,
            },
            after,
            endpoint: Arc::clone(&claim.endpoint),
            signal: Signal::Nothing,
            disable: None,
        }
    }

    pub fn delivered(&self, claim: &Claim) -> OutcomeRecord {
        self.outcome(claim, 200, AfterAttempt::Finish { status: DeliveryStatus::Delivered, reason: None })
    }

    pub fn failed(&self, claim: &Claim) -> OutcomeRecord {
        let reason = Some(EndReason::Exhausted);
        self.outcome(claim, 500, AfterAttempt::Finish { status: DeliveryStatus::Failed, reason })
    }

    pub fn retry(&self, claim: &Claim, after: Duration) -> OutcomeRecord {
        self.outcome(claim, 503, AfterAttempt::Retry { after, uses_step: true })
    }

    /// An attempt that failed and counts as a failure of the endpoint. A probe uses no step of the schedule.
    pub fn failing(&self, claim: &Claim, after: Duration) -> OutcomeRecord {
        let failure = Failure { probe: claim.probe, busy: false, retry_after: None };
        let after = AfterAttempt::Retry { after, uses_step: !claim.probe };
        OutcomeRecord { signal: Signal::Failure(failure), ..self.outcome(claim, 500, after) }
    }

    /// An attempt that succeeded and counts as a success of the endpoint.
    pub fn succeeding(&self, claim: &Claim) -> OutcomeRecord {
        OutcomeRecord { signal: Signal::Success, ..self.delivered(claim) }
    }

    /// Fails the delivery and disables its endpoint.
    pub fn disabling(&self, claim: &Claim, reason: DisabledReason) -> OutcomeRecord {
        OutcomeRecord { disable: Some(reason), ..self.failed(claim) }
    }

    /// Claims one delivery. Its outcome disables its endpoint.
    pub async fn disable_by_outcome(&self, reason: DisabledReason) -> Claim {
        let claim = self.claim_one().await;
        assert_eq!(self.record(self.disabling(&claim, reason)).await, Recorded::Done);
        claim
    }

    /// The newest deliveries of the workspace: one page.
    pub async fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries_of(self.tenant(), DeliveryFilter::default()).await
    }

    pub async fn deliveries_of(&self, tenant: Tenant, filter: DeliveryFilter) -> Vec<Delivery> {
        self.store().list_deliveries(tenant, filter, Self::page()).await.unwrap().items
    }

    pub async fn delivery(&self, id: DeliveryId) -> (Delivery, Vec<Attempt>) {
        self.store().find_delivery(self.tenant(), id).await.unwrap().expect("the delivery is in the log")
    }
}

/// A key for `v1a` whose bytes contain its version.
pub fn signing_key(version: u32) -> SealedSigningKey {
    SealedSigningKey { sealed: format!("sealed {version}").into_bytes(), public_key: format!("whpk_{version}") }
}

/// The effect of a write without an idempotency key.
pub fn done<T>(written: Written<T>) -> T {
    let Written::Done(effect) = written else { panic!("a write without a key is never replayed") };
    effect
}

/// The numbers and outcomes of attempts.
pub fn outline(attempts: &[Attempt]) -> Vec<(u32, AttemptOutcome)> {
    attempts.iter().map(|attempt| (attempt.number, attempt.outcome)).collect()
}
