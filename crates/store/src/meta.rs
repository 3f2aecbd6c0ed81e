//! The store's own facts: its tag, its keys, named values, and the event catalogue it belongs to.

use async_trait::async_trait;

use postrider_domain::disk::DiskState;
use postrider_domain::id::{RowKey, StoreTag};

use crate::StoreError;

/// What the caller that opens a store says about itself, and random values that identify a new store.
#[derive(Clone, Copy, Debug)]
pub struct StoreSeed {
    /// The version of the program.
    pub version: &'static str,
    /// The tag of the store's timed ids, if it has none yet.
    pub tag: StoreTag,
    /// Tells this process's row keys from those of another that shares the store. The lowest nine bits count.
    pub node: u16,
}

/// An event catalogue that a server brings.
#[derive(Clone, Debug)]
pub struct NewCatalogue {
    pub version: u32,
    /// The file as it was given.
    pub text: String,
    pub content_hash: [u8; 32],
    pub brand: String,
    /// Every name in it, retired ones too.
    pub names: Vec<String>,
}

/// The newest catalogue in a store.
#[derive(Clone, Debug)]
pub struct StoredCatalogue {
    pub version: u32,
    pub text: String,
    pub content_hash: [u8; 32],
    pub brand: String,
    /// Separated by spaces.
    pub names: String,
}

/// The result of offering a catalogue to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueAdoption {
    /// It is the store's catalogue now, or was already.
    Adopted,
    /// The store holds a newer one, whose text this is.
    NewerStored { version: u32, text: String },
    /// The store holds another catalogue of the same version.
    OtherContent,
    /// Its brand differs from the store's, whose API keys exist already.
    BrandFixed { stored: String },
    /// It lacks names that stored events or endpoints use.
    NamesInUse(Vec<String>),
}

impl StoredCatalogue {
    /// The result of offering `new`, where the versions decide it. `None` if `new` is the newer one.
    pub fn compare(&self, new: &NewCatalogue) -> Option<CatalogueAdoption> {
        if self.version > new.version {
            return Some(CatalogueAdoption::NewerStored { version: self.version, text: self.text.clone() });
        }
        (self.version == new.version).then(|| {
            let same = self.content_hash == new.content_hash;
            if same { CatalogueAdoption::Adopted } else { CatalogueAdoption::OtherContent }
        })
    }

    /// The names that `new` no longer has. Each must be unused before `new` is adopted.
    pub fn names_missing_in<'s>(&'s self, new: &'s NewCatalogue) -> impl Iterator<Item = &'s str> {
        self.names.split_whitespace().filter(|name| !new.names.iter().any(|kept| kept == name))
    }
}

#[async_trait]
pub trait Meta: Send + Sync + 'static {
    /// The tag in this store's timed ids.
    fn tag(&self) -> StoreTag;

    /// A new row key, larger than any given before by this process.
    fn next_key(&self) -> RowKey;

    /// Publishes operational events about endpoints and deliveries in this workspace from now on, each in the
    /// transaction of the change it reports. Changes in that workspace itself are not reported. Only the first call
    /// counts.
    fn enable_operational_events(&self, workspace: RowKey);

    /// Limits the bytes that one workspace stores from now on (`stored_bytes.rs`). Call it before the store is used.
    fn limit_stored_bytes(&self, max: u64);

    /// Completes when the store can be read and written.
    async fn check(&self) -> Result<(), StoreError>;

    /// The state of the disk, as the engine of this process last found it.
    fn disk_state(&self) -> DiskState;

    /// The value stored under `name`.
    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The value stored under `name`. Stores `value` first if there is none.
    async fn meta_or_insert(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, StoreError>;

    /// Makes `new` the store's catalogue. Writes nothing unless the result is [`CatalogueAdoption::Adopted`].
    async fn adopt_catalogue(&self, new: NewCatalogue) -> Result<CatalogueAdoption, StoreError>;

    /// The text of the store's catalogue, if it has one.
    async fn catalogue(&self) -> Result<Option<String>, StoreError>;
}
