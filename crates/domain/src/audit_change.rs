//! What a write changed, field by field: the part of an audit entry that says more than "changed".
//!
//! A secret, a header's value or a certificate never gets here: their fields have [`REDACTED`] in its place. Each value
//! has a limit, so that an entry has one too.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits;
use super::private_options::REDACTED;

/// One field before and after a write. `null` stands for a field without a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The name of the field in the API.
    pub field: String,
    pub old: Value,
    pub new: Value,
}

/// The fields that a write changed, in the order in which the API shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Changes(Vec<Change>);

impl Changes {
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a field. Adds nothing if its value stays the same.
    pub fn add(&mut self, field: impl Into<String>, old: impl Into<Value>, new: impl Into<Value>) {
        let (old, new) = (old.into(), new.into());
        if old != new {
            self.0.push(Change { field: field.into(), old: shortened(old), new: shortened(new) });
        }
    }

    /// As [`Self::add`], for a method chain.
    #[must_use]
    pub fn with(mut self, field: &str, old: impl Into<Value>, new: impl Into<Value>) -> Self {
        self.add(field, old, new);
        self
    }

    /// Adds a field that was written and whose value must not be shown. `None` stands for a field without a value.
    pub fn add_redacted(&mut self, field: impl Into<String>, had: bool, has: bool) {
        let shown = |is_set: bool| if is_set { Value::from(REDACTED) } else { Value::Null };
        if had || has {
            self.0.push(Change { field: field.into(), old: shown(had), new: shown(has) });
        }
    }

    /// The text that the stores keep. `None` when nothing changed.
    pub fn to_text(&self) -> Option<String> {
        if self.is_empty() { None } else { serde_json::to_string(self).ok() }
    }

    /// `None` when the text is not one that [`Self::to_text`] makes.
    pub fn from_text(text: Option<&str>) -> Option<Self> {
        text.map_or(Some(Self::default()), |text| serde_json::from_str(text).ok())
    }
}

/// Replaces a value that is too long by a note of its length.
fn shortened(value: Value) -> Value {
    let length = value.to_string().len();
    if length <= limits::AUDIT_VALUE_BYTES { value } else { Value::from(format!("[{length} bytes, not kept]")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_field_that_changed_is_kept() {
        let changes = Changes::default().with("name", "a", "b").with("url", "same", "same").with("at", Value::Null, 1);
        let kept = json!([{"field": "name", "old": "a", "new": "b"}, {"field": "at", "old": null, "new": 1}]);
        assert_eq!(serde_json::to_value(&changes).unwrap(), kept);
        assert_eq!(Changes::from_text(changes.to_text().as_deref()), Some(changes));
        assert_eq!((Changes::default().to_text(), Changes::from_text(None)), (None, Some(Changes::default())));
        assert_eq!(Changes::from_text(Some("{}")), None);
    }

    #[test]
    fn a_redacted_field_shows_only_whether_it_was_set() {
        let mut changes = Changes::default();
        for (had, has) in [(false, false), (false, true), (true, true), (true, false)] {
            changes.add_redacted(format!("{had} {has}"), had, has);
        }
        let kept: Vec<_> = changes.iter().map(|change| (change.old.as_str(), change.new.as_str())).collect();
        assert_eq!(kept, [(None, Some(REDACTED)), (Some(REDACTED), Some(REDACTED)), (Some(REDACTED), None)]);
    }

    #[test]
    fn a_value_is_kept_up_to_its_limit() {
        let text = |bytes: usize| "x".repeat(bytes - 2);
        let fits = Changes::default().with("name", Value::Null, text(limits::AUDIT_VALUE_BYTES));
        assert_eq!(fits.iter().next().unwrap().new, json!(text(limits::AUDIT_VALUE_BYTES)));
        let long = Changes::default().with("name", text(limits::AUDIT_VALUE_BYTES + 1), text(9));
        assert_eq!(long.iter().next().unwrap().old, json!("[4097 bytes, not kept]"));
    }
}
