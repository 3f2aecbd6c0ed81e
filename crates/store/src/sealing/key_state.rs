//! The master key as the store knows it, and the phases of a change to another key.
//!
//! A change has three phases. Each begins only when every running node works by the one before, so that at no time a
//! node meets a value that it cannot open:
//!
//! | phase | nodes open values of | nodes seal with | the store takes values of |
//! |---|---|---|---|
//! | announced | both keys | the old key | the old key |
//! | switching | both keys | the new key | both keys |
//! | resealing | both keys | the new key | the new key |
//!
//! In the last phase everything is sealed anew. No value of the old key can appear behind the walk, because the store
//! refuses it in the transaction that would write it ([`KeyState::accepts`]). A node that stood still for the whole
//! change can therefore do no harm when it goes on.
//!
//! During a change the store holds each key sealed under the other, so that a node can start with either. Nothing of
//! the old key is left at the end.

use serde::{Deserialize, Serialize};

use postrider_crypto::{KeyId, MasterKey, Random};
use postrider_domain::limits;

use super::FactChange;

/// The names of the facts.
pub const STATE: &str = "master_key_state";
/// How far the walk of the running change has come.
pub const WALK: &str = "master_key_walk";
/// The id of the store's first key, and from the beginning of a change that of the new key. Versions of this program
/// that know no changes read only this fact, and must not start with the old key meanwhile.
pub const KEY_ID: &str = "master_key_id";

const NEW_UNDER_OLD: &str = "meta/new_master_key";
const OLD_UNDER_NEW: &str = "meta/old_master_key";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Grows with each phase of each change. Before the first change it is 0.
    pub epoch: i64,
    /// The id of the key that counts, or that is being replaced. `None` before the first change: see [`KEY_ID`]. A key
    /// that came into use by a change labels what it seals.
    pub current: Option<String>,
    pub change: Option<KeyChange>,
    /// The ids of earlier keys, newest first. For messages.
    pub replaced: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    pub from: String,
    pub to: String,
    pub phase: Phase,
    new_under_old: Vec<u8>,
    old_under_new: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Announced,
    Switching,
    Resealing,
}

