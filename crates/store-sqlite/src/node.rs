//! The only node: this process, which has the data directory for itself.

use async_trait::async_trait;

use postrider_domain::node::Node;
use postrider_store::{Nodes, StoreError};

use crate::SqliteStore;

#[async_trait]
impl Nodes for SqliteStore {
    async fn list_nodes(&self) -> Result<Vec<Node>, StoreError> {
        Ok(vec![Node {
            number: 0,
            version: Some(self.version.to_owned()),
            started_at: Some(self.opened_at),
            last_seen_at: self.clock.now(),
            is_running: true,
        }])
    }
}
