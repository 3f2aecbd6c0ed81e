//! `/v1/event-types`: the catalogue, as publishers and receivers need it.

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::event_type::{EventType, EventTypeName};
use crate::domain::page::Page;

use super::App;
use super::call::Call;
use super::error::Failure;
use super::idempotency::answer;
use super::paging::{Query, list};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/event-types", get(index))
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

/// Any key may read it. It is one page in the order of the catalogue, however long.
async fn index(call: Call) -> Result<Response, Failure> {
    Query::parse(&call.uri).finish()?;
    let items = call.service().catalogue().types().iter().collect();
    Ok(answer(200, list(&Page { items, next: None }, |event_type| EventTypeView::new(event_type))))
}