/// The fact holds something that no version of this program writes.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the state of the master key in the store: a newer version of postrider wrote it, or the store is damaged"
)]
pub struct UnreadableState(#[from] serde_json::Error);

impl KeyState {
    /// Without a fact, the master key was never changed.
    ///
    /// # Errors
    /// When the fact is not of this form.
    pub fn read(fact: Option<&[u8]>) -> Result<Self, UnreadableState> {
        Ok(fact.map_or_else(|| Ok(Self::default()), serde_json::from_slice)?)
    }

    pub fn to_fact(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields can be written as JSON")
    }

    /// The change of the fact from this state to `next`.
    pub fn change_to(&self, next: &Self) -> FactChange {
        FactChange { name: STATE, from: Some(self.to_fact()), to: Some(next.to_fact()) }
    }

    /// The first phase of a change.
    pub fn announced(&self, old: &MasterKey, new: &MasterKey, random: &Random) -> Self {
        let change = KeyChange {
            from: old.id().to_string(),
            to: new.id().to_string(),
            phase: Phase::Announced,
            new_under_old: old.seal_key(random, NEW_UNDER_OLD, new),
            old_under_new: new.seal_key(random, OLD_UNDER_NEW, old),
        };
        Self { epoch: self.epoch + 1, change: Some(change), ..self.clone() }
    }

    /// The same change in its next phase.
    pub fn in_phase(&self, phase: Phase) -> Self {
        let change = self.change.clone().map(|change| KeyChange { phase, ..change });
        Self { epoch: self.epoch + 1, change, ..self.clone() }
    }

    /// The state after the change. It holds no key.
    pub fn settled(&self) -> Self {
        let Some(change) = &self.change else { return self.clone() };
        let mut replaced = vec![change.from.clone()];
        replaced.extend(self.replaced.iter().filter(|id| **id != change.to && **id != change.from).cloned());
        replaced.truncate(limits::REPLACED_KEYS_REMEMBERED);
        Self { epoch: self.epoch + 1, current: Some(change.to.clone()), change: None, replaced }
    }

    /// Whether the store may take these sealed bytes.
    pub fn accepts(&self, sealed: &[u8]) -> bool {
        let is_of = |id: &String| KeyId::labelled_on(sealed).is_some_and(|label| label.to_string() == *id);
        let is_of_current = || self.current.as_ref().is_none_or(is_of);
        match &self.change {
            None => is_of_current(),
            Some(KeyChange { to, phase, .. }) => match phase {
                Phase::Announced => is_of_current(),
                Phase::Switching => is_of_current() || is_of(to),
                Phase::Resealing => is_of(to),
            },
        }
    }
}

impl KeyChange {
    /// Given one of the two keys, the other one. `None` if `known` is neither.
    ///
    /// # Errors
    /// When the other key cannot be opened.
    pub fn other_key(&self, known: &MasterKey) -> Option<Result<MasterKey, postrider_crypto::Unsealable>> {
        let id = known.id().to_string();
        if id == self.from {
            Some(known.open_key(NEW_UNDER_OLD, &self.new_under_old))
        } else if id == self.to {
            Some(known.open_key(OLD_UNDER_NEW, &self.old_under_new))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey::new(&[byte; 32])
    }

    fn accepted(state: &KeyState) -> Vec<&'static str> {
        let random = Random::default();
        let values = [
            ("unlabelled", key(1).seal(&random, "r", b"x")),
            ("old", key(1).seal_labelled(&random, "r", b"x")),
            ("new", key(2).seal_labelled(&random, "r", b"x")),
            ("other", key(3).seal_labelled(&random, "r", b"x")),
        ];
        values.iter().filter(|(_, sealed)| state.accepts(sealed)).map(|(name, _)| *name).collect()
    }

    #[test]
    fn the_store_takes_only_values_that_stay_readable() {
        let everything = ["unlabelled", "old", "new", "other"];
        let (old, new) = (key(1), key(2));
        let first = KeyState::default();
        assert_eq!(accepted(&first), everything);
        let announced = first.announced(&old, &new, &Random::default());
        assert_eq!(accepted(&announced), everything);
        let switching = announced.in_phase(Phase::Switching);
        assert_eq!(accepted(&switching), everything);
        let resealing = switching.in_phase(Phase::Resealing);
        assert_eq!(accepted(&resealing), ["new"]);
        assert_eq!(accepted(&resealing.settled()), ["new"]);
    }

    #[test]
    fn a_second_change_takes_no_unlabelled_value() {
        let (old, new) = (key(1), key(2));
        let settled = KeyState { current: Some(old.id().to_string()), epoch: 4, ..KeyState::default() };
        assert_eq!(accepted(&settled), ["old"]);
        let announced = settled.announced(&old, &new, &Random::default());
        assert_eq!(accepted(&announced), ["old"]);
        assert_eq!(accepted(&announced.in_phase(Phase::Switching)), ["old", "new"]);
    }

    #[test]
    fn either_key_opens_the_other_and_nothing_is_left_at_the_end() {
        let (old, new) = (key(1), key(2));
        let announced = KeyState::default().announced(&old, &new, &Random::default());
        let read = KeyState::read(Some(&announced.to_fact())).unwrap();
        assert_eq!(read, announced);
        let change = read.change.clone().unwrap();
        assert_eq!(change.other_key(&old).unwrap().unwrap().id(), new.id());
        assert_eq!(change.other_key(&new).unwrap().unwrap().id(), old.id());
        assert!(change.other_key(&key(3)).is_none());
        let settled = read.settled();
        assert_eq!(settled.change, None);
        assert_eq!(settled.replaced, [old.id().to_string()]);
        let back = settled.announced(&new, &old, &Random::default()).settled();
        assert_eq!(back.replaced, [new.id().to_string()], "a key that counts again is not among the replaced ones");
    }

    #[test]
    fn only_the_newest_replaced_keys_are_remembered() {
        let mut state = KeyState::default();
        let last = u8::try_from(limits::REPLACED_KEYS_REMEMBERED).unwrap() + 2;
        for byte in 1..last {
            state = state.announced(&key(byte), &key(byte + 1), &Random::default()).settled();
        }
        assert_eq!(state.replaced.len(), limits::REPLACED_KEYS_REMEMBERED);
        assert_eq!(state.replaced[0], key(last - 1).id().to_string());
    }
}
