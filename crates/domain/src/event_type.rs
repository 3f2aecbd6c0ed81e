//! The event catalogue: the closed list of event names with their schemas and examples, and the brand.
//!
//! Its source is one TOML file: `events.toml` at the root of the project, built into the binary, or the operator's.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Mode;
use super::limits;
use super::schema::{DataSchema, InvalidSchema, SchemaViolation};

/// The product's name in keys and headers: `scripe_sk_live_…`, `Scripe-Api-Version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brand {
    lower: String,
    title: String,
}

impl Default for Brand {
    fn default() -> Self {
        Self::new("scripe").unwrap_or_else(|| Self { lower: String::new(), title: String::new() })
    }
}

impl Brand {
    /// A brand is 1 to 32 lowercase letters and digits, a letter first, so that it fits into headers and keys.
    pub fn new(name: &str) -> Option<Self> {
        let first = name.chars().next()?;
        let fits =
            name.len() <= limits::BRAND_CHARS && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        (fits && first.is_ascii_lowercase())
            .then(|| Self { lower: name.to_owned(), title: format!("{}{}", first.to_ascii_uppercase(), &name[1..]) })
    }

    pub fn name(&self) -> &str {
        &self.lower
    }

    /// The name with a capital: `Scripe`.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The full name of one of our headers: `Scripe-Delivery-Id` for `Delivery-Id`.
    pub fn header(&self, name: &str) -> String {
        format!("{}-{name}", self.title)
    }

    pub fn key_prefix(&self, mode: Mode) -> String {
        format!("{}_sk_{}_", self.lower, mode.as_str())
    }
}

/// The name of an event type. Cheap to clone. Not an index into the catalogue, so that it is readable in a debugger.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTypeName(std::sync::Arc<str>);

impl EventTypeName {
    /// For names that come from the store, which holds only checked names.
    pub fn from_stored(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for EventTypeName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What happens to published `data` that violates its schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// The publish is refused.
    Reject,
    /// The event is accepted, and the violation is logged.
    #[default]
    Record,
}

/// One entry of the catalogue.
#[derive(Clone, Debug)]
pub struct EventType {
    pub name: EventTypeName,
    pub description: String,
    pub validation: Validation,
    /// Accepts no new subscriptions and no publishes. Stored events keep the name.
    pub retired: bool,
    /// JSON Schema of `data`.
    pub schema: Box<RawValue>,
    /// An example of `data` that satisfies the schema.
    pub example: Box<RawValue>,
    compiled: DataSchema,
}

impl EventType {
    /// Whether `data` satisfies the schema.
    pub fn fits(&self, data: &RawValue) -> bool {
        self.compiled.fits(data)
    }

