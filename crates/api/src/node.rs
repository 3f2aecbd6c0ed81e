//! `/v1/nodes`: the processes of the server.

use axum::response::Response;
use serde::Serialize;

use postrider_domain::event_type::Catalogue;
use postrider_domain::node::Node;
use postrider_domain::page::Page;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;

use super::access::Access;
use super::answer::{answer, list};
use super::call::Call;
use super::error::Failure;
use super::openapi::node as openapi;
use super::query::Query;
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![Route::get("/nodes", Access::Needs(Permission::NodesRead), index, openapi::index(catalogue))]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView<'n> {
    number: u16,
    version: Option<&'n str>,
    started_at: Option<Timestamp>,
    last_seen_at: Timestamp,
    is_running: bool,
}

impl<'n> NodeView<'n> {
    fn new(node: &'n Node) -> Self {
        let Node { number, version, started_at, last_seen_at, is_running } = node;
        Self {
            number: *number,
            version: version.as_deref(),
            started_at: *started_at,
            last_seen_at: *last_seen_at,
            is_running: *is_running,
        }
    }
}

/// All nodes are one page, by their numbers.
async fn index(call: Call) -> Result<Response, Failure> {
    Query::parse(&call.uri).finish()?;
    let nodes = call.service().list_nodes(&call.principal).await?;
    Ok(answer(200, list(&Page::all(nodes), NodeView::new)))
}
