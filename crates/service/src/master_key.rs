//! The change of the master key, in bounded steps. Each call of [`Operator::rotate_master_key`] does some of them.
//!
//! Every step is one transaction, and what is done stands in the store. So a change can be interrupted anywhere,
//! continued by any process that knows the new key, and run by two processes at once. `store/sealing/key_state.rs`
//! states the phases.

use serde::{Deserialize, Serialize};

use postrider_crypto::{KeyId, MasterKey};
use postrider_domain::limits;
use postrider_store::StoreError;
use postrider_store::sealing::key_state::{KEY_ID, KeyChange, KeyState, Phase, STATE, UnreadableState, WALK};
use postrider_store::sealing::keyring::{HASH_KEY_FACT, MasterKeyError, sealed_facts_under};
use postrider_store::sealing::{FactChange, Resealed, SealedPlace, SealedPosition};

use crate::operator::Operator;

/// How far a change of the master key has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChangeProgress {
    /// The id of the new key.
    pub to: String,
    pub stage: KeyChangeStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum KeyChangeStage {
    /// These running nodes do not work by the newest state yet. The change goes on when they do, or have stopped.
    WaitingFor { nodes: Vec<u16> },
    /// A phase has begun.
    Begun { phase: Phase },
    /// Values are sealed anew. `of` does not count kept answers.
    Resealing { done: u64, of: u64 },
    /// The new key counts. `unreadable` values opened with neither key and were left as they are.
    Done { resealed: u64, unreadable: u64 },
    /// The key was the store's own before.
    NothingToDo,
}

