//! The processes that serve one store.

use async_trait::async_trait;

use postrider_domain::node::Node;

use crate::StoreError;

#[async_trait]
pub trait Nodes: Send + Sync + 'static {
    /// The nodes that run, and those that were seen in the last hour and did not stop in order. By their numbers.
    async fn list_nodes(&self) -> Result<Vec<Node>, StoreError>;
}
