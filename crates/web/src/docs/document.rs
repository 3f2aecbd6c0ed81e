//! Reading the OpenAPI document.

use serde_json::Value;

/// The OpenAPI document, with what pages read from it.
#[derive(Clone, Copy)]
pub struct Document<'d>(pub &'d Value);

impl<'d> Document<'d> {
    /// The value at a JSON pointer, or `null`.
    pub fn at(self, pointer: &str) -> &'d Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The value itself, or the value that its `$ref` points to.
    pub fn resolve(self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            Some(pointer) => self.at(pointer),
            None => value,
        }
    }

    /// The operations in order: method, path below the server URL, operation.
    pub fn operations(self) -> impl Iterator<Item = (&'d str, &'d str, &'d Value)> {
        members(self.at("/paths"))
            .flat_map(|(path, item)| members(item).map(move |(method, operation)| (method, path, operation)))
    }

    /// The URL that all paths are below.
    pub fn server_url(self) -> &'d str {
        text(&self.at("/servers")[0], "url")
    }
}

/// A string member, or the empty string.
pub fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

/// The members of an object in order. Empty for any other value.
pub fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// The items of an array. Empty for any other value.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Indented JSON.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
