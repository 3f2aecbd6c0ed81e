//! The nodes of the server on the overview: which versions run during an upgrade.

use maud::{Markup, html};

use postrider_domain::node::Node;
use postrider_domain::permission::Permission;
use postrider_service::ServiceError;

use crate::components::state::Tone;
use crate::components::{icon, state, time};
use crate::visit::Visit;

/// The version of this process for a visitor who may not see the nodes.
pub async fn section(visit: &Visit) -> Result<Markup, ServiceError> {
    if !visit.may(Permission::NodesRead) {
        return Ok(html! { p.soft.version { "Postrider " (env!("CARGO_PKG_VERSION")) } });
    }
    let nodes = visit.service().list_nodes(&visit.principal).await?;
    Ok(html! {
        h2 { "Nodes" }
        div #nodes data-live="swap" {
            @if has_several_versions(&nodes) { p { "Not all nodes run the same version: an upgrade is under way, or a node was left out." } }
            (table(visit, &nodes))
        }
    })
}

fn has_several_versions(nodes: &[Node]) -> bool {
    let mut running = nodes.iter().filter(|node| node.is_running).map(|node| &node.version);
    running.next().is_some_and(|first| running.any(|version| version != first))
}

fn table(visit: &Visit, nodes: &[Node]) -> Markup {
    let now = visit.now();
    html! {
        div.table tabindex="0" role="region" aria-label="Nodes" {
            table.stack {
                caption { "The processes of this server" }
                thead { tr { th scope="col" { "Node" } th scope="col" { "State" } th scope="col" { "Version" } th scope="col" { "Since" } th scope="col" { "Last seen" } } }
                tbody {
                    @for node in nodes {
                        tr {
                            th scope="row" data-label="Node" { (node.number) }
                            td data-label="State" {
                                @if node.is_running { (state::state(Tone::Good, icon::CHECK, "running")) }
                                @else { (state::state(Tone::Bad, icon::WARNING, "silent")) }
                            }
                            td data-label="Version" {
                                @match &node.version { Some(version) => { "Postrider " (version) }, None => "of before it was reported" }
                            }
                            td data-label="Since" { @match node.started_at { Some(at) => (time::instant(at)), None => "–" } }
                            // A running node reports every two seconds. The exact time would change the page each time.
                            td data-label="Last seen" { @if node.is_running { "just now" } @else { (time::relative(node.last_seen_at, now)) } }
                        }
                    }
                }
            }
        }
    }
}