    /// The violations of `data`.
    pub fn violations(&self, data: &RawValue) -> Vec<SchemaViolation> {
        self.compiled.violations(data)
    }
}

/// The whole catalogue, in the order of the file.
#[derive(Clone, Debug)]
pub struct Catalogue {
    pub version: u32,
    pub brand: Brand,
    types: Vec<EventType>,
}

/// The text is not a valid catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the event catalogue is not valid TOML of the expected form")]
    Form(#[source] Box<toml::de::Error>),
    #[error("the event catalogue contains no event")]
    Empty,
    #[error("the event name {0:?} is not of the form noun.verb in lowercase letters, digits and underscores")]
    Name(String),
    #[error("the event catalogue contains the name {0:?} twice")]
    Duplicate(String),
    #[error("the {part} of {name:?} is not a JSON object")]
    Json { name: String, part: &'static str },
    #[error("the schema of {name:?} is not a self-contained JSON Schema")]
    Schema {
        name: String,
        #[source]
        source: InvalidSchema,
    },
    #[error("the example of {name:?} violates its schema: {path} {text}")]
    Example { name: String, path: String, text: String },
    #[error("the brand {0:?} is not 1 to 32 lowercase letters and digits, a letter first")]
    Brand(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    version: u32,
    #[serde(default)]
    brand: Option<FileBrand>,
    #[serde(default)]
    event: Vec<FileEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBrand {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEvent {
    name: String,
    description: String,
    #[serde(default)]
    validation: Validation,
    #[serde(default)]
    retired: bool,
    schema: String,
    example: String,
}

impl FileEvent {
    fn read(self) -> Result<EventType, CatalogueError> {
        let Self { name, description, validation, retired, .. } = self;
        let schema = json_object(&name, "schema", &self.schema)?;
        let example = json_object(&name, "example", &self.example)?;
        let compiled =
            DataSchema::compile(&schema).map_err(|source| CatalogueError::Schema { name: name.clone(), source })?;
        if let Some(SchemaViolation { path, text, .. }) = compiled.violations(&example).into_iter().next() {
            return Err(CatalogueError::Example { name, path, text });
        }
        let name = EventTypeName(name.into());
        Ok(EventType { name, description, validation, retired, schema, example, compiled })
    }
}

impl Catalogue {
    /// The text of the catalogue built into the binary.
    pub const BUILT_IN: &str = include_str!("../../../events.toml");

    /// The catalogue built into the binary.
    ///
    /// # Errors
    /// Never for a released binary: a test parses the text.
    pub fn built_in() -> Result<Self, CatalogueError> {
        Self::parse(Self::BUILT_IN)
    }

    /// # Errors
    /// When the text is not TOML of the documented form, contains no event, an invalid or duplicate name, or an example
    /// that violates its schema.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let file: CatalogueFile = toml::from_str(text).map_err(|error| CatalogueError::Form(Box::new(error)))?;
        let brand = match file.brand {
            None => Brand::default(),
            Some(FileBrand { name }) => Brand::new(&name).ok_or(CatalogueError::Brand(name))?,
        };
        let mut seen = HashSet::new();
        let mut types = Vec::with_capacity(file.event.len());
        for event in file.event {
            if !is_event_name(&event.name) {
                return Err(CatalogueError::Name(event.name));
            }
            if !seen.insert(event.name.clone()) {
                return Err(CatalogueError::Duplicate(event.name));
            }
            types.push(event.read()?);
        }
        if types.is_empty() { Err(CatalogueError::Empty) } else { Ok(Self { version: file.version, brand, types }) }
    }

    pub fn types(&self) -> &[EventType] {
        &self.types
    }

    /// SHA-256 of the catalogue's content. Layout and comments of the file do not change it.
    pub fn content_hash(&self) -> [u8; 32] {
        let mut content = format!("{}\n{}\n", self.version, self.brand.name());
        for event in &self.types {
            let EventType { name, description, validation, retired, schema, example, .. } = event;
            content.push_str(&format!("{name}\n{description:?}\n{validation:?} {retired}\n{schema}\n{example}\n"));
        }
        postrider_crypto::sha256(content.as_bytes())
    }

    /// The names that can be subscribed to and published, in the order of the file: all but the retired ones.
    pub fn names(&self) -> impl Iterator<Item = &EventTypeName> {
        self.types.iter().filter(|event| !event.retired).map(|event| &event.name)
    }

    /// The event type of this name; `None` if it is unknown or retired.
    pub fn find(&self, name: &str) -> Option<&EventType> {
        self.types.iter().find(|event| !event.retired && event.name.as_str() == name)
    }
}

fn is_event_name(name: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    name.len() <= limits::EVENT_NAME_CHARS && name.contains('.') && name.split('.').all(word)
}

/// The object on one line, its keys in the order of the file.
fn json_object(name: &str, part: &'static str, text: &str) -> Result<Box<RawValue>, CatalogueError> {
    let fault = || CatalogueError::Json { name: name.to_owned(), part };
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|_| fault())?;
    serde_json::value::to_raw_value(&value).map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_has_the_nine_published_names() {
        let names: Vec<String> = Catalogue::built_in().unwrap().names().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "note.created",
                "post.created",
                "post.updated",
                "post.scheduled",
                "post.unscheduled",
                "source.created",
                "job.completed",
                "job.failed",
                "knowledge.indexed"
            ]
        );
    }

    fn one(name: &str, extra: &str) -> String {
        format!(
            "version = 1\n{extra}\n[[event]]\nname = {name:?}\ndescription = 'd'\nschema = '{{}}'\nexample = '{{}}'\n"
        )
    }

    #[test]
    fn the_brand_is_the_prefix_of_keys_and_headers() {
        let catalogue = Catalogue::parse(&one("ping.sent", "[brand]\nname = 'acme'")).unwrap();
        assert_eq!(catalogue.brand.header("Delivery-Id"), "Acme-Delivery-Id");
        assert_eq!(catalogue.brand.key_prefix(Mode::Live), "acme_sk_live_");
    }

    #[test]
    fn an_invalid_catalogue_is_refused_with_its_reason() {
        for (text, word) in [
            (one("Ping", ""), "form noun.verb"),
            (one("a.b", "") + &one("a.b", "").replace("version = 1", ""), "twice"),
            (one("a.b", "[brand]\nname = 'Ac-me'"), "brand"),
            (one("a.b", "").replace("'{}'", "'[]'"), "not a JSON object"),
            ("version = 1".to_owned(), "contains no event"),
            (one("a.b", "colour = 1"), "TOML"),
            (one("a.b", "").replace("schema = '{}'", "schema = '{\"type\":\"text\"}'"), "schema of \"a.b\""),
            (
                one("a.b", "").replace("schema = '{}'", "schema = '{\"required\":[\"id\"]}'"),
                "the example of \"a.b\" violates its schema: data \"id\" is a required property",
            ),
        ] {
            assert!(Catalogue::parse(&text).unwrap_err().to_string().contains(word), "{text}");
        }
    }

    #[test]
    fn a_retired_name_is_listed_but_not_found() {
        let catalogue = Catalogue::parse(&one("a.b", "").replace("schema", "retired = true\nschema")).unwrap();
        assert_eq!((catalogue.types().len(), catalogue.names().count()), (1, 0));
        assert!(catalogue.find("a.b").is_none());
    }

    #[test]
    fn the_content_hash_depends_on_content_not_on_layout() {
        let hash = |text: &str| Catalogue::parse(text).unwrap().content_hash();
        let text = one("a.b", "");
        assert_eq!(hash(&text), hash(&format!("# a comment\n{}", text.replace("'{}'", "'{ }'"))));
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("'d'", "'e'"),
            ("schema", "retired = true\nschema"),
            ("schema", "validation = 'reject'\nschema"),
            ("example = '{}'", "example = '{\"a\":1}'"),
            ("version = 1", "version = 1\n[brand]\nname = 'acme'"),
        ] {
            assert_ne!(hash(&text), hash(&text.replace(from, to)), "{to}");
        }
    }
}
