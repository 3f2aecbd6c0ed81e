//! `/v1/event-types`: the event catalogue.

use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use postrider_domain::event_type::{Catalogue, EventType, EventTypeName};
use postrider_domain::page::Page;

use super::access::Access;
use super::answer::{answer, list};
use super::call::Call;
use super::error::Failure;
use super::openapi::event_type as openapi;
use super::query::Query;
use super::route::Route;

pub fn routes(catalogue: &Catalogue) -> Vec<Route> {
    vec![Route::get("/event-types", Access::AnyKey, index, openapi::index(catalogue))]
}

#[derive(Serialize)]
struct EventTypeView<'t> {
    name: &'t EventTypeName,
    description: &'t str,
    retired: bool,
    schema: &'t RawValue,
    example: &'t RawValue,
}

impl<'t> EventTypeView<'t> {
    fn new(event_type: &'t EventType) -> Self {
        let EventType { name, description, retired, schema, example, .. } = event_type;
        Self { name, description, retired: *retired, schema, example }
    }
}

/// The whole catalogue is one page, in its own order.
async fn index(call: Call) -> Result<Response, Failure> {
    Query::parse(&call.uri).finish()?;
    let items = call.service().catalogue().types().iter().collect();
    Ok(answer(200, list(&Page::all(items), |event_type| EventTypeView::new(event_type))))
}
