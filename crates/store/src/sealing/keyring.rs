//! The master keys that a process works with: one, or both during a change of the master key.
//!
//! Every process follows the state in the store ([`Keyring::refresh`]). A value that does not open makes it look there
//! at once ([`Keyring::open_or_refresh`]): a process that stood still learns of a change that way.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use zeroize::Zeroizing;

use postrider_crypto::{MacKey, MasterKey, Random, Unsealable};

use super::key_state::{KEY_ID, KeyChange, KeyState, Phase, STATE, UnreadableState};
use crate::{Meta, StoreError};

/// Why a store cannot be used with a master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("the store was made with the master key {expected}, but the given key is {given}")]
    Other { expected: String, given: String },
    #[error(
        "the master key {given} was replaced by {expected} with `postrider keys rotate-master`: start with the new key"
    )]
    Replaced { expected: String, given: String },
    #[error(
        "the master key is being changed from {from} to {to}, and the given key {given} is neither: start with one of them"
    )]
    OtherDuringChange { from: String, to: String, given: String },
    #[error("the master key has the right id but cannot open what it sealed: the key or the store is damaged")]
    Damaged,
    #[error(transparent)]
    State(#[from] UnreadableState),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The value that shows whether a key is the one of the store.
const CANARY: &[u8] = b"postrider canary";
pub const CANARY_FACT: &str = "canary";
const CANARY_RECORD: &str = "meta/canary";

/// The key of the hashes of API keys. A hash cannot be made anew without the API key, so this key survives changes of
/// the master key: it was derived from the store's first one and is stored sealed.
pub const HASH_KEY_FACT: &str = "api_key_hash_key";
const HASH_KEY_RECORD: &str = "meta/api_key_hash_key";
const HASH_KEY_PURPOSE: &str = "api key hash";

pub struct Keyring {
    /// `None` for a keyring without a store. A strong handle would let a job of the store drop the store itself.
    store: Option<Weak<dyn Meta>>,
    random: Random,
    keys: RwLock<Arc<Keys>>,
    api_key_hash: MacKey,
}

/// The keys of one state of the store.
struct Keys {
    epoch: i64,
    /// Seals new values.
    sealing: Arc<MasterKey>,
    /// Opens what the other key of a change has sealed.
    other: Option<Arc<MasterKey>>,
    is_labelled: bool,
}

impl Keyring {
    /// A single key that belongs to no store.
    pub fn of(key: MasterKey) -> Self {
        let api_key_hash = MacKey::new(key.derived(HASH_KEY_PURPOSE).as_slice());
        let keys = Keys { epoch: 0, sealing: Arc::new(key), other: None, is_labelled: false };
        Self { store: None, random: Random::default(), keys: RwLock::new(Arc::new(keys)), api_key_hash }
    }

    /// Ties a new store to the first key. Checks that an existing store belongs to one of the keys.
    ///
    /// # Errors
    /// When the store belongs to another key.
    pub async fn of_store(
        store: &Arc<dyn Meta>,
        given: Vec<MasterKey>,
        random: &Random,
    ) -> Result<Self, MasterKeyError> {
        let given: Vec<Arc<MasterKey>> = given.into_iter().map(Arc::new).collect();
        let mut fact = store.meta_or_insert(STATE, KeyState::default().to_fact()).await?;
        let keys = loop {
            let refused = match keys_at_start(store.as_ref(), &KeyState::read(Some(&fact))?, &given, random).await {
                Ok(keys) => break keys,
                Err(refused) => refused,
            };
            // A change that began between two reads looks like another key.
            let read = store.meta(STATE).await?.unwrap_or_default();
            if read == fact {
                return Err(refused);
            }
            fact = read;
        };
        let derived = keys.sealing.derived(HASH_KEY_PURPOSE);
        let sealed = keys.seal(random, HASH_KEY_RECORD, derived.as_slice());
        let sealed = store.meta_or_insert(HASH_KEY_FACT, sealed).await?;
        let hash_key = keys.open(HASH_KEY_RECORD, &sealed).map_err(|_| MasterKeyError::Damaged)?;
        Ok(Self {
            store: Some(Arc::downgrade(store)),
            random: random.clone(),
            keys: RwLock::new(Arc::new(keys)),
            api_key_hash: MacKey::new(&hash_key),
        })
    }

    pub fn api_key_hash(&self) -> &MacKey {
        &self.api_key_hash
    }

    /// Seals `plain` for `record` with the key that seals now.
    pub fn seal(&self, record: &str, plain: &[u8]) -> Vec<u8> {
        self.keys().seal(&self.random, record, plain)
    }

    /// Opens bytes that any of the keys sealed.
    ///
    /// # Errors
    /// When none did, or for another record.
    pub fn open(&self, record: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        self.keys().open(record, sealed)
    }

    /// As [`Self::open`]. If that fails, looks into the store for a key that this process does not know yet.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_or_refresh(&self, record: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let opened = self.open(record, sealed);
        if opened.is_ok() || self.refresh().await.is_err() {
            return opened;
        }
        self.open(record, sealed)
    }

    /// Brings the keys in line with the store. Returns the epoch of the state that they follow.
    ///
    /// # Errors
    /// When the store fails, or when it was changed to a key that this process was never told.
    pub async fn refresh(&self) -> Result<i64, MasterKeyError> {
        let known = self.keys();
        let Some(store) = self.store.as_ref().and_then(Weak::upgrade) else { return Ok(known.epoch) };
        let state = KeyState::read(store.meta(STATE).await?.as_deref())?;
        if state.epoch == known.epoch {
            return Ok(known.epoch);
        }
        let candidates: Vec<Arc<MasterKey>> = known.all().cloned().collect();
        let keys = match &state.change {
            Some(change) => keys_during(&state, change, &candidates)?,
            None => keys_between_changes(&state, &state.current.clone().unwrap_or_default(), &candidates)?,
        };
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.epoch > current.epoch {
            *current = Arc::new(keys);
        }
        Ok(current.epoch)
    }

    /// The epoch of the state that the keys follow.
    pub fn epoch(&self) -> i64 {
        self.keys().epoch
    }

    /// The key that seals now.
    pub fn sealing_key(&self) -> Arc<MasterKey> {
        Arc::clone(&self.keys().sealing)
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The facts of a store that tell which master key it belongs to.
#[derive(Clone, Debug, Default)]
pub struct KeyFacts {
    /// [`STATE`].
    pub state: Option<Vec<u8>>,
    /// [`KEY_ID`].
    pub key_id: Option<Vec<u8>>,
    /// [`CANARY_FACT`].
    pub canary: Option<Vec<u8>>,
}

impl KeyFacts {
    /// The names of the facts, in the order of the fields.
    pub const NAMES: [&str; 3] = [STATE, KEY_ID, CANARY_FACT];

    /// Whether a store with these facts can be used with the key. Writes nothing, so it needs no open store.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self, key: MasterKey) -> Result<(), MasterKeyError> {
        let state = KeyState::read(self.state.as_deref())?;
        let given = [Arc::new(key)];
        let keys = match (&state.change, &state.current, &self.key_id) {
            (Some(change), ..) => keys_during(&state, change, &given)?,
            (None, Some(current), _) => keys_between_changes(&state, current, &given)?,
            (None, None, Some(first)) => keys_between_changes(&state, &String::from_utf8_lossy(first), &given)?,
            // A store that has sealed nothing yet takes any key.
            (None, None, None) => return Ok(()),
        };
        match self.canary.as_deref().map(|sealed| keys.open(CANARY_RECORD, sealed)) {
            None => Ok(()),
            Some(Ok(opened)) if opened.as_slice() == CANARY => Ok(()),
            Some(_) => Err(MasterKeyError::Damaged),
        }
    }
}

/// The canary and the key of the hashes, sealed under `key`. `opened_by` opens the present ones.
///
/// # Errors
/// When the present key of the hashes does not open.
pub fn sealed_facts_under(
    key: &MasterKey,
    opened_by: &Keyring,
    hash_key: &[u8],
) -> Result<[(&'static str, Vec<u8>); 2], Unsealable> {
    let hash_key = opened_by.open(HASH_KEY_RECORD, hash_key)?;
    let seal = |record: &str, plain: &[u8]| key.seal_labelled(&opened_by.random, record, plain);
    Ok([(CANARY_FACT, seal(CANARY_RECORD, CANARY)), (HASH_KEY_FACT, seal(HASH_KEY_RECORD, &hash_key))])
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = &Arc<MasterKey>> {
        std::iter::once(&self.sealing).chain(&self.other)
    }

    fn seal(&self, random: &Random, record: &str, plain: &[u8]) -> Vec<u8> {
        match self.is_labelled {
            true => self.sealing.seal_labelled(random, record, plain),
            false => self.sealing.seal(random, record, plain),
        }
    }

    fn open(&self, record: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        self.all().find_map(|key| key.open(record, sealed).ok()).ok_or(Unsealable)
    }
}

/// The keys of this state, and the canary checked.
async fn keys_at_start(
    store: &dyn Meta,
    state: &KeyState,
    given: &[Arc<MasterKey>],
    random: &Random,
) -> Result<Keys, MasterKeyError> {
    if let Some(change) = &state.change {
        return keys_during(state, change, given);
    }
    let current = match &state.current {
        Some(current) => current.clone(),
        None => {
            let first = given.first().map(|key| key.id().to_string()).unwrap_or_default();
            String::from_utf8_lossy(&store.meta_or_insert(KEY_ID, first.into_bytes()).await?).into_owned()
        }
    };
    let keys = keys_between_changes(state, &current, given)?;
    let sealed = store.meta_or_insert(CANARY_FACT, keys.seal(random, CANARY_RECORD, CANARY)).await?;
    match keys.open(CANARY_RECORD, &sealed) {
        Ok(opened) if opened.as_slice() == CANARY => Ok(keys),
        _ => Err(MasterKeyError::Damaged),
    }
}

fn keys_during(state: &KeyState, change: &KeyChange, known: &[Arc<MasterKey>]) -> Result<Keys, MasterKeyError> {
    let found = known.iter().find_map(|key| Some((Arc::clone(key), change.other_key(key)?)));
    let Some((key, other)) = found else {
        let given = known.first().map(|key| key.id().to_string()).unwrap_or_default();
        return Err(MasterKeyError::OtherDuringChange { from: change.from.clone(), to: change.to.clone(), given });
    };
    let other = Arc::new(other.map_err(|_| MasterKeyError::Damaged)?);
    let (old, new) = if key.id().to_string() == change.from { (key, other) } else { (other, key) };
    Ok(match change.phase {
        Phase::Announced => {
            Keys { epoch: state.epoch, sealing: old, other: Some(new), is_labelled: state.current.is_some() }
        }
        Phase::Switching | Phase::Resealing => {
            Keys { epoch: state.epoch, sealing: new, other: Some(old), is_labelled: true }
        }
    })
}

fn keys_between_changes(state: &KeyState, current: &str, known: &[Arc<MasterKey>]) -> Result<Keys, MasterKeyError> {
    let expected = current.to_owned();
    if let Some(key) = known.iter().find(|key| key.id().to_string() == expected) {
        let sealing = Arc::clone(key);
        return Ok(Keys { epoch: state.epoch, sealing, other: None, is_labelled: state.current.is_some() });
    }
    let given = known.first().map(|key| key.id().to_string()).unwrap_or_default();
    Err(match state.replaced.contains(&given) {
        true => MasterKeyError::Replaced { expected, given },
        false => MasterKeyError::Other { expected, given },
    })
}
