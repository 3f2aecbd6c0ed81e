//! A source of events besides the API: a broker or an outbox table. What its messages are, how an event is read from
//! one, and why a message is parked.
//!
//! A message becomes an event or it is parked; a source never drops one. Whether the store can take it now is another
//! question, which is no fault of the message.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::endpoint::{OpaqueId, ProjectId};
use super::id::{ParkedMessageId, RowKey};
use super::limits;
use super::mode::Mode;
use super::time::Timestamp;

/// The name of a source. It stands in metrics, logs and parked messages, and before the `externalId`s of its events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(String);

impl SourceName {
    /// No underscore: it separates the name from the id in an `externalId`, so that two sources never share one.
    ///
    /// # Errors
    /// When the text has another length or other characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=limits::SOURCE_NAME_CHARS).contains(&text.len());
        if fits && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("must be 1 to {} characters of a-z, 0-9 and -", limits::SOURCE_NAME_CHARS))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The `externalId` of the event with this id of the source. An id that does not fit one is hashed.
    pub fn external_id(&self, id: &str) -> OpaqueId {
        OpaqueId::parse(&format!("{}_{id}", self.0)).unwrap_or_else(|_| self.hashed_id(id.as_bytes()))
    }

    /// The `externalId` of an event that is known by a hash: the first 160 bits of a SHA-256, in hex.
    pub fn hashed_id(&self, bytes: &[u8]) -> OpaqueId {
        let hash: String = postrider_crypto::sha256(bytes)[..20].iter().map(|byte| format!("{byte:02x}")).collect();
        OpaqueId::parse(&format!("{}_{hash}", self.0)).expect("a name and 40 digits are an id")
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Outbox,
    Nats,
    Rabbitmq,
}

impl SourceKind {
    pub const ALL: [Self; 3] = [Self::Outbox, Self::Nats, Self::Rabbitmq];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Nats => "nats",
            Self::Rabbitmq => "rabbitmq",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a field of the event stands in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldRule {
    /// The header of this name. Names are compared without case.
    Header(String),
    /// The place in the JSON body, by RFC 6901.
    Pointer(String),
    /// The subject of NATS, the routing key of RabbitMQ.
    Subject,
    /// The number that the broker gave the message: the stream sequence of NATS.
    Sequence,
    /// The id that the producer gave the message: the property `message_id` of RabbitMQ, the `id` of an outbox row.
    MessageId,
    /// The SHA-256 of the body. Two messages with the same body are then one event.
    Hash,
    /// The same for all messages.
    Fixed(String),
}

impl FieldRule {
    /// # Errors
    /// When the text is not `header:NAME`, `pointer:/…`, `sequence`, `message_id` or `hash`.
    pub fn parse_id(text: &str) -> Result<Self, String> {
        match text {
            "sequence" => Ok(Self::Sequence),
            "message_id" => Ok(Self::MessageId),
            "hash" => Ok(Self::Hash),
            _ => Self::parse_place(text)?
                .ok_or_else(|| "must be header:NAME, pointer:/PATH, sequence, message_id or hash".to_owned()),
        }
    }

    /// # Errors
    /// When the text begins like a place and is none.
    pub fn parse_text(text: &str) -> Result<Self, String> {
        match text {
            "subject" | "routing_key" => Ok(Self::Subject),
            "" => Err("must be header:NAME, pointer:/PATH, subject, routing_key or a fixed text".to_owned()),
            _ => Ok(Self::parse_place(text)?.unwrap_or_else(|| Self::Fixed(text.to_owned()))),
        }
    }

    /// The place of `data`. An empty text is the whole body.
    ///
    /// # Errors
    /// When the text is not `pointer:/…` or empty.
    pub fn parse_data(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Pointer(String::new()));
        }
        match Self::parse_place(text)? {
            Some(found @ Self::Pointer(_)) => Ok(found),
            _ => Err("must be pointer:/PATH, or empty for the whole body".to_owned()),
        }
    }

    fn parse_place(text: &str) -> Result<Option<Self>, String> {
        if let Some(name) = text.strip_prefix("header:") {
            return match name {
                "" => Err("names no header".to_owned()),
                name => Ok(Some(Self::Header(name.to_owned()))),
            };
        }
        let Some(pointer) = text.strip_prefix("pointer:") else { return Ok(None) };
        if pointer.is_empty() || pointer.starts_with('/') {
            Ok(Some(Self::Pointer(pointer.to_owned())))
        } else {
            Err("is no JSON pointer: it must begin with /".to_owned())
        }
    }
}

/// How an event is read from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRules {
    pub id: FieldRule,
    pub event_type: FieldRule,
    pub data: FieldRule,
    pub project: FieldRule,
}

impl SourceRules {
    /// A body is what `POST /v1/events` takes.
    pub fn with_id(id: FieldRule) -> Self {
        let at = |place: &str| FieldRule::Pointer(place.to_owned());
        Self { id, event_type: at("/type"), data: at("/data"), project: at("/projectId") }
    }

