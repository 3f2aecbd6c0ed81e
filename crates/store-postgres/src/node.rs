//! The nodes that share the database, as their rows in `nodes` say.

use async_trait::async_trait;

use postrider_domain::node::Node;
use postrider_store::{Nodes, StoreError};

use crate::PostgresStore;
use crate::machinery::node;

#[async_trait]
impl Nodes for PostgresStore {
    async fn list_nodes(&self) -> Result<Vec<Node>, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| Box::pin(node::list(session, now))).await
    }
}
