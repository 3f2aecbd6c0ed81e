//! Which event catalogue counts: the one given at the start, or the one that the store holds.

use postrider_domain::event_type::{Catalogue, CatalogueError, EventTypeName};
use postrider_store::{CatalogueAdoption, NewCatalogue, Store, StoreError};

/// Why a store cannot be used with a catalogue.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error(transparent)]
    Given(#[from] CatalogueError),
    #[error(
        "the store's catalogue, of version {version}, is newer than the one given and cannot be read; is postrider older than the one that stored it?"
    )]
    Stored {
        version: u32,
        #[source]
        source: CatalogueError,
    },
    #[error(
        "the store holds another event catalogue of version {version}: raise `version` in the file that was changed, or give the file that was adopted with --events"
    )]
    OtherContent { version: u32 },
    #[error("the brand cannot change from {stored:?} to {given:?}: API keys exist that start with the old one")]
    BrandFixed { stored: String, given: String },
    #[error("the event catalogue no longer names {}, which stored events or endpoints use: keep the name and set `retired = true`", .names.join(", "))]
    NamesInUse { names: Vec<String> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the catalogue in `text` the store's, unless the store holds a newer one; returns the one that counts.
///
/// # Errors
/// When `text` is no catalogue, or stands against what is stored.
pub async fn adopt_catalogue(store: &dyn Store, text: &str) -> Result<Catalogue, AdoptError> {
    let given = Catalogue::parse(text)?;
    let new = NewCatalogue {
        version: given.version,
        text: text.to_owned(),
        content_hash: given.content_hash(),
        brand: given.brand.name().to_owned(),
        names: given.types().iter().map(|event| event.name.as_str().to_owned()).collect(),
    };
    match store.adopt_catalogue(new).await? {
        CatalogueAdoption::Adopted => Ok(given),
        CatalogueAdoption::NewerStored { version, text } => {
            let stored = Catalogue::parse(&text).map_err(|source| AdoptError::Stored { version, source })?;
            let names = stored.names().map(EventTypeName::as_str).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                given_version = given.version,
                stored_version = version,
                names,
                "the event catalogue given is older than the store's; the stored one counts"
            );
            Ok(stored)
        }
        CatalogueAdoption::OtherContent => Err(AdoptError::OtherContent { version: given.version }),
        CatalogueAdoption::BrandFixed { stored } => {
            Err(AdoptError::BrandFixed { stored, given: given.brand.name().to_owned() })
        }
        CatalogueAdoption::NamesInUse(names) => Err(AdoptError::NamesInUse { names }),
    }
}

/// The store's own catalogue, if it has one.
///
/// # Errors
/// When a newer version of this program stored it in a form that this one cannot read.
pub async fn stored_catalogue(store: &dyn Store) -> Result<Option<Catalogue>, AdoptError> {
    Ok(store.catalogue().await?.map(|text| Catalogue::parse(&text)).transpose()?)
}
