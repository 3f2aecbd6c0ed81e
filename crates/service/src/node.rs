//! The processes that serve the store.

use postrider_domain::access::Principal;
use postrider_domain::node::Node;
use postrider_domain::permission::Permission;

use crate::error::ServiceError;
use crate::service::Service;

impl Service {
    /// The nodes that run, and those that went silent in the last hour.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_nodes(&self, principal: &Principal) -> Result<Vec<Node>, ServiceError> {
        principal.require(Permission::NodesRead)?;
        Ok(self.store.list_nodes().await?)
    }
}
