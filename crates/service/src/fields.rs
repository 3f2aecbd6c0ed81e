//! Reading the members of a JSON object: strict, and with each fault named by its parameter.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use postrider_domain::limits;

use crate::error::{ParameterFault, ServiceError};

/// The members of an object. Each is taken out once; `finish` reports all faults together.
pub struct Fields<'b> {
    members: BTreeMap<String, &'b RawValue>,
    /// The object has more members than are looked up, so at least one of them is unknown.
    is_cut: bool,
    faults: Vec<ParameterFault>,
    prefix: String,
}

const MISSING: &str = "is required";

/// The fault of a parameter that nobody asks for.
pub const UNKNOWN: &str = "is not a known parameter";

/// A caller's text as an error may repeat it.
pub fn cut(text: &str) -> String {
    text.chars().take(limits::ECHO_CHARS).collect()
}

/// The first members of an object, at most [`limits::FIELDS`]. The number of members is the caller's choice, so they
/// must not all take memory.
struct Members<'b> {
    members: BTreeMap<String, &'b RawValue>,
    is_cut: bool,
}

impl<'b> Deserialize<'b> for Members<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstMembers;
        impl<'b> Visitor<'b> for FirstMembers {
            type Value = Members<'b>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Members<'b>, A::Error> {
                let mut members = BTreeMap::new();
                while members.len() < limits::FIELDS {
                    let Some((name, value)) = map.next_entry()? else { return Ok(Members { members, is_cut: false }) };
                    members.insert(name, value);
                }
                let mut is_cut = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    is_cut = true;
                }
                Ok(Members { members, is_cut })
            }
        }
        deserializer.deserialize_map(FirstMembers)
    }
}

impl<'b> Fields<'b> {
    /// The members of a whole body.
    ///
    /// # Errors
    /// When the body is not an object.
    pub fn of_body(bytes: &'b [u8]) -> Result<Self, ServiceError> {
        match serde_json::from_slice(bytes) {
            Ok(members) => Ok(Self::new(members, String::new())),
            Err(_) => {
                Err(ServiceError::invalid("body", not_an_object(bytes.trim_ascii_start(), "must be a JSON object")))
            }
        }
    }

    /// The members of an object inside a body. `prefix` names the object in faults.
    ///
    /// # Errors
    /// When the value is not an object.
    pub fn inside(raw: &'b RawValue, prefix: String) -> Result<Self, ServiceError> {
        match serde_json::from_str(raw.get()) {
            Ok(members) => Ok(Self::new(members, prefix + ".")),
            Err(_) => Err(ServiceError::invalid(prefix, not_an_object(raw.get().as_bytes(), "must be an object"))),
        }
    }

    fn new(Members { members, is_cut }: Members<'b>, prefix: String) -> Self {
        Self { members, is_cut, faults: Vec::new(), prefix }
    }

