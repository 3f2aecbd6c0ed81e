//! A webhook endpoint: a customer's URL and the events that it receives.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use url::Url;

use super::endpoint_health::{FailureStreak, HealthState};
use super::endpoint_options::{EndpointOptions, OptionsChange};
use super::event_type::EventTypeName;
use super::id::{EndpointId, EventId, RowKey};
use super::invalid_field::InvalidField;
use super::limits;
use super::list_filter::{ListFilter, ReadEventName, add_pair, values, words};
use super::mode::Mode;
use super::name;
use super::time::Timestamp;

/// 1 to 128 characters of a [`name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointName(String);

impl EndpointName {
    /// # Errors
    /// As [`name::check`].
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        name::check(text, limits::ENDPOINT_NAME_CHARS).map(|()| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A customer inside a workspace: an opaque id that is never resolved. It is held inline, so that a tenant that is
/// narrowed to a project can be copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProjectId {
    length: u8,
    /// Zero behind the length.
    letters: [u8; limits::OPAQUE_ID_CHARS],
}

/// 1 to 64 characters of `[A-Za-z0-9_-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpaqueId(String);

impl OpaqueId {
    /// # Errors
    /// When the text has another length or other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let fits = (1..=limits::OPAQUE_ID_CHARS).contains(&text.len());
        if fits && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidField("must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProjectId {
    /// # Errors
    /// As [`OpaqueId::parse`].
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        OpaqueId::parse(text)?;
        let length = u8::try_from(text.len()).expect("an opaque id has at most 64 characters");
        let mut letters = [0; limits::OPAQUE_ID_CHARS];
        letters[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { length, letters })
    }

    pub fn as_str(&self) -> &str {
        let letters = self.letters.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(letters).unwrap_or_default()
    }
}

impl fmt::Debug for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// An absolute `http` or `https` URL in the form in which it is called. The guard decides whether its host may be
/// called.
///
/// Parsers repair much, and each differently. A spelling that must be repaired is refused, so that nobody reads another
/// target than the one that is called. A valid but unusual spelling is kept in its canonical form: `127.1`, `/a/../b`,
/// `ü`, an upper-case host, a default port. Only an absent path stays absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl {
    text: String,
    url: Url,
}

impl EndpointUrl {
    /// # Errors
    /// When the text is not such a URL, is longer than 1,024 characters, or contains credentials or a fragment.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let length = text.chars().count();
        if !(1..=limits::ENDPOINT_URL_CHARS).contains(&length) {
            return Err(InvalidField("must be 1 to 1024 characters"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidField("must not contain white space or control characters"));
        }
        if text.contains('\\') {
            return Err(InvalidField("must not contain a backslash"));
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => InvalidField("must have a host"),
            _ => InvalidField("must be an absolute https URL with a valid host"),
        })?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(InvalidField(NOT_HTTPS));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidField("must have a host"));
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || authority(text).is_some_and(|(authority, _)| authority.contains('@'))
        {
            return Err(InvalidField("must not contain credentials"));
        }
        if url.fragment().is_some() {
            return Err(InvalidField("must not contain a fragment"));
        }
        let Some((_, has_path)) = authority(text).filter(|(authority, _)| !authority.is_empty()) else {
            return Err(InvalidField("must have exactly two slashes between the scheme and the host"));
        };
        Self::called_as(&url, has_path)
    }

    /// A URL that was accepted before. The canonical form may be longer than what was accepted, and an earlier version
    /// stored URLs as they were written.
    ///
    /// # Errors
    /// When no parser can repair it.
    pub fn from_stored(text: &str) -> Result<Self, InvalidField> {
        let url = Url::parse(text).map_err(|_| InvalidField("must be an absolute https URL with a valid host"))?;
        Self::called_as(&url, authority(text).is_none_or(|(_, has_path)| has_path))
    }

    fn called_as(url: &Url, has_path: bool) -> Result<Self, InvalidField> {
        let text = canonical(url, has_path)?;
        let url = Url::parse(&text).map_err(|_| InvalidField("must be an absolute https URL with a valid host"))?;
        Ok(Self { text, url })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }
}

