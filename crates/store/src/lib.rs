//! The store: configuration, delivery log and queue behind a set of role traits.
//!
//! Each trait serves one consumer and can be read, faked or wrapped alone:
//!
//! | role | who uses it | what it does |
//! |---|---|---|
//! | [`Queue`] | engine | claims due deliveries, returns claims, records outcomes |
//! | [`Upkeep`] | engine | expires, ages, forgets, erases, removes, advances replays and erasures |
//! | [`Secrets`] | engine | reads sealed secrets and options |
//! | [`Gauges`](gauges::Gauges) | engine | counts of rows by state, for metrics |
//! | [`Publish`] | service | accepts events, queues deliveries by hand |
//! | [`Replays`] | service | counts, creates, lists and stops replays |
//! | [`Erasures`] | service | creates, lists and finds erasures |
//! | [`Stats`] | service | counts of a period, what endpoints did lately, the queue |
//! | [`Log`] | service | lists and finds events, deliveries and audit entries; records refused requests |
//! | [`Sessions`] | service | sign-in sessions of the dashboard, login codes |
//! | [`Workspaces`], [`ApiKeys`], [`Endpoints`] | service | the registry: who may call and where events go |
//! | [`PortalSessions`] | service | the stays of customers on the portal |
//! | [`ParkedMessages`] | service | messages of sources that could not become events; which sources are paused |
//! | [`Leases`] | service | leases deliveries of listeners to consumers |
//! | [`Answers`] | service | answers kept for repeated requests |
//! | [`SharedRates`] | service | exchanges request counts between nodes |
//! | [`Nodes`] | service | the processes that serve the store |
//! | [`Meta`] | service, server | the store's own facts and its event catalogue |
//! | [`Sealing`](sealing::Sealing) | service, server | seals everything anew when the master key changes |
//! | [`Backups`](backup::Backups) | service | copies the store into a file while it is in use |
//!
//! A method is one transaction and one promise. `tests/it/store/conformance.rs` states each promise once and runs it on
//! every back end. The database is the queue and the only source of truth. The store keeps the time: callers pass
//! durations, never instants, so that due times and leases follow one clock on all nodes.
//!
//! Decisions that both back ends share are here, beside the role that needs them. Only `copy.rs` and
//! conditions that both back ends share hold SQL, in words that both databases accept.

pub mod backup;
pub mod column;
pub mod copy;
pub mod directory;
pub mod disk;
pub mod erasure;
mod error;
pub mod filter_replay;
pub mod gauges;
mod idempotency;
pub mod listener;
pub mod log;
mod meta;
mod node;
pub mod parked_message;
pub mod publish;
pub mod queue;
mod rate;
mod refusal;
pub mod registry;
pub mod replay;
pub mod sealing;
mod secrets;
pub mod stats;
pub mod stored_bytes;
pub mod tally;
pub mod upkeep;
mod write;

pub use erasure::{Erasures, NewErasure};
pub use error::{DISK_FULL, OpenError, StoreError, UnexpectedValue};
pub use filter_replay::FilterScope;
pub use idempotency::{Answers, KeptAnswer};
pub use listener::{
    ConsumerAttempt, ConsumerAttempts, ConsumerResult, HeldLease, Lease, LeaseToken, Leases, ListenerQueue,
};
pub use log::{Log, NewRefusal};
pub use meta::{CatalogueAdoption, Meta, NewCatalogue, StoreSeed, StoredCatalogue};
pub use node::Nodes;
pub use parked_message::ParkedMessages;
pub use publish::Publish;
pub use queue::{
    AfterAttempt, Claim, ClaimSink, ClaimToken, Claimed, EndpointTarget, Lane, LaneKind, LaneQuota, OutcomeRecord,
    Queue, Recorded,
};
pub use rate::{RateCounts, SharedRates};
pub use refusal::{
    AcceptError, CreateApiKeyError, CreateEndpointError, CreatePortalSessionError, DeleteEndpointError,
    EndPortalSessionError, EraseError, RequeueError, RevokeApiKeyError, RotateSecretError, SkipDeliveryError,
    StopReplayError, UpdateEndpointError, WriteWorkspaceError,
};
pub use registry::api_key::{ApiKeys, NewApiKey};
pub use registry::endpoint::{Destination, EndpointLimits, EndpointUpdate, Endpoints, NewEndpoint, SecretRotation};
pub use registry::endpoint_options::{SealedCertificate, SealedHeader, SealedKind, SealedOptions, SealedSigningKey};
pub use registry::portal_session::{NewPortalSession, PortalOpening, PortalSessions};
pub use registry::session::{NewLoginCode, SessionOpening, Sessions, SignOut};
pub use registry::workspace::{NewWorkspace, WorkspaceRename, Workspaces};
pub use replay::{NewReplay, ReplayScope, Replays};
pub use secrets::{SealedParts, Secrets};
pub use stats::Stats;
pub use upkeep::{AgedStep, EndedCursor, EndedKind, EndedStep, LogPart, PayloadStep, Removed, Upkeep};
pub use write::{Write, Written};

/// What the delivery engine asks of a store.
pub trait EngineStore: Queue + Upkeep + Secrets + gauges::Gauges {}

impl<S: Queue + Upkeep + Secrets + gauges::Gauges + ?Sized> EngineStore for S {}

/// What the service asks of a store.
pub trait ServiceStore:
    Publish
    + Replays
    + Erasures
    + Log
    + Stats
    + Workspaces
    + ApiKeys
    + Endpoints
    + Sessions
    + PortalSessions
    + ParkedMessages
    + Leases
    + Answers
    + SharedRates
    + Nodes
    + Meta
    + sealing::Sealing
    + backup::Backups
{
}

impl<
    S: Publish
        + Replays
        + Erasures
        + Log
        + Stats
        + Workspaces
        + ApiKeys
        + Endpoints
        + Sessions
        + PortalSessions
        + ParkedMessages
        + Leases
        + Answers
        + SharedRates
        + Nodes
        + Meta
        + sealing::Sealing
        + backup::Backups
        + ?Sized,
> ServiceStore for S
{
}

/// A whole store: what a back end implements.
pub trait Store: EngineStore + ServiceStore {}

impl<S: EngineStore + ServiceStore + ?Sized> Store for S {}
