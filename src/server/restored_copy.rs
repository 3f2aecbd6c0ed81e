//! A server on a restored copy of a store: it says so at its start, and starts no engine.

use crate::config::Settings;
use postrider_service::settle_restored_copy;
use postrider_store::Store;

use super::error::StartError;

/// Whether the store is a restored copy that may not send yet. Removes the mark of one that is the only one.
///
/// # Errors
/// When the store fails.
pub async fn settle(settings: &Settings, store: &dyn Store) -> Result<bool, StartError> {
    let is_marked = settle_restored_copy(store, settings.is_the_only_one).await.map_err(StartError::RestoredCopy)?;
    if is_marked {
        tracing::warn!(
            "the store is a restored copy: this server answers reads and sends nothing, and refuses whatever would be sent. \
             When the original store is out of use for ever, stop this server and start it once with --i-am-the-only-one"
        );
    } else if settings.is_the_only_one {
        tracing::warn!(
            "deliveries are sent, whether or not the store was a restored copy (--i-am-the-only-one). Leave the option out \
             at the next start, so that a restored copy is noticed"
        );
    }
    Ok(is_marked)
}