/// Whether two stored URLs have the same scheme, host and port. The case of a host and an explicit default port make no
/// difference. A URL that cannot be parsed has the origin of no other.
pub fn is_same_origin(one: &str, other: &str) -> bool {
    // Equal text is the usual case on the way of a delivery, and needs no parser.
    one == other
        || matches!((Url::parse(one), Url::parse(other)), (Ok(one), Ok(other)) if one.origin() == other.origin())
}

/// The error for any scheme but `https`, and for `http` where the operator has not allowed it.
pub const NOT_HTTPS: &str = "must use https";

/// What stands between `://` and the path, and whether there is a path. `None` without `://`.
fn authority(text: &str) -> Option<(&str, bool)> {
    let rest = text.split_once(':')?.1.strip_prefix("//")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some((&rest[..end], rest[end..].starts_with('/')))
}

/// The URL as a request is made of it: scheme, host and port as `Host` has them, path and query as they are sent.
fn canonical(url: &Url, has_path: bool) -> Result<String, InvalidField> {
    let host = match url.host() {
        Some(url::Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.split('.').any(str::is_empty) {
                return Err(InvalidField("must have a host without empty labels"));
            }
            name.to_owned()
        }
        Some(url::Host::Ipv4(address)) => address.to_string(),
        Some(url::Host::Ipv6(address)) => match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        },
        None => return Err(InvalidField("must have a host")),
    };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = if has_path || url.path() != "/" { url.path() } else { "" };
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{}://{host}{port}{path}{query}", url.scheme()))
}

/// Why the server switched an endpoint off. An endpoint that its owner switched off has no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// The receiver answered 410.
    Gone,
    /// No attempt succeeded for days.
    Failing,
    /// The host name now resolves to an address that may not be called.
    SsrfBlocked,
}

impl DisabledReason {
    pub const ALL: [Self; 3] = [Self::Gone, Self::Failing, Self::SsrfBlocked];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::SsrfBlocked => "ssrf_blocked",
        }
    }

    pub fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for DisabledReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a listener has in place of a URL. Its deliveries are pulled by consumers that lease them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// A listener that is not durable is removed when nobody has used it for [`limits::LISTENER_KEPT`].
    pub durable: bool,
    /// When a consumer last leased, renewed or settled, within [`limits::LISTENER_SEEN_EVERY`].
    pub last_seen_at: Timestamp,
}

/// An endpoint as it is shown: everything except the secret.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub key: RowKey,
    pub id: EndpointId,
    /// Empty for a listener.
    pub url: String,
    pub listener: Option<Listener>,
    pub name: String,
    /// In the order of the catalogue, without duplicates.
    pub events: Vec<EventTypeName>,
    pub is_active: bool,
    pub disabled_reason: Option<DisabledReason>,
    pub project_id: Option<String>,
    pub secret_last4: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The failures since the last success, if the last attempt failed.
    pub failure_streak: Option<FailureStreak>,
    pub options: Arc<EndpointOptions>,
    /// The mode of the key that made it. It never changes.
    pub mode: Mode,
}

impl Endpoint {
    /// Whether the endpoint subscribes to an event of this type and project. Does not check whether it is active, nor
    /// its mode.
    pub fn matches(&self, event_type: &EventTypeName, project_id: Option<&str>) -> bool {
        let in_project = self.project_id.as_deref().is_none_or(|own| Some(own) == project_id);
        in_project && self.events.contains(event_type)
    }

