//! Whether this process can do its work.

use crate::error::ServiceError;
use crate::service::Service;

impl Service {
    /// # Errors
    /// When the store cannot be read and written now.
    pub async fn check_readiness(&self) -> Result<(), ServiceError> {
        Ok(self.store.check().await?)
    }
}