    /// A member that must be present.
    pub fn required<T>(&mut self, name: &str, read: impl FnOnce(&'b RawValue) -> Result<T, String>) -> Option<T> {
        match self.members.remove(name) {
            Some(raw) => self.read(name, raw, read),
            None => {
                // It may be among the members that were not looked up.
                if !self.is_cut {
                    self.fault(name, MISSING);
                }
                None
            }
        }
    }

    /// A member that may be absent, but not null.
    pub fn optional<T>(&mut self, name: &str, read: impl FnOnce(&'b RawValue) -> Result<T, String>) -> Option<T> {
        let raw = self.members.remove(name)?;
        self.read(name, raw, read)
    }

    /// A member that may be absent or null. Both mean the same.
    pub fn nullable<T>(&mut self, name: &str, read: impl FnOnce(&'b RawValue) -> Result<T, String>) -> Option<T> {
        let raw = self.members.remove(name).filter(|raw| raw.get() != "null")?;
        self.read(name, raw, read)
    }

    /// Records a fault of a member.
    pub fn fault(&mut self, name: &str, fault: impl Into<String>) {
        self.faults.push((format!("{}{name}", self.prefix), fault.into()));
    }

    /// Call this after the last member was taken.
    ///
    /// # Errors
    /// All faults, including members that were not taken, at most [`limits::UNKNOWN_FIELDS_SHOWN`] of these.
    pub fn finish(mut self) -> Result<(), ServiceError> {
        let unknown = std::mem::take(&mut self.members);
        for name in unknown.keys().take(limits::UNKNOWN_FIELDS_SHOWN) {
            self.fault(&cut(name), UNKNOWN);
        }
        if self.faults.is_empty() { Ok(()) } else { Err(ServiceError::InvalidRequest { parameters: self.faults }) }
    }

    /// The same, when members were required. `required` is `None` only if one of them is at fault.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_with<T>(self, required: Option<T>) -> Result<T, ServiceError> {
        self.finish()?;
        required.ok_or_else(|| ServiceError::Internal {
            source: "a required parameter is absent and no fault was recorded".into(),
        })
    }

    fn read<T>(
        &mut self,
        name: &str,
        raw: &'b RawValue,
        read: impl FnOnce(&'b RawValue) -> Result<T, String>,
    ) -> Option<T> {
        read(raw).map_err(|fault| self.fault(name, fault)).ok()
    }
}

/// Why a checked JSON value does not read as an object of text keys.
fn not_an_object(json: &[u8], otherwise: &'static str) -> &'static str {
    if json.starts_with(b"{") { "has a member whose name contains half of a surrogate pair" } else { otherwise }
}

/// Why a checked JSON value does not read as a text.
fn not_a_string(raw: &RawValue) -> &'static str {
    if raw.get().starts_with('"') { "must not contain half of a surrogate pair" } else { "must be a string" }
}

/// Reads a string and parses it.
pub fn string<T, E: std::fmt::Display>(
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> impl FnOnce(&RawValue) -> Result<T, String> {
    move |raw| {
        let text: String = serde_json::from_str(raw.get()).map_err(|_| not_a_string(raw).to_owned())?;
        parse(&text).map_err(|error| error.to_string())
    }
}

/// Reads `true` or `false`.
pub fn boolean(raw: &RawValue) -> Result<bool, String> {
    serde_json::from_str(raw.get()).map_err(|_| "must be true or false".to_owned())
}

/// Reads a whole number from `min` to `max`.
pub fn whole_number(min: u64, max: u64) -> impl Fn(&RawValue) -> Result<u64, String> {
    move |raw| {
        let number = serde_json::from_str(raw.get()).ok().or_else(|| whole_float(raw));
        let number = number.filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("must be a whole number from {min} to {max}"))
    }
}

/// `300.0` and `3e2` are whole numbers too, according to JSON Schema. Languages without integers write them so.
fn whole_float(raw: &RawValue) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
    let number: f64 = serde_json::from_str(raw.get()).ok()?;
    let is_whole = number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number);
    // Rust prints a whole float without fraction and exponent, so the text parses as an integer.
    is_whole.then(|| format!("{number}").trim_start_matches('-').parse().ok()).flatten()
}

/// Reads an object and keeps its bytes as they came.
pub fn object(raw: &RawValue) -> Result<Box<RawValue>, String> {
    if raw.get().starts_with('{') { Ok(raw.to_owned()) } else { Err("must be an object".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        let read = |text: &str| whole_number(0, 604_800)(&RawValue::from_string(text.to_owned()).unwrap()).ok();
        for (text, number) in [("0", 0), ("318", 318), ("318.0", 318), ("3e2", 300), ("604800.0", 604_800), ("-0.0", 0)]
        {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for bad in ["318.5", "-1", "-1.0", "604801", "604801.0", "1e400", "1e30", "true", "\"1\"", "null"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    fn faults_of(fields: Fields<'_>) -> Vec<(String, String)> {
        match fields.finish() {
            Err(ServiceError::InvalidRequest { parameters }) => parameters,
            other => panic!("not the faults: {other:?}"),
        }
    }

    #[test]
    fn at_most_twenty_unknown_members_are_named_and_cut() {
        let object = |count: usize| {
            let members: Vec<String> = (0..count).map(|index| format!("\"{}{index}\":0", "é".repeat(64))).collect();
            format!("{{{}}}", members.join(","))
        };
        let name = |name: &str| format!("{name}{}", "é".repeat(64));
        for (count, shown) in [(1, 1), (20, 20), (21, 20), (64, 20), (100_000, 20)] {
            let text = object(count);
            let faults = faults_of(Fields::of_body(text.as_bytes()).unwrap());
            assert_eq!(faults.len(), shown, "{count}");
            assert!(faults.iter().all(|fault| *fault == (name(""), UNKNOWN.to_owned())), "{faults:?}");
        }
        let text = object(1);
        let raw: &RawValue = serde_json::from_str(&text).unwrap();
        assert_eq!(faults_of(Fields::inside(raw, "events[3]".to_owned()).unwrap())[0].0, name("events[3]."));
    }

    #[test]
    fn a_member_after_the_first_ones_is_not_reported_as_missing() {
        let object = |before: usize| {
            let members: String = (0..before).map(|index| format!("\"x{index}\":0,")).collect();
            format!("{{{members}\"b\":\"1\"}}")
        };
        for (before, found) in [(limits::FIELDS - 1, true), (limits::FIELDS, false)] {
            let text = object(before);
            let mut fields = Fields::of_body(text.as_bytes()).unwrap();
            let member = fields.required("b", string(|text| Ok::<_, String>(text.to_owned())));
            assert_eq!(member.is_some(), found, "{before}");
            assert!(faults_of(fields).iter().all(|(_, fault)| fault == UNKNOWN));
        }
    }

    #[test]
    fn all_faults_are_reported_together() {
        let mut fields = Fields::of_body(b"{\"a\":1,\"n\":null,\"x\":true}").unwrap();
        assert_eq!(fields.required("a", string(|text| Ok::<_, String>(text.to_owned()))), None);
        assert_eq!(fields.nullable("n", string(|text| Ok::<_, String>(text.to_owned()))), None);
        assert_eq!(fields.required("b", string(|text| Ok::<_, String>(text.to_owned()))), None);
        let Err(ServiceError::InvalidRequest { parameters }) = fields.finish() else { panic!("faults were lost") };
        let reported: Vec<String> = parameters.iter().map(|(name, fault)| format!("{name} {fault}")).collect();
        assert_eq!(reported, ["a must be a string", "b is required", "x is not a known parameter"]);
    }
}
