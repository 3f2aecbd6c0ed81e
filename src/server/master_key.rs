//! The master key of the settings: from its file or its command. And the task that follows changes of it.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use postrider_crypto::{MasterKey, Random};
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_service::Operator;
use postrider_store::Store;
use postrider_store::sealing::keyring::MasterKeyError;

use super::error::StartError;
use super::{key_command, key_file};

/// Reads the key of the settings. Creates one only in the data directory, and only for a store that has none yet.
pub async fn load(settings: &Settings, store: &dyn Store, random: &Random) -> Result<MasterKey, StartError> {
    match (&settings.master_key_command, &settings.master_key_file) {
        (Some(_), Some(_)) => Err(StartError::TwoMasterKeys),
        (Some(command), None) => Ok(key_command::run(command).await?),
        (None, _) => Ok(key_file::load_or_make(settings, store, random).await?),
    }
}

/// The key that the settings name. `None` when they name none. Creates none.
///
/// # Errors
/// When it cannot be read.
pub async fn named(settings: &Settings) -> Result<Option<MasterKey>, StartError> {
    match (&settings.master_key_command, &settings.master_key_file) {
        (Some(_), Some(_)) => Err(StartError::TwoMasterKeys),
        (Some(command), None) => Ok(Some(key_command::run(command).await?)),
        (None, Some(file)) => Ok(Some(key_file::load(file)?)),
        (None, None) => Ok(None),
    }
}

/// Looks for changes of the master key until `stop`. Cancels the returned token when the store was changed to a key
/// that this process was never told: it stood still for the whole change.
pub fn follow(operator: Operator, stop: CancellationToken) -> (CancellationToken, JoinHandle<()>) {
    let outdated = CancellationToken::new();
    let token = outdated.clone();
    let task = tokio::spawn(async move {
        loop {
            match operator.follow_master_key().await {
                Ok(()) => {}
                Err(MasterKeyError::Store(error)) => {
                    tracing::debug!(error = %Chain(&error), "cannot look for a change of the master key; trying again");
                }
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "this server cannot use its master key any more; stopping");
                    token.cancel();
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(limits::KEY_STATE_POLL) => {}
            }
        }
    });
    (outdated, task)
}
