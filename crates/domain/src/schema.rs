//! The JSON Schema of an event's `data`: compiled once, evaluated at each publish.
//!
//! The only file that names the schema library. A schema must be self-contained: nothing is ever fetched. Patterns run
//! in time linear in the text, so that neither a pattern nor a payload can be made slow on purpose. Therefore a schema
//! with look-around or back-references does not compile.

use std::fmt;
use std::sync::Arc;

use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::without_lone_surrogates;
use super::limits;

/// A compiled schema.
#[derive(Clone)]
pub struct DataSchema(Arc<Validator>);

/// The text is not a usable JSON Schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchema(String);

/// Where and how `data` violates its schema. It never contains values of `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaViolation {
    /// `data`, `data.slot.date`, `data.topics[3]`.
    pub path: String,
    /// The problem, for the publisher. May contain names of published fields.
    pub text: String,
    /// The violated rule, as a location in the schema. Contains nothing of the published data.
    pub rule: String,
}

impl DataSchema {
    /// # Errors
    /// When the text is not a JSON Schema, or refers to something outside itself.
    pub fn compile(schema: &RawValue) -> Result<Self, InvalidSchema> {
        let schema: Value = serde_json::from_str(schema.get()).map_err(|error| InvalidSchema(error.to_string()))?;
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .offline()
            .build(&schema)
            .map(|validator| Self(Arc::new(validator)))
            .map_err(|error| InvalidSchema(error.to_string()))
    }

    /// Whether `data` satisfies the schema.
    pub fn fits(&self, data: &RawValue) -> bool {
        value_of(data).is_some_and(|value| self.0.is_valid(&value))
    }

    /// The violations of `data`, at most [`limits::VIOLATIONS_SHOWN`].
    pub fn violations(&self, data: &RawValue) -> Vec<SchemaViolation> {
        // The parsed value serves the check only. The bytes themselves are stored and sent.
        let Some(value) = value_of(data) else {
            let text = "holds a number that is out of range".to_owned();
            return vec![SchemaViolation { path: ROOT.to_owned(), text, rule: "number".to_owned() }];
        };
        if self.0.is_valid(&value) {
            return Vec::new();
        }
        let faults = self.0.iter_errors(&value).take(limits::VIOLATIONS_SHOWN);
        faults
            .map(|error| SchemaViolation {
                path: path_of(error.instance_path()),
                text: error.masked().to_string().chars().take(limits::VIOLATION_CHARS).collect(),
                rule: error.schema_path().to_string(),
            })
            .collect()
    }
}

impl fmt::Debug for DataSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataSchema")
    }
}

/// The value to check. A schema sees U+FFFD for an unpaired surrogate, which a text of Rust cannot hold.
fn value_of(data: &RawValue) -> Option<Value> {
    serde_json::from_str(&without_lone_surrogates(data.get())).ok()
}

const ROOT: &str = "data";

fn path_of(location: &Location) -> String {
    let mut path = ROOT.to_owned();
    for segment in location {
        match segment {
            LocationSegment::Property(name) => {
                path.push('.');
                path.extend(name.chars().take(limits::OPAQUE_ID_CHARS));
            }
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    fn violations(schema: &str, data: &str) -> Vec<(String, String)> {
        let schema = DataSchema::compile(&raw(schema)).unwrap();
        let found = schema.violations(&raw(data));
        assert_eq!(schema.fits(&raw(data)), found.is_empty());
        found.into_iter().map(|violation| (violation.path, violation.text)).collect()
    }

    const SCHEMA: &str = r#"{"type":"object","required":["id"],"properties":{
        "id":{"type":"string","pattern":"^note_"},
        "at":{"type":"string","format":"date-time"},
        "slots":{"type":"array","items":{"type":"object","properties":{"n":{"type":"integer"}}}}}}"#;

    #[test]
    fn valid_data_has_no_violations_even_with_additional_fields() {
        assert_eq!(violations(SCHEMA, r#"{"id":"note_1","at":"2026-05-15T08:21:00Z","more":[1]}"#), []);
    }

    #[test]
    fn a_violation_has_its_path_but_no_value() {
        let data = r#"{"id":"secret","at":"hidden","slots":[{"n":1},{"n":"private"}]}"#;
        let found = violations(SCHEMA, data);
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["data.id", "data.at", "data.slots[1].n"]);
        let printed = format!("{found:?}");
        assert!(
            !printed.contains("secret") && !printed.contains("hidden") && !printed.contains("private"),
            "{printed}"
        );
        assert_eq!(violations(SCHEMA, "{}"), [("data".to_owned(), "\"id\" is a required property".to_owned())]);
    }

    #[test]
    fn a_rule_contains_nothing_of_the_published_data() {
        let schema = DataSchema::compile(&raw(r#"{"additionalProperties":false}"#)).unwrap();
        let found = schema.violations(&raw(&format!(r#"{{"mail@example.com":1,"{}":2}}"#, "x".repeat(10_000))));
        assert_eq!(found[0].rule, "/additionalProperties");
        assert!(found[0].text.chars().count() <= 256, "{found:?}");
    }

    #[test]
    fn a_schema_with_an_outside_reference_is_refused() {
        for schema in [
            r#"{"$ref":"https://example.com/schema.json"}"#,
            r#"{"$ref":"file:///etc/passwd"}"#,
            r#"{"type":"text"}"#,
            r#"{"pattern":"("}"#,
            r#"{"pattern":"(a)\\1"}"#,
        ] {
            assert!(DataSchema::compile(&raw(schema)).is_err(), "{schema}");
        }
        assert!(DataSchema::compile(&raw(r##"{"$defs":{"a":{"type":"string"}},"$ref":"#/$defs/a"}"##)).is_ok());
    }

    #[test]
    fn a_number_out_of_range_is_a_violation_not_a_panic() {
        assert_eq!(violations("{}", r#"{"n":1e999}"#).len(), 1);
    }

    #[test]
    fn any_text_that_json_can_write_is_checked_as_text() {
        let schema = r#"{"properties":{"a":{"type":"string","maxLength":1}}}"#;
        for data in [r#"{"a":"\ud800"}"#, r#"{"a":"\u0000"}"#, r#"{"\udc00":"\udc00\ud800"}"#] {
            assert_eq!(violations(schema, data), [], "{data}");
        }
        assert_eq!(violations(schema, r#"{"a":"\ud800\ud800"}"#)[0].0, "data.a");
    }

    #[test]
    fn the_number_of_violations_is_limited() {
        let data = format!("[{}]", vec!["1"; 1000].join(","));
        assert_eq!(violations(r#"{"items":{"type":"string"}}"#, &data).len(), limits::VIOLATIONS_SHOWN);
    }
}