/// Why the master key cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyChangeError {
    #[error("the master key is being changed to {to}, not to {given}: finish that change first, with the same new key")]
    AnotherRuns { to: String, given: String },
    #[error("cannot open the key of the API keys' hashes: the store is damaged")]
    Damaged,
    #[error(transparent)]
    Keyring(#[from] MasterKeyError),
    #[error(transparent)]
    State(#[from] UnreadableState),
    #[error("cannot read how far the change has come: the store is damaged")]
    Walk(#[source] serde_json::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The content of the fact [`WALK`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Walk {
    /// The key of the change, so that a process that stood still cannot touch the walk of a later change.
    to: String,
    position: SealedPosition,
    resealed: u64,
    unreadable: u64,
    of: u64,
}

impl Walk {
    fn to_fact(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields can be written as JSON")
    }
}

impl Operator {
    /// Begins a change of the master key to `new`, or does the next steps of it.
    ///
    /// # Errors
    /// When a change to another key runs, or the store fails. Everything done so far stands.
    pub async fn rotate_master_key(&self, new: &MasterKey) -> Result<KeyChangeProgress, KeyChangeError> {
        let to = new.id().to_string();
        self.follow_master_key().await?;
        let state = KeyState::read(self.store.meta(STATE).await?.as_deref())?;
        let stage = match &state.change {
            None if self.service.keyring.sealing_key().id() == new.id() => KeyChangeStage::NothingToDo,
            None => self.announce(&state, new).await?,
            Some(change) if change.to != to => {
                return Err(KeyChangeError::AnotherRuns { to: change.to.clone(), given: to });
            }
            Some(KeyChange { phase: Phase::Announced, .. }) => self.switch(&state).await?,
            Some(KeyChange { phase: Phase::Switching, .. }) => self.begin_walk(&state, &to).await?,
            Some(KeyChange { phase: Phase::Resealing, .. }) => self.walk(&state, new).await?,
        };
        self.follow_master_key().await?;
        Ok(KeyChangeProgress { to, stage })
    }

    /// Brings this process's keys in line with the store, and tells the other nodes so.
    ///
    /// # Errors
    /// When the store fails, or was changed to a key that this process was never told.
    pub async fn follow_master_key(&self) -> Result<(), MasterKeyError> {
        let epoch = self.service.keyring.refresh().await?;
        self.store.report_key_epoch(epoch);
        Ok(())
    }

    async fn announce(&self, state: &KeyState, new: &MasterKey) -> Result<KeyChangeStage, KeyChangeError> {
        // A node of a version that knows no changes reports no epoch.
        if let Some(waiting) = self.waiting(state.epoch).await? {
            return Ok(waiting);
        }
        let old = self.service.keyring.sealing_key();
        let next = state.announced(&old, new, &self.service.random);
        let id = |key: &MasterKey| Some(key.id().to_string().into_bytes());
        let facts = vec![state.change_to(&next), FactChange { name: KEY_ID, from: id(&old), to: id(new) }];
        if self.store.change_facts_if_unchanged(facts).await? {
            tracing::info!(from = %old.id(), to = %new.id(), "a change of the master key began");
        }
        Ok(KeyChangeStage::Begun { phase: Phase::Announced })
    }

    async fn switch(&self, state: &KeyState) -> Result<KeyChangeStage, KeyChangeError> {
        if let Some(waiting) = self.waiting(state.epoch).await? {
            return Ok(waiting);
        }
        let next = state.in_phase(Phase::Switching);
        self.store.change_facts_if_unchanged(vec![state.change_to(&next)]).await?;
        Ok(KeyChangeStage::Begun { phase: Phase::Switching })
    }

    async fn begin_walk(&self, state: &KeyState, to: &str) -> Result<KeyChangeStage, KeyChangeError> {
        if let Some(waiting) = self.waiting(state.epoch).await? {
            return Ok(waiting);
        }
        let of = self.store.count_sealed().await?;
        let walk = Walk { to: to.to_owned(), position: SealedPosition::START, resealed: 0, unreadable: 0, of };
        let next = state.in_phase(Phase::Resealing);
        let facts = vec![state.change_to(&next), FactChange { name: WALK, from: None, to: Some(walk.to_fact()) }];
        self.store.change_facts_if_unchanged(facts).await?;
        Ok(KeyChangeStage::Begun { phase: Phase::Resealing })
    }

    async fn waiting(&self, epoch: i64) -> Result<Option<KeyChangeStage>, KeyChangeError> {
        let nodes = self.store.nodes_before_key_epoch(epoch).await?;
        Ok((!nodes.is_empty()).then_some(KeyChangeStage::WaitingFor { nodes }))
    }

    /// Walks some pages. A step is written when it has values to seal anew, and at the end of the call.
    async fn walk(&self, state: &KeyState, new: &MasterKey) -> Result<KeyChangeStage, KeyChangeError> {
        let Some(mut fact) = self.store.meta(WALK).await? else {
            // Another process has just finished the change.
            return Ok(KeyChangeStage::Begun { phase: Phase::Resealing });
        };
        let mut walk: Walk = serde_json::from_slice(&fact).map_err(KeyChangeError::Walk)?;
        for page in 1..=limits::RESEALED_PAGES_PER_REQUEST {
            let rows = match walk.position {
                SealedPosition::Secrets { .. } | SealedPosition::Parts { .. } => limits::RESEALED_ROWS_PER_STEP,
                SealedPosition::Answers { .. } => limits::AGEING_ROWS_PER_STEP,
            };
            let found = self.store.sealed_values(walk.position.clone(), rows).await?;
            let values = self.resealed(found.values, new, &mut walk);
            let is_last = found.next.is_none();
            if let Some(next) = found.next {
                walk.position = next;
            }
            if !values.is_empty() || is_last || page == limits::RESEALED_PAGES_PER_REQUEST {
                let moved = FactChange { name: WALK, from: Some(fact), to: Some(walk.to_fact()) };
                if !self.store.reseal_if_unchanged(values, moved).await? {
                    break;
                }
                fact = walk.to_fact();
            }
            if is_last {
                return self.settle(state, new, &walk).await;
            }
        }
        Ok(KeyChangeStage::Resealing { done: walk.resealed, of: walk.of })
    }

    /// The values of a page that another key sealed, sealed with `new`.
    fn resealed(&self, values: Vec<(SealedPlace, Vec<u8>)>, new: &MasterKey, walk: &mut Walk) -> Vec<Resealed> {
        let mut resealed = Vec::new();
        for (place, from) in values {
            if KeyId::labelled_on(&from) == Some(new.id()) {
                continue;
            }
            let record = place.record();
            match self.service.keyring.open(&record, &from) {
                Ok(plain) => {
                    let to = new.seal_labelled(&self.service.random, &record, &plain);
                    walk.resealed += 1;
                    resealed.push(Resealed { place, from, to });
                }
                Err(_) => {
                    walk.unreadable += 1;
                    tracing::error!(record, "a sealed value opens with neither master key; it stays as it is");
                }
            }
        }
        resealed
    }

    async fn settle(&self, state: &KeyState, new: &MasterKey, walk: &Walk) -> Result<KeyChangeStage, KeyChangeError> {
        let hash_key = self.store.meta(HASH_KEY_FACT).await?.ok_or(KeyChangeError::Damaged)?;
        let sealed = sealed_facts_under(new, &self.service.keyring, &hash_key).map_err(|_| KeyChangeError::Damaged)?;
        let mut facts =
            vec![state.change_to(&state.settled()), FactChange { name: WALK, from: Some(walk.to_fact()), to: None }];
        for (name, to) in sealed {
            facts.push(FactChange { name, from: self.store.meta(name).await?, to: Some(to) });
        }
        if self.store.change_facts_if_unchanged(facts).await? {
            tracing::info!(to = %new.id(), resealed = walk.resealed, "the change of the master key is complete");
        }
        Ok(KeyChangeStage::Done { resealed: walk.resealed, unreadable: walk.unreadable })
    }
}
