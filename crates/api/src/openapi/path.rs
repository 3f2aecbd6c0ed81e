//! The `paths` of the document: each route as an operation.
//!
//! Added here to what the noun states: the headers of every answer, the errors that come with a key, a body, a page or
//! an idempotency key, the parameters in the path, and the scopes of the route.

use serde_json::{Map, Value, json};

use crate::access::Access;
use crate::error_code::ErrorCode;
use crate::route::Route;
use postrider_domain::event_type::Brand;

use super::parameter::names_in_path;
use super::schema::pascal;
use super::{error, header};

/// Every code that the route can answer, in the order of the list of codes.
pub fn codes(route: &Route) -> Vec<ErrorCode> {
    use ErrorCode as C;
    let operation = &route.operation;
    let mut codes = operation.errors.clone();
    codes.extend([C::RequestTimeout, C::UriTooLong, C::HeaderTooLarge]);
    if route.access != Access::Public {
        codes.extend([C::InvalidToken, C::KeyRevoked, C::KeyExpired, C::VersionUnsupported, C::RateLimited]);
        codes.extend([C::InternalError, C::ServiceUnavailable]);
        codes.extend((!route.access.scopes().is_empty()).then_some(C::ScopeMissing));
    }
    if route.path.contains('{') {
        codes.extend([C::NotFound, C::InvalidRequest]);
    }
    if operation.paged {
        codes.extend([C::InvalidRequest, C::BadPagination, C::BadCursor]);
    }
    if !operation.query.is_empty() {
        codes.push(C::InvalidRequest);
    }
    if operation.body.is_some() {
        codes.extend([C::InvalidRequest, C::PayloadTooLarge, C::UnsupportedMediaType]);
    }
    if operation.idempotent {
        codes.extend([C::IdempotencyKeyConflict, C::Conflict]);
    }
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The operation of a route.
pub fn operation(route: &Route, brand: &Brand) -> Value {
    let operation = &route.operation;
    let mut rendered = Map::new();
    rendered.insert("operationId".to_owned(), operation.id.into());
    rendered.insert("tags".to_owned(), json!([operation.tag]));
    rendered.insert("summary".to_owned(), operation.summary.into());
    let description = description(route);
    if !description.is_empty() {
        rendered.insert("description".to_owned(), description.into());
    }
    if let Some(security) = security(route.access) {
        rendered.insert("security".to_owned(), security);
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        rendered.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(body) = &operation.body {
        let examples: Map<String, Value> =
            body.examples.iter().map(|(name, value)| ((*name).to_owned(), json!({ "value": value }))).collect();
        rendered.insert(
            "requestBody".to_owned(),
            json!({
                "required": body.required,
                "content": { "application/json": { "schema": body.schema, "examples": examples } },
            }),
        );
    }
    rendered.insert("responses".to_owned(), responses(route, brand));
    Value::Object(rendered)
}

/// One of several scopes is enough, so each is its own alternative. `None` means the default of the document: any key.
fn security(access: Access) -> Option<Value> {
    match access {
        Access::Public => Some(json!([])),
        Access::AnyKey => None,
        Access::Needs(permission) => {
            Some(permission.scopes().iter().map(|scope| json!({ "apiKey": [scope] })).collect())
        }
    }
}

fn description(route: &Route) -> String {
    let names: Vec<String> = route.access.scopes().iter().map(|scope| format!("`{scope}`")).collect();
    let scopes = if names.is_empty() { String::new() } else { format!("Needs the scope {}.", names.join(" or ")) };
    let parts = [route.operation.description.as_str(), &scopes];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn parameters(route: &Route) -> Vec<Value> {
    let operation = &route.operation;
    let shared = |name: &str| json!({ "$ref": format!("#/components/parameters/{}", pascal(name)) });
    let mut parameters = Vec::new();
    if route.access != Access::Public {
        parameters.push(shared("ApiVersion"));
    }
    if operation.idempotent {
        parameters.push(shared("IdempotencyKey"));
    }
    parameters.extend(operation.headers.iter().cloned());
    parameters.extend(names_in_path(route.path).map(shared));
    parameters.extend(operation.query.iter().cloned());
    if operation.paged {
        parameters.extend([shared("Limit"), shared("Cursor")]);
    }
    parameters
}

fn responses(route: &Route, brand: &Brand) -> Value {
    let operation = &route.operation;
    let mut responses = Map::new();
    for answer in &operation.answers {
        let mut response = json!({ "description": answer.description, "headers": headers(route, brand) });
        if let Some((schema, example)) = &answer.body {
            response["content"] =
                json!({ "application/json": { "schema": schema, "examples": { "default": { "value": example } } } });
        }
        responses.insert(answer.status.to_string(), response);
    }
    let codes = codes(route);
    for same_status in codes.chunk_by(|a, b| a.status() == b.status()) {
        let status = same_status[0].status().as_u16().to_string();
        responses
            .insert(status, json!({ "$ref": format!("#/components/responses/{}", error::response_name(same_status)) }));
    }
    Value::Object(responses)
}

/// The headers of a success. `Cache-Control` is left out: it is the same on all answers.
fn headers(route: &Route, brand: &Brand) -> Value {
    let mut headers = header::of_every_answer(brand);
    if route.access != Access::Public {
        headers.extend(header::of_a_rate());
    }
    if route.operation.idempotent {
        headers.extend([header::reference_to("Idempotent-Replayed", "IdempotentReplayed")]);
    }
    Value::Object(headers)
}
