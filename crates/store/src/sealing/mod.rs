//! Everything that is sealed under the master key, and how a change of that key walks over it.
//!
//! [`key_state`] says which keys a store knows and how far a change has come. [`keyring`] is a process's copy of them.
//! The role [`Sealing`] reads sealed values in pages and replaces each by one that another key sealed.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use postrider_domain::endpoint::{SecretVersion, sealing_record, signing_key_record};
use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::idempotency::{IdempotencyScope, answer_record};

use crate::StoreError;

pub mod key_state;
pub mod keyring;

/// Why a store refuses sealed bytes: they would open with no key once the change of the master key is complete.
pub const OUTDATED_KEY: &str = "the master key was changed meanwhile";

/// A write brought bytes that a replaced master key sealed: [`OUTDATED_KEY`].
#[derive(Debug, thiserror::Error)]
#[error("the bytes to write were sealed with a master key that was replaced meanwhile")]
pub struct OutdatedKey;

/// Where a walk over all sealed values stands: everything up to this row is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealedPosition {
    /// Secrets and signing keys of endpoints.
    Secrets { endpoint_key: i64, version: u32 },
    /// Headers and certificates of endpoints.
    Parts { endpoint_key: i64, part: String },
    /// Answers kept for repeated requests.
    Answers { key: i64 },
}

impl SealedPosition {
    pub const START: Self = Self::Secrets { endpoint_key: i64::MIN, version: 0 };
    pub const ANSWERS: Self = Self::Answers { key: i64::MIN };

    /// The beginning of the values after the secrets.
    pub const fn parts() -> Self {
        Self::Parts { endpoint_key: i64::MIN, part: String::new() }
    }
}

/// The place of one sealed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedPlace {
    Secret {
        endpoint_key: RowKey,
        endpoint: EndpointId,
        version: SecretVersion,
    },
    SigningKey {
        endpoint_key: RowKey,
        endpoint: EndpointId,
        version: SecretVersion,
    },
    /// `part` is the text of a [`SealedPart`](postrider_domain::endpoint_options::SealedPart).
    Part {
        endpoint_key: RowKey,
        endpoint: EndpointId,
        part: String,
    },
    Answer {
        key: RowKey,
        scope: IdempotencyScope,
        idempotency_key: String,
    },
}

impl SealedPlace {
    /// The record that the value is bound to.
    pub fn record(&self) -> String {
        match self {
            Self::Secret { endpoint, version, .. } => sealing_record(*endpoint, *version),
            Self::SigningKey { endpoint, version, .. } => signing_key_record(*endpoint, *version),
            Self::Part { endpoint, part, .. } => format!("{endpoint}/{part}"),
            Self::Answer { scope, idempotency_key, .. } => answer_record(scope, idempotency_key),
        }
    }
}

/// A page of sealed values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPage {
    pub values: Vec<(SealedPlace, Vec<u8>)>,
    /// Where the next page begins. `None` after the last value.
    pub next: Option<SealedPosition>,
}

/// A sealed value and the one that replaces it.
#[derive(Clone, Debug)]
pub struct Resealed {
    pub place: SealedPlace,
    pub from: Vec<u8>,
    pub to: Vec<u8>,
}

/// A change of a named fact (see [`Meta`](crate::Meta)). `None` means that there is none.
#[derive(Clone, Debug)]
pub struct FactChange {
    pub name: &'static str,
    pub from: Option<Vec<u8>>,
    pub to: Option<Vec<u8>>,
}

#[async_trait]
pub trait Sealing: Send + Sync + 'static {
    /// The next sealed values: those of up to `rows` rows.
    async fn sealed_values(&self, after: SealedPosition, rows: usize) -> Result<SealedPage, StoreError>;

    /// The number of sealed values of endpoints. Kept answers are not counted: they may be many, and few are sealed.
    async fn count_sealed(&self) -> Result<u64, StoreError>;

    /// Changes all these facts if each is as `from` says, otherwise none. Returns whether it did.
    async fn change_facts_if_unchanged(&self, facts: Vec<FactChange>) -> Result<bool, StoreError>;

    /// Replaces each value that is still as it was read, and changes the fact that says how far the walk has come, in
    /// one transaction. Does nothing and returns false if another process has moved that fact.
    async fn reseal_if_unchanged(&self, values: Vec<Resealed>, walk: FactChange) -> Result<bool, StoreError>;

    /// Tells the other nodes which [`KeyState`](key_state::KeyState) this node works by. They see it within seconds.
    fn report_key_epoch(&self, epoch: i64);

    /// The running nodes that do not yet work by the state with this epoch, by their numbers. Includes nodes of
    /// versions that report none.
    async fn nodes_before_key_epoch(&self, epoch: i64) -> Result<Vec<u16>, StoreError>;
}