    pub fn state(&self) -> EndpointState {
        match self.failure_streak.map_or(HealthState::Ok, |streak| streak.state()) {
            _ if !self.is_active && self.disabled_reason.is_some() => EndpointState::Disabled,
            _ if !self.is_active => EndpointState::Off,
            HealthState::Ok => EndpointState::Ok,
            HealthState::Failing => EndpointState::Failing,
            HealthState::Paused => EndpointState::Paused,
        }
    }
}

/// The changes of a PATCH. A `None` field keeps the stored value.
#[derive(Clone, Debug, Default)]
pub struct EndpointChange {
    pub name: Option<EndpointName>,
    pub url: Option<EndpointUrl>,
    pub events: Option<Vec<EventTypeName>>,
    pub project_id: Option<Option<ProjectId>>,
    pub is_active: Option<bool>,
    pub options: OptionsChange,
    /// The `updated_at` of the endpoint that the caller has seen. The change is refused if it is not the stored one.
    pub seen: Option<Timestamp>,
}

impl EndpointChange {
    pub const fn is_empty(&self) -> bool {
        self.options.is_empty()
            && matches!(self, Self { name: None, url: None, events: None, project_id: None, is_active: None, .. })
    }
}

/// What an endpoint does, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    Ok,
    /// Active, and several consecutive attempts failed.
    Failing,
    /// Active, but gets only probes.
    Paused,
    /// Switched off by the server.
    Disabled,
    /// Switched off by its owner.
    Off,
}

impl EndpointState {
    pub const ALL: [Self; 5] = [Self::Ok, Self::Failing, Self::Paused, Self::Disabled, Self::Off];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Off => "off",
        }
    }

    /// Whether somebody should look at the endpoint. One that its owner switched off is as it should be.
    pub const fn needs_somebody(self) -> bool {
        matches!(self, Self::Failing | Self::Paused | Self::Disabled)
    }
}

/// An endpoint's name and address, for a row that refers to it. The endpoint may be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLabel {
    pub id: EndpointId,
    pub name: String,
    pub url: String,
    pub is_deleted: bool,
}

impl EndpointLabel {
    /// The host of the URL, with its port if it has one.
    pub fn host(&self) -> &str {
        authority(&self.url).map_or("", |(host, _)| host)
    }
}

/// The filter of a list of endpoints. A parameter without values passes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointFilter {
    pub project_ids: Vec<ProjectId>,
    pub is_active: Option<bool>,
    /// Subscribed to at least one of them.
    pub event_types: Vec<EventTypeName>,
    pub states: Vec<EndpointState>,
    /// Is part of the name, or of the host with its port. The case of ASCII letters does not matter.
    pub text: Option<SoughtText>,
    /// Without a delivery of this event. The event belongs to the same store. Not a parameter.
    pub not_reached_by: Option<EventId>,
    /// Only listeners, or only endpoints with a URL. Not a parameter.
    pub are_listeners: Option<bool>,
}

/// A text that a list looks for, in lower case as far as it is ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoughtText(String);

