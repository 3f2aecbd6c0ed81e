//! Which event catalogue a server uses: the one it is given at the start, or the one in the store.

use postrider_domain::event_type::{Catalogue, CatalogueError, EventTypeName};
use postrider_store::{CatalogueAdoption, Meta, NewCatalogue, StoreError};

/// Why a store cannot be used with a catalogue.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error(transparent)]
    Given(#[from] CatalogueError),
    #[error(
        "cannot read the event catalogue version {version} in the store, which is newer than the given one: run the \
         postrider version that stored it, or a newer one"
    )]
    Stored {
        version: u32,
        #[source]
        source: CatalogueError,
    },
    #[error(
        "the store holds a different event catalogue with the same version {version}: raise `version` in the changed \
         file, or pass the stored file with --events"
    )]
    OtherContent { version: u32 },
    #[error("the brand cannot change from {stored:?} to {given:?}: existing API keys start with the old brand")]
    BrandFixed { stored: String, given: String },
    #[error("the event catalogue no longer names {}, which stored events or endpoints use: keep each name and set \
             `retired = true`", .names.join(", "))]
    NamesInUse { names: Vec<String> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stores the catalogue in `text` unless the store holds a newer one. Returns the catalogue to use.
///
/// # Errors
/// When `text` is not a catalogue, or contradicts the stored one.
pub async fn adopt_catalogue(store: &dyn Meta, text: &str) -> Result<Catalogue, AdoptError> {
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
                "the given event catalogue is older than the stored one, which is used instead"
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

/// The stored catalogue, if there is one.
///
/// # Errors
/// When a newer version of this program stored it in a form that this version cannot read.
pub async fn stored_catalogue(store: &dyn Meta) -> Result<Option<Catalogue>, AdoptError> {
    Ok(store.catalogue().await?.map(|text| Catalogue::parse(&text)).transpose()?)
}
