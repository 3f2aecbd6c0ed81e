//! What a noun states about one of its routes.
//!
//! A noun states only what is particular to the route. `path` adds what follows from that: headers, common errors and
//! the parameters in the path. Who may call is stated by the route itself.

use serde_json::{Value, json};

use postrider_domain::limits;

use crate::error_code::ErrorCode;

use super::schema::reference;

/// A body in a request.
#[derive(Debug)]
pub struct RequestBody {
    pub required: bool,
    pub schema: Value,
    /// Name and value.
    pub examples: Vec<(&'static str, Value)>,
}

/// One kind of success answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub description: &'static str,
    /// The schema of the body and an example, if it has a body.
    pub body: Option<(Value, Value)>,
}

#[derive(Debug)]
pub struct Operation {
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: String,
    /// Whether it accepts an `Idempotency-Key`.
    pub idempotent: bool,
    /// Whether it answers with a page of a list.
    pub paged: bool,
    pub query: Vec<Value>,
    /// Headers of the request that other operations do not have.
    pub headers: Vec<Value>,
    pub body: Option<RequestBody>,
    pub answers: Vec<Answer>,
    /// The errors that `path` does not add by itself.
    pub errors: Vec<ErrorCode>,
}

impl Operation {
    pub fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            description: String::new(),
            idempotent: false,
            paged: false,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            answers: Vec::new(),
            errors: Vec::new(),
        }
    }

    pub fn describe(self, description: impl Into<String>) -> Self {
        Self { description: description.into(), ..self }
    }

    pub fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    pub fn paged(self) -> Self {
        Self { paged: true, ..self }
    }

    /// An optional parameter in the query.
    pub fn query(mut self, name: &str, schema: Value, description: &str) -> Self {
        self.query.push(json!({ "name": name, "in": "query", "description": description, "schema": schema }));
        self
    }

    /// An optional header of the request.
    pub fn header(mut self, name: &str, schema: Value, description: &str) -> Self {
        self.headers.push(json!({ "name": name, "in": "header", "description": description, "schema": schema }));
        self
    }

    /// A parameter in the query that must be given.
    pub fn query_required(mut self, name: &str, schema: Value, description: &str) -> Self {
        let parameter =
            json!({ "name": name, "in": "query", "required": true, "description": description, "schema": schema });
        self.query.push(parameter);
        self
    }

    /// An optional parameter in the query that takes one or more values, separated by commas.
    pub fn query_any(mut self, name: &str, item: Value, description: &str) -> Self {
        let schema = json!({ "type": "array", "items": item, "minItems": 1, "maxItems": limits::FILTER_VALUES });
        let description = format!("{description} Several values are separated by commas.");
        self.query.push(json!({
            "name": name, "in": "query", "description": description, "style": "form", "explode": false,
            "schema": schema,
        }));
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
}
