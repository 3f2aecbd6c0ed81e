//! Whether this process can do its work.

use super::{Service, ServiceError};

impl Service {
    /// # Errors
    /// When the store cannot be read and written now.
    pub async fn check_health(&self) -> Result<(), ServiceError> {
        Ok(self.store.check().await?)
    }
}