    /// The body is the data, so nothing else is read from it unasked.
    pub fn takes_whole_body(&self) -> bool {
        self.data == FieldRule::Pointer(String::new())
    }

    /// Everything but the id stands in the body, so the body alone says whether two messages are the same event.
    pub fn reads_body_only(&self) -> bool {
        [&self.event_type, &self.project].iter().all(|rule| matches!(rule, FieldRule::Pointer(_) | FieldRule::Fixed(_)))
    }
}

/// What happens to a message that would be parked when the source has parked as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedFull {
    /// It stays with the source, which waits until somebody has made room.
    Stop,
    /// The oldest parked messages are removed for it.
    DropOldest,
}

impl ParkedFull {
    pub const ALL: [Self; 2] = [Self::Stop, Self::DropOldest];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::DropOldest => "drop-oldest",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// What the service knows of a source: all settings but how to connect.
#[derive(Clone, Debug)]
pub struct SourceTerms {
    pub name: SourceName,
    pub kind: SourceKind,
    /// The id or the name of the workspace.
    pub workspace: String,
    pub mode: Mode,
    pub rules: SourceRules,
    /// Messages that are taken from the source and not settled yet.
    pub max_in_flight: usize,
    /// The bytes of their bodies.
    pub max_bytes_in_flight: usize,
    pub parked_max: u32,
    pub parked_full: ParkedFull,
}

/// A message as its source gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMessage {
    pub headers: Vec<(String, String)>,
    pub subject: Option<String>,
    pub sequence: Option<String>,
    pub message_id: Option<String>,
    pub body: Bytes,
}

impl SourceMessage {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// SHA-256 of where the message stands and what it holds. A message that comes again has the same.
    pub fn fingerprint(&self) -> [u8; 32] {
        let place = [&self.subject, &self.sequence, &self.message_id].map(|part| part.as_deref().unwrap_or_default());
        let mut bytes = place.join("\0").into_bytes();
        bytes.push(0);
        bytes.extend_from_slice(&postrider_crypto::sha256(&self.body));
        postrider_crypto::sha256(&bytes)
    }

    /// The message as it is parked: at most so many bytes of the body and of the headers.
    pub fn cut(&self) -> Self {
        let mut room = limits::PARKED_HEADER_BYTES;
        let fits = |(name, value): &&(String, String)| {
            let bytes = name.len() + value.len();
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let short = |text: &Option<String>| {
            text.as_ref().map(|text| text.chars().take(limits::PARKED_PLACE_CHARS).collect::<String>())
        };
        Self {
            headers: self.headers.iter().take_while(fits).cloned().collect(),
            subject: short(&self.subject),
            sequence: short(&self.sequence),
            message_id: short(&self.message_id),
            body: self.body.slice(..self.body.len().min(limits::BODY_BYTES)),
        }
    }
}

/// Why a message cannot become an event. The names are stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// The body is larger than that of an event may be.
    TooLarge,
    /// The body is not JSON.
    NotJson,
    /// A field is missing or has another form.
    WrongShape,
    /// The rule for the id finds none.
    NoId,
    /// The catalogue has no such type, or it is retired.
    UnknownType,
    SchemaViolation,
    /// The id was published before with other content.
    IdReused,
    /// The event matches more endpoints than one request may.
    TooManyDeliveries,
}

impl ParkReason {
    pub const ALL: [Self; 8] = [
        Self::TooLarge,
        Self::NotJson,
        Self::WrongShape,
        Self::NoId,
        Self::UnknownType,
        Self::SchemaViolation,
        Self::IdReused,
        Self::TooManyDeliveries,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::WrongShape => "wrong_shape",
            Self::NoId => "no_id",
            Self::UnknownType => "unknown_type",
            Self::SchemaViolation => "schema_violation",
            Self::IdReused => "id_reused",
            Self::TooManyDeliveries => "too_many_deliveries",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// A message that could not become an event.
#[derive(Clone, Debug)]
pub struct ParkedMessage {
    pub key: RowKey,
    pub id: ParkedMessageId,
    pub source: String,
    pub mode: Mode,
    pub project_id: Option<ProjectId>,
    pub reason: ParkReason,
    /// What is wrong, for people.
    pub detail: String,
    /// Without its body in a list.
    pub message: SourceMessage,
    /// Bytes of the whole body.
    pub body_bytes: u64,
    pub parked_at: Timestamp,
}

impl ParkedMessage {
    /// The stored body is not the whole one.
    pub const fn is_cut(&self) -> bool {
        self.body_bytes > limits::BODY_BYTES as u64
    }
}

/// How a source is doing, on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It is connecting for the first time, or its workspace does not exist yet.
    Starting,
    Running,
    /// It failed, or the store takes nothing now. It tries again.
    Retrying,
    Paused,
    /// It has parked as many messages as it may, and waits for room.
    ParkedFull,
}

impl SourceState {
    pub const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Retrying, Self::Paused, Self::ParkedFull];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Paused => "paused",
            Self::ParkedFull => "parked_full",
        }
    }
}

