//! The JSON Schema of an event's `data`: compiled once, asked at each publish.
//!
//! The only file that names the schema library. A schema must be complete in itself: nothing is ever fetched. Patterns
//! run in time linear in the text, so neither a pattern nor a payload can be chosen to be slow; look-around and
//! back-references are the price, and a schema that uses them does not compile.

use std::fmt;
use std::sync::Arc;

use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::limits;

/// A compiled schema.
#[derive(Clone)]
pub struct DataSchema(Arc<Validator>);

/// The text is not a JSON Schema that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchema(String);

/// Where `data` breaks its schema, and how. The values themselves are never told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// `data`, `data.slot.date`, `data.topics[3]`.
    pub path: String,
    /// What is wrong, for the publisher: it may hold names of fields that came.
    pub fault: String,
    /// The rule that was broken, as a place in the schema: it holds nothing of what came.
    pub rule: String,
}

impl DataSchema {
    /// # Errors
    /// When the text is not a JSON Schema, or one that refers to something outside itself.
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

    /// Whether nothing is wrong with `data`.
    pub fn fits(&self, data: &RawValue) -> bool {
        serde_json::from_str::<Value>(data.get()).is_ok_and(|value| self.0.is_valid(&value))
    }

    /// What is wrong with `data`: nothing, or at most [`limits::FAULTS_TOLD`] faults.
    pub fn misfits(&self, data: &RawValue) -> Vec<Misfit> {
        // The value is for the check alone; what is kept and sent are the bytes.
        let Ok(value) = serde_json::from_str::<Value>(data.get()) else {
            let fault = "holds a number that is out of range".to_owned();
            return vec![Misfit { path: ROOT.to_owned(), fault, rule: "number".to_owned() }];
        };
        if self.0.is_valid(&value) {
            return Vec::new();
        }
        let faults = self.0.iter_errors(&value).take(limits::FAULTS_TOLD);
        faults
            .map(|error| Misfit {
                path: path_of(error.instance_path()),
                fault: error.masked().to_string().chars().take(FAULT_CHARS).collect(),
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

const ROOT: &str = "data";
/// A fault that lists what was not expected could be as long as `data` itself.
const FAULT_CHARS: usize = 256;

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

    fn misfits(schema: &str, data: &str) -> Vec<(String, String)> {
        let schema = DataSchema::compile(&raw(schema)).unwrap();
        let found = schema.misfits(&raw(data));
        assert_eq!(schema.fits(&raw(data)), found.is_empty());
        found.into_iter().map(|misfit| (misfit.path, misfit.fault)).collect()
    }

    const SCHEMA: &str = r#"{"type":"object","required":["id"],"properties":{
        "id":{"type":"string","pattern":"^note_"},
        "at":{"type":"string","format":"date-time"},
        "slots":{"type":"array","items":{"type":"object","properties":{"n":{"type":"integer"}}}}}}"#;

    #[test]
    fn what_fits_has_no_misfits_and_fields_beside_the_schema_are_fine() {
        assert_eq!(misfits(SCHEMA, r#"{"id":"note_1","at":"2026-05-15T08:21:00Z","more":[1]}"#), []);
    }

    #[test]
    fn a_misfit_names_its_place_and_keeps_the_value_to_itself() {
        let data = r#"{"id":"secret","at":"hidden","slots":[{"n":1},{"n":"private"}]}"#;
        let found = misfits(SCHEMA, data);
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["data.id", "data.at", "data.slots[1].n"]);
        let told = format!("{found:?}");
        assert!(!told.contains("secret") && !told.contains("hidden") && !told.contains("private"), "{told}");
        assert_eq!(misfits(SCHEMA, "{}"), [("data".to_owned(), "\"id\" is a required property".to_owned())]);
    }

    #[test]
    fn a_rule_holds_nothing_of_what_came() {
        let schema = DataSchema::compile(&raw(r#"{"additionalProperties":false}"#)).unwrap();
        let found = schema.misfits(&raw(&format!(r#"{{"mail@example.com":1,"{}":2}}"#, "x".repeat(10_000))));
        assert_eq!(found[0].rule, "/additionalProperties");
        assert!(found[0].fault.chars().count() <= 256, "{found:?}");
    }

    #[test]
    fn a_schema_that_reaches_outside_itself_is_refused() {
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
    fn a_number_out_of_range_is_a_misfit_not_a_panic() {
        assert_eq!(misfits("{}", r#"{"n":1e999}"#).len(), 1);
    }

    #[test]
    fn a_misfit_of_every_item_is_told_of_only_so_many() {
        let data = format!("[{}]", vec!["1"; 1000].join(","));
        assert_eq!(misfits(r#"{"items":{"type":"string"}}"#, &data).len(), limits::FAULTS_TOLD);
    }
}
