//! The first page: what needs somebody, and how things go.

use axum::response::Response;
use maud::html;

use crate::failure::Failure;
use crate::layout::Section;
use crate::visit::Visit;

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let workspace = visit.service().own_workspace(&visit.principal).await?;
    Ok(visit.page(
        Section::Overview,
        workspace.name.as_str(),
        html! {
            h1 { (workspace.name.as_str()) }
        },
    ))
}