/// The value at an RFC 6901 pointer, as the bytes that it consists of. `None` when there is none.
pub fn value_at<'j>(json: &'j RawValue, pointer: &str) -> Option<&'j RawValue> {
    let Some(path) = pointer.strip_prefix('/') else { return pointer.is_empty().then_some(json) };
    path.split('/').try_fold(json, |at, token| {
        let token = token.replace("~1", "/").replace("~0", "~");
        if let Ok(members) = serde_json::from_str::<BTreeMap<String, &'j RawValue>>(at.get()) {
            return members.get(&token).copied();
        }
        let is_index = token == "0" || !token.starts_with('0') && token.bytes().all(|c| c.is_ascii_digit());
        let items: Vec<&'j RawValue> = is_index.then(|| serde_json::from_str(at.get()).ok()).flatten()?;
        items.get(token.parse::<usize>().ok()?).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn a_pointer_finds_the_bytes_that_came() {
        let json = raw(r#"{"a/b":{"m~n":[1.0,{"x": 1e2}]},"":7}"#);
        let at = |pointer: &str| value_at(&json, pointer).map(RawValue::get);
        assert_eq!(at("/a~1b/m~0n/0"), Some("1.0"));
        assert_eq!(at("/a~1b/m~0n/1/x"), Some("1e2"));
        assert_eq!(at("/"), Some("7"));
        assert_eq!(at(""), Some(json.get()));
        for missing in ["/b", "/a~1b/m~0n/2", "/a~1b/m~0n/00", "/a~1b/m~0n/-", "/a~1b/m~0n/0/x", "a"] {
            assert_eq!(at(missing), None, "{missing}");
        }
    }

    #[test]
    fn an_id_that_fits_no_external_id_is_hashed() {
        let name = SourceName::parse("orders").unwrap();
        assert_eq!(name.external_id("a-1").as_str(), "orders_a-1");
        let longest = "x".repeat(limits::OPAQUE_ID_CHARS - "orders_".len());
        assert_eq!(name.external_id(&longest).as_str(), format!("orders_{longest}"));
        for id in [format!("{longest}x"), "a b".to_owned(), "ü".to_owned(), "a:1".to_owned()] {
            let hashed = name.external_id(&id);
            assert_eq!(hashed.as_str().len(), "orders_".len() + 40, "{hashed:?}");
            assert_ne!(hashed, name.external_id(&format!("{id}!")));
        }
    }

    #[test]
    fn a_name_of_a_source_leaves_room_for_a_hash() {
        let longest = "n".repeat(limits::SOURCE_NAME_CHARS);
        assert_eq!(SourceName::parse(&longest).unwrap().hashed_id(b"x").as_str().len(), longest.len() + 41);
        for text in ["", "Orders", "a_b", "a b", &format!("{longest}n")] {
            SourceName::parse(text).unwrap_err();
        }
    }

    #[test]
    fn a_rule_parses_what_the_page_lists() {
        assert_eq!(FieldRule::parse_id("header:Nats-Msg-Id"), Ok(FieldRule::Header("Nats-Msg-Id".to_owned())));
        assert_eq!(FieldRule::parse_id("pointer:/meta/id"), Ok(FieldRule::Pointer("/meta/id".to_owned())));
        assert_eq!(FieldRule::parse_id("hash"), Ok(FieldRule::Hash));
        assert_eq!(FieldRule::parse_text("routing_key"), Ok(FieldRule::Subject));
        assert_eq!(FieldRule::parse_text("post.created"), Ok(FieldRule::Fixed("post.created".to_owned())));
        assert_eq!(FieldRule::parse_data(""), Ok(FieldRule::Pointer(String::new())));
        for wrong in ["fixed", "pointer:x", "header:"] {
            FieldRule::parse_id(wrong).unwrap_err();
        }
        FieldRule::parse_data("header:x").unwrap_err();
    }

    #[test]
    fn a_message_is_cut_to_what_is_parked() {
        let headers = vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x".repeat(limits::PARKED_HEADER_BYTES))];
        let body = Bytes::from(vec![b' '; limits::BODY_BYTES + 1]);
        let message = SourceMessage { headers, body, ..SourceMessage::default() };
        let cut = message.cut();
        assert_eq!((cut.headers.len(), cut.body.len()), (1, limits::BODY_BYTES));
        assert_ne!(message.fingerprint(), cut.fingerprint());
    }

    #[test]
    fn every_name_parses_back() {
        assert!(ParkReason::ALL.iter().all(|reason| ParkReason::parse(reason.as_str()) == Some(*reason)));
        assert!(SourceKind::ALL.iter().all(|kind| SourceKind::parse(kind.as_str()) == Some(*kind)));
        assert!(ParkedFull::ALL.iter().all(|policy| ParkedFull::parse(policy.as_str()) == Some(*policy)));
    }
}
