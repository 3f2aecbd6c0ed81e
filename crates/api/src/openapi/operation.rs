//! What one route says of itself, and how that becomes an operation of the document.
//!
//! A noun states only what is its own. What follows from it is added here: the headers of every answer, the errors that
//! come with a key, a body, a page or an idempotency key, and the parameters in the path.

use serde_json::{Map, Value, json};

use crate::error_code::ErrorCode;
use crate::route::Route;
use postrider_domain::access::Scope;
use postrider_domain::event_type::Brand;

use super::schema::{pascal, reference};
use super::{error, header};

/// Who may call.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Anybody, without a key.
    Public,
    /// Any key with one of the scopes; any key at all when there are none.
    Key(&'static [Scope]),
}

/// A body in a request.
#[derive(Debug)]
pub struct RequestBody {
    pub required: bool,
    pub schema: Value,
    /// Each with its name in the document.
    pub examples: Vec<(&'static str, Value)>,
}

/// One way in which the route answers when nothing is wrong.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub description: &'static str,
    /// The schema of the body and an example of it, unless it has none.
    pub body: Option<(Value, Value)>,
}

#[derive(Debug)]
pub struct Operation {
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: String,
    pub access: Access,
    /// Whether an `Idempotency-Key` counts.
    pub idempotent: bool,
    /// Whether it answers pages.
    pub paged: bool,
    pub query: Vec<Value>,
    pub body: Option<RequestBody>,
    pub answers: Vec<Answer>,
    /// Beyond those that follow from the rest.
    pub errors: Vec<ErrorCode>,
}

impl Operation {
    pub fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            description: String::new(),
            access: Access::Key(&[]),
            idempotent: false,
            paged: false,
            query: Vec::new(),
            body: None,
            answers: Vec::new(),
            errors: Vec::new(),
        }
    }

    pub fn describe(self, description: impl Into<String>) -> Self {
        Self { description: description.into(), ..self }
    }

    pub fn public(self) -> Self {
        Self { access: Access::Public, ..self }
    }

    /// One of these scopes is enough.
    pub fn needs(self, any_of: &'static [Scope]) -> Self {
        Self { access: Access::Key(any_of), ..self }
    }

    pub fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    pub fn paged(self) -> Self {
        Self { paged: true, ..self }
    }

    /// A parameter in the query, never required.
    pub fn query(mut self, name: &str, schema: Value, description: &str) -> Self {
        self.query.push(json!({ "name": name, "in": "query", "description": description, "schema": schema }));
        self
    }

    pub fn body(self, schema: &'static str, example: Value) -> Self {
        let examples = vec![("default", example)];
        Self { body: Some(RequestBody { required: true, schema: reference(schema), examples }), ..self }
    }

    pub fn optional_body(self, schema: &'static str, example: Value) -> Self {
        let examples = vec![("default", example)];
        Self { body: Some(RequestBody { required: false, schema: reference(schema), examples }), ..self }
    }

    pub fn answers(mut self, status: u16, description: &'static str, schema: Value, example: Value) -> Self {
        self.answers.push(Answer { status, description, body: Some((schema, example)) });
        self
    }

    pub fn answers_without_body(mut self, status: u16, description: &'static str) -> Self {
        self.answers.push(Answer { status, description, body: None });
        self
    }

    pub fn fails(mut self, codes: &[ErrorCode]) -> Self {
        self.errors.extend(codes);
        self
    }

    /// Every code that the route can answer, in the order of the list of codes.
    pub fn codes(&self, path: &str) -> Vec<ErrorCode> {
        use ErrorCode as C;
        let mut codes = self.errors.clone();
        if let Access::Key(scopes) = self.access {
            codes.extend([C::InvalidToken, C::KeyRevoked, C::KeyExpired, C::VersionUnsupported, C::RateLimited]);
            codes.extend([C::InternalError, C::ServiceUnavailable]);
            codes.extend((!scopes.is_empty()).then_some(C::ScopeMissing));
        }
        if path.contains('{') {
            codes.push(C::NotFound);
        }
        if self.paged {
            codes.extend([C::InvalidRequest, C::BadPagination, C::BadCursor]);
        }
        if !self.query.is_empty() {
            codes.push(C::InvalidRequest);
        }
        if self.body.is_some() {
            codes.extend([C::InvalidRequest, C::PayloadTooLarge, C::UnsupportedMediaType]);
        }
        if self.idempotent {
            codes.extend([C::IdempotencyKeyConflict, C::Conflict]);
        }
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

/// The operation of a route as it stands in the document.
pub fn render(route: &Route, brand: &Brand) -> Value {
    let operation = &route.operation;
    let mut rendered = Map::new();
    rendered.insert("operationId".to_owned(), operation.id.into());
    rendered.insert("tags".to_owned(), json!([operation.tag]));
    rendered.insert("summary".to_owned(), operation.summary.into());
    let description = description(operation);
    if !description.is_empty() {
        rendered.insert("description".to_owned(), description.into());
    }
    if let Some(security) = security(operation) {
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

/// Of several scopes any one is enough, so each is an alternative of its own. Without one, what the document says as a
/// whole holds.
fn security(operation: &Operation) -> Option<Value> {
    match operation.access {
        Access::Public => Some(json!([])),
        Access::Key([]) => None,
        Access::Key(scopes) => Some(scopes.iter().map(|scope| json!({ "apiKey": [scope] })).collect()),
    }
}

fn description(operation: &Operation) -> String {
    let scopes = match operation.access {
        Access::Public | Access::Key([]) => String::new(),
        Access::Key(scopes) => {
            let names: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
            format!("Needs the scope {}.", names.join(" or "))
        }
    };
    let parts = [operation.description.as_str(), &scopes];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn parameters(route: &Route) -> Vec<Value> {
    let operation = &route.operation;
    let shared = |name: &str| json!({ "$ref": format!("#/components/parameters/{}", pascal(name)) });
    let mut parameters = Vec::new();
    if matches!(operation.access, Access::Key(_)) {
        parameters.push(shared("ApiVersion"));
    }
    if operation.idempotent {
        parameters.push(shared("IdempotencyKey"));
    }
    parameters.extend(path_parameters(route.path).map(shared));
    parameters.extend(operation.query.iter().cloned());
    if operation.paged {
        parameters.extend([shared("Limit"), shared("Cursor")]);
    }
    parameters
}

/// The names in braces.
pub fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn responses(route: &Route, brand: &Brand) -> Value {
    let operation = &route.operation;
    let mut responses = Map::new();
    for answer in &operation.answers {
        let mut response = json!({ "description": answer.description, "headers": headers(operation, brand) });
        if let Some((schema, example)) = &answer.body {
            response["content"] =
                json!({ "application/json": { "schema": schema, "examples": { "default": { "value": example } } } });
        }
        responses.insert(answer.status.to_string(), response);
    }
    let codes = operation.codes(route.path);
    for same_status in codes.chunk_by(|a, b| a.status() == b.status()) {
        let status = same_status[0].status().as_u16().to_string();
        responses
            .insert(status, json!({ "$ref": format!("#/components/responses/{}", error::response_name(same_status)) }));
    }
    Value::Object(responses)
}

/// The headers of a success. `Cache-Control` is the same on all and says nothing about the resource.
fn headers(operation: &Operation, brand: &Brand) -> Value {
    let mut headers = header::of_every_answer(brand);
    if matches!(operation.access, Access::Key(_)) {
        headers.extend(header::of_a_rate());
    }
    if operation.idempotent {
        headers.extend([header::shared("Idempotent-Replayed", "IdempotentReplayed")]);
    }
    Value::Object(headers)
}