impl SoughtText {
    /// # Errors
    /// When the text is empty or longer than a URL.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let fits = (1..=limits::SOUGHT_TEXT_CHARS).contains(&text.chars().count());
        if fits { Ok(Self(text.to_ascii_lowercase())) } else { Err(InvalidField("must be 1 to 256 characters")) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ListFilter for EndpointFilter {
    const NAMES: &'static [&'static str] = &["projectId", "isActive", "event", "state", "q"];

    fn set(&mut self, name: &str, text: &str, read_event: ReadEventName<'_>) -> Result<(), String> {
        match name {
            "projectId" => self.project_ids = values(text, ProjectId::parse)?,
            "isActive" => self.is_active = Some(text.parse().map_err(|_| "must be true or false".to_owned())?),
            "event" => self.event_types = values(text, read_event)?,
            "state" => self.states = words(text, &EndpointState::ALL, EndpointState::as_str)?,
            "q" => self.text = Some(SoughtText::parse(text).map_err(|error| error.to_string())?),
            _ => return Err("is not a known parameter".to_owned()),
        }
        Ok(())
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        add_pair(&mut pairs, "projectId", &self.project_ids, |project| project.as_str().to_owned());
        add_pair(&mut pairs, "isActive", self.is_active.as_slice(), ToString::to_string);
        add_pair(&mut pairs, "event", &self.event_types, ToString::to_string);
        add_pair(&mut pairs, "state", &self.states, |state| state.as_str().to_owned());
        add_pair(&mut pairs, "q", self.text.as_slice(), |text| text.as_str().to_owned());
        pairs
    }
}

/// The version of an endpoint's secret. Counts from 1; each rotation adds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretVersion(pub u32);

impl SecretVersion {
    pub const FIRST: Self = Self(1);
}

/// The associated data of a sealed secret. It opens for no other endpoint and no other version.
pub fn sealing_record(endpoint: EndpointId, version: SecretVersion) -> String {
    format!("{endpoint}/{}", version.0)
}

/// The associated data of the sealed private key for `v1a` signatures of one version.
pub fn signing_key_record(endpoint: EndpointId, version: SecretVersion) -> String {
    format!("{endpoint}/{}/v1a", version.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_fault(text: &str) -> &'static str {
        EndpointUrl::parse(text).unwrap_err().0
    }

    #[test]
    fn a_url_is_kept_in_the_form_in_which_it_is_called() {
        for (text, canonical) in [
            ("https://hooks.example.com", "https://hooks.example.com"),
            ("https://hooks.example.com/", "https://hooks.example.com/"),
            ("https://hooks.example.com?x=1", "https://hooks.example.com?x=1"),
            ("HTTPS://Hooks.Example.com:443/A/../b?x=%20y", "https://hooks.example.com/b?x=%20y"),
            ("https://hooks.example.com./in", "https://hooks.example.com/in"),
            ("https://hooks.example.com:0444/%7Ea//b", "https://hooks.example.com:444/%7Ea//b"),
            ("https://hooks.example.com:/in", "https://hooks.example.com/in"),
            ("https://hooks.example.com/a/..", "https://hooks.example.com/"),
            ("https://b\u{fc}cher.example/\u{fc}?q=\u{fc}", "https://xn--bcher-kva.example/%C3%BC?q=%C3%BC"),
            ("https://127.1/", "https://127.0.0.1/"),
            ("https://0x7f000001/", "https://127.0.0.1/"),
            ("https://[::FFFF:1.2.3.4]/", "https://1.2.3.4/"),
            ("https://[2606:4700:0:0::1]:444", "https://[2606:4700::1]:444"),
            ("https://h/https://h", "https://h/https://h"),
            ("https://s//s", "https://s//s"),
            ("https://s/", "https://s/"),
            ("http://http/http", "http://http/http"),
        ] {
            let parsed = EndpointUrl::parse(text).unwrap();
            assert_eq!(parsed.as_str(), canonical, "{text}");
            assert_eq!(EndpointUrl::parse(canonical).unwrap(), parsed, "the canonical form is its own");
        }
    }

    #[test]
    fn a_spelling_that_a_parser_would_repair_is_refused() {
        for text in [
            "https:8.8.8.8/hook",
            "https:/8.8.8.8/hook",
            "https:///8.8.8.8/hook",
            "https:////8.8.8.8/hook",
            "https:\\\\8.8.8.8/hook",
            "https://8.8.8.8\\hook",
            "https://8.8.8.8/a\\b",
            "https://8.8.8.8/?a\\b",
            "https://a..example/",
            "https://.a.example/",
            "https://a.example../",
            "https://./",
            "https://a.example/a b",
            " https://a.example/",
            "https://a.example/ ",
            "https://a.exa\tmple/",
            "https://a.exa\nmple/",
            "https://a.example/\r\n",
            "https://a.example/\u{a0}",
            "ht\ttps://a.example/",
            "//a.example/",
            "https://a.example:port/",
            "https://",
        ] {
            assert!(EndpointUrl::parse(text).is_err(), "{text:?}: {:?}", EndpointUrl::parse(text));
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let stored = "https://hooks.example.com/a";
        for same in ["https://hooks.example.com/b?c", "https://HOOKS.Example.com", "https://hooks.example.com:443/a"] {
            assert!(is_same_origin(stored, same), "{same}");
        }
        for other in [
            "http://hooks.example.com/a",
            "https://hooks.example.com:8443/a",
            "https://hooks.example.com.evil.example/a",
            "https://hooks.example.com./a",
            "https://example.com/hooks.example.com/a",
            "no URL",
        ] {
            assert!(!is_same_origin(stored, other), "{other}");
        }
    }

    #[test]
    fn each_fault_of_a_url_is_named() {
        assert_eq!(url_fault("ftp://example.com/"), "must use https");
        assert_eq!(url_fault("https://user@example.com/"), "must not contain credentials");
        assert_eq!(url_fault("https://@example.com/"), "must not contain credentials");
        assert_eq!(url_fault("https://u:p@example.com/"), "must not contain credentials");
        assert_eq!(url_fault("https://example.com/#"), "must not contain a fragment");
        assert_eq!(url_fault("https://"), "must have a host");
        assert_eq!(url_fault("example.com/hook"), "must be an absolute https URL with a valid host");
        assert_eq!(url_fault("https://exa mple.com/"), "must not contain white space or control characters");
        assert_eq!(url_fault(""), "must be 1 to 1024 characters");
        assert!(EndpointUrl::parse("https://example.com/@scope").is_ok());
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert!(EndpointName::parse(&"é".repeat(128)).is_ok());
        assert!(EndpointName::parse(&"é".repeat(129)).is_err());
        assert!(EndpointName::parse("").is_err());
        let url = |length: usize| format!("https://example.com/{}", "a".repeat(length - 20));
        assert!(EndpointUrl::parse(&url(1024)).is_ok());
        assert!(EndpointUrl::parse(&url(1025)).is_err());
        // The canonical form may be longer. What was accepted can be read again.
        let long = format!("https://example.com/{}", "\u{fc}".repeat(1004));
        let parsed = EndpointUrl::parse(&long).unwrap();
        assert_eq!(parsed.as_str().len(), 20 + 6 * 1004);
        assert_eq!(EndpointUrl::from_stored(parsed.as_str()).unwrap(), parsed);
        assert_eq!(EndpointUrl::from_stored("https:8.8.8.8").unwrap().as_str(), "https://8.8.8.8/");
        assert!(OpaqueId::parse(&"x".repeat(64)).is_ok());
        assert!(OpaqueId::parse(&"x".repeat(65)).is_err());
        assert!(OpaqueId::parse("a b").is_err());
    }

    #[test]
    fn an_event_matches_its_project_and_endpoints_without_one() {
        let name = EventTypeName::from_stored("post.created");
        let endpoint = |project: Option<&str>| Endpoint {
            key: RowKey::from_i64(1),
            id: EndpointId::from_letters([b'a'; 16]),
            url: String::new(),
            listener: None,
            name: String::new(),
            events: vec![name.clone()],
            is_active: true,
            disabled_reason: None,
            project_id: project.map(str::to_owned),
            secret_last4: String::new(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            failure_streak: None,
            options: Arc::default(),
            mode: Mode::Live,
        };
        assert!(endpoint(None).matches(&name, Some("proj_a")));
        assert!(endpoint(None).matches(&name, None));
        assert!(endpoint(Some("proj_a")).matches(&name, Some("proj_a")));
        assert!(!endpoint(Some("proj_a")).matches(&name, Some("proj_b")));
        assert!(!endpoint(Some("proj_a")).matches(&name, None));
        assert!(!endpoint(None).matches(&EventTypeName::from_stored("job.failed"), None));
    }
}
