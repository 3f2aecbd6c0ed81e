//! What a caller may do: authorise, check, and turn a request into one call of the store.
//!
//! Every front door comes through here, so none can skip authorisation. A file per noun, a function per verb. Nothing
//! here knows HTTP, SQL or sockets.
//!
//! There are two handles. [`Service`] asks each caller for its principal; front doors hold only this one. [`Operator`]
//! asks for none; the server's own admin socket and the command line hold it. [`ServiceParts::build`] makes both.

mod access;
mod api_key;
mod audit;
mod backup;
mod blocking;
mod catalogue;
mod delivery;
mod endpoint;
mod endpoint_options;
mod endpoint_order;
mod erasure;
mod error;
mod event;
mod event_name;
pub mod fields;
mod found;
mod idempotency;
mod json_body;
mod key_cache;
mod key_uses;
mod listener;
mod lock;
mod login_code;
mod master_key;
mod node;
mod operator;
mod operator_webhook;
mod parked_message;
mod portal;
mod principal_write;
mod rate_limit;
mod rate_limiter;
mod readiness;
mod refusal_log;
mod refused_keys;
mod replay;
mod restored_copy;
mod service;
mod session;
mod source;
mod source_message;
mod stats;
mod violation_log;
mod workspace;

pub use access::Origin;
pub use api_key::{CreateApiKey, CreatedApiKey};
pub use blocking::run_blocking;
pub use catalogue::{AdoptError, adopt_catalogue, stored_catalogue};
pub use delivery::refused_retry;
pub use endpoint::{CreateEndpoint, EndpointWithSecret, RotateSecret, UpdateEndpoint};
pub use endpoint_order::FailingFirst;
pub use error::{ParameterFault, ServiceError};
pub use event::{OtherEndpoint, PublishEvent};
pub use event_name::{known_event, subscribable_event};
pub use found::Found;
pub use idempotency::{Idempotent, RenderAnswer, WriteError};
pub use json_body::JsonBody;
pub use listener::{CreateListener, LeasedDelivery, Settled, SettledResult, Settlement};
pub use login_code::{CreateLoginCode, LoginCode};
pub use master_key::{KeyChangeError, KeyChangeProgress, KeyChangeStage};
pub use operator::Operator;
pub use operator_webhook::OperatorWebhook;
pub use portal::{CreatePortalSession, CreatedPortalSession, OpenedPortal, PortalVisit};
pub use postrider_store::publish::requeue::{RetriedDelivery, RetryRefusal};
pub use postrider_store::{ConsumerResult, HeldLease, LeaseToken};
pub use restored_copy::settle_restored_copy;
pub use service::{Service, ServiceParts};
pub use session::NewSession;
pub use source::{Source, SourceCounts, SourceReport};
pub use source_message::Fate;
pub use stats::{NothingWrong, StatsQuery, StatsReport, note_troubles};
