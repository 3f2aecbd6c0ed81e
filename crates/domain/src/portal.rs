//! Portal sessions: a customer's stay on the portal of one project, opened by a link that the integrator asks for.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::audit::Actor;
use super::endpoint::ProjectId;
use super::event_type::EventTypeName;
use super::id::{PortalSessionId, RowKey, WorkspaceId};
use super::invalid_field::InvalidField;
use super::limits;
use super::mode::Mode;
use super::permission::{Capabilities, Capability};
use super::time::Timestamp;

/// A stored portal session, without its code and its tokens.
#[derive(Clone, Debug)]
pub struct PortalSession {
    pub key: RowKey,
    pub id: PortalSessionId,
    pub workspace_id: WorkspaceId,
    pub workspace_key: RowKey,
    pub mode: Mode,
    pub project_id: ProjectId,
    pub terms: PortalTerms,
    pub created_by: Actor,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// When somebody ended it before it expired.
    pub ended_at: Option<Timestamp>,
}

/// What the integrator decided for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalTerms {
    pub capabilities: Capabilities,
    /// The types that the customer may see and subscribe to. `None`: all.
    pub event_types: Option<Vec<EventTypeName>>,
    /// `None`: what the browser prefers.
    pub locale: Option<Locale>,
    pub theme: Theme,
    /// The page that the link leads to. `None`: the first.
    pub next: Option<PortalPath>,
    /// Where the customer goes when the session has ended.
    pub return_url: Option<ReturnUrl>,
    /// Who may show the pages in a frame.
    pub frame_ancestors: Vec<FrameAncestor>,
    /// Whether pages of this server may show it in a frame: the preview of the dashboard.
    pub is_preview: bool,
}

/// The languages of the portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locale {
    En,
    De,
}

impl Locale {
    pub const ALL: [Self; 2] = [Self::En, Self::De];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
        }
    }

    /// What [`Self::parse`] accepts, as a regular expression.
    pub const PATTERN: &str = "^(?:[Ee][Nn]|[Dd][Ee])(?:[-_][A-Za-z0-9]{1,8})*$";

    /// The language of a tag such as `de`, `de-AT` or `de_AT`.
    pub fn parse(tag: &str) -> Option<Self> {
        let mut parts = tag.split(['-', '_']);
        let language = parts.next().unwrap_or_default();
        if !parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_alphanumeric())) {
            return None;
        }
        Self::ALL.into_iter().find(|locale| language.eq_ignore_ascii_case(locale.as_str()))
    }

    /// The first language of an `Accept-Language` header that the portal has. Weights are ignored: browsers send the
    /// tags in the order of preference.
    pub fn preferred(header: &str) -> Option<Self> {
        header.split(',').find_map(|part| Self::parse(part.split(';').next().unwrap_or_default().trim()))
    }
}

/// The colours of the portal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    Light,
    Dark,
    /// As the reader's system.
    #[default]
    Auto,
}

impl Theme {
    pub const ALL: [Self; 3] = [Self::Light, Self::Dark, Self::Auto];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
            Self::Auto => "auto",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.as_str() == text)
    }
}

/// The origin of a page that may show the portal in a frame, as a browser writes it: `https://app.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct FrameAncestor(String);

impl FrameAncestor {
    /// # Errors
    /// When the text is no origin of `http` or `https`, or has a path or a wildcard. Messages go to exact origins.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        const FAULT: InvalidField = InvalidField("must be an origin like https://app.example.com, without a path");
        let url = Url::parse(text).map_err(|_| FAULT)?;
        let origin = url.origin().ascii_serialization();
        let is_plain = matches!(url.scheme(), "http" | "https") && !origin.contains(['*', ';', ',', '\'', ' ']);
        let given = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
        let with_default_port = [":443", ":80"].iter().any(|port| given.strip_suffix(port) == Some(&origin));
        if is_plain && (given == origin || with_default_port) { Ok(Self(origin)) } else { Err(FAULT) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FrameAncestor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path inside the portal, with or without a query: `/endpoints/new`. Its parts are words and ids, so it has neither
/// dot segments nor percent signs, and no reading of it leads out of the portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PortalPath(String);

impl PortalPath {
    /// What [`Self::parse`] accepts, as a regular expression.
    pub const PATTERN: &str = r"^/(?:[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*/?)?(?:\?[!$-.0-;=?-\[\]-~]*)?$";

    /// # Errors
    /// When the text is no such path, or is too long.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let parts = path.strip_prefix('/').map(|path| path.strip_suffix('/').unwrap_or(path));
        let is_word = |part: &str| {
            !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
        };
        let is_inside = parts.is_some_and(|parts| path == "/" || parts.split('/').all(is_word))
            && text.len() <= limits::PORTAL_PATH_CHARS
            && query.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'\\' | b'#' | b'"' | b'<' | b'>' | b'/'));
        if is_inside {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidField("must be a path of the portal, like /endpoints/new"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the customer goes from an ended session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ReturnUrl(String);

impl ReturnUrl {
    /// # Errors
    /// When the text is no `https` URL (`http` on loopback), holds credentials, or is too long.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        const FAULT: InvalidField =
            InvalidField("must be an https URL of at most 1024 characters, without credentials");
        let url = Url::parse(text).map_err(|_| FAULT)?;
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            None => false,
        };
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
        let is_plain = url.username().is_empty() && url.password().is_none();
        if is_safe && is_plain && url.as_str().len() <= limits::ENDPOINT_URL_CHARS {
            Ok(Self(url.into()))
        } else {
            Err(FAULT)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How long a session may last.
///
/// # Errors
/// When the number of seconds is out of range.
pub fn check_duration(seconds: u64) -> Result<Duration, InvalidField> {
    let duration = Duration::from_secs(seconds);
    if (limits::PORTAL_SESSION_MIN..=limits::PORTAL_SESSION_MAX).contains(&duration) {
        Ok(duration)
    } else {
        Err(InvalidField("must be 300 to 86400 seconds"))
    }
}

/// The form in which a store keeps [`PortalTerms`].
#[derive(Serialize, Deserialize)]
struct StoredTerms {
    capabilities: Vec<String>,
    event_types: Option<Vec<String>>,
    locale: Option<String>,
    theme: String,
    next: Option<String>,
    return_url: Option<String>,
    frame_ancestors: Vec<String>,
    is_preview: bool,
}

impl PortalTerms {
    pub fn to_text(&self) -> String {
        let stored = StoredTerms {
            capabilities: self.capabilities.iter().map(|capability| capability.as_str().to_owned()).collect(),
            event_types: self
                .event_types
                .as_ref()
                .map(|types| types.iter().map(|name| name.as_str().to_owned()).collect()),
            locale: self.locale.map(|locale| locale.as_str().to_owned()),
            theme: self.theme.as_str().to_owned(),
            next: self.next.as_ref().map(|path| path.as_str().to_owned()),
            return_url: self.return_url.as_ref().map(|url| url.as_str().to_owned()),
            frame_ancestors: self.frame_ancestors.iter().map(|origin| origin.as_str().to_owned()).collect(),
            is_preview: self.is_preview,
        };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// `None` when the text is not what [`Self::to_text`] makes. A capability that this version does not know is left
    /// out: it gives nothing.
    pub fn from_text(text: &str) -> Option<Self> {
        let stored: StoredTerms = serde_json::from_str(text).ok()?;
        let capabilities: Vec<Capability> =
            stored.capabilities.iter().filter_map(|text| Capability::parse(text)).collect();
        Some(Self {
            capabilities: Capabilities::of(&capabilities),
            event_types: stored
                .event_types
                .map(|names| names.iter().map(|name| EventTypeName::from_stored(name)).collect()),
            locale: stored.locale.as_deref().and_then(Locale::parse),
            theme: Theme::parse(&stored.theme).unwrap_or_default(),
            next: stored.next.map(PortalPath),
            return_url: stored.return_url.map(ReturnUrl),
            frame_ancestors: stored.frame_ancestors.into_iter().map(FrameAncestor).collect(),
            is_preview: stored.is_preview,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestor_is_an_exact_origin() {
        let origin = |text| FrameAncestor::parse(text).map(|origin| origin.as_str().to_owned()).ok();
        assert_eq!(origin("https://App.example.com/").as_deref(), Some("https://app.example.com"));
        assert_eq!(origin("https://app.example.com:443").as_deref(), Some("https://app.example.com"));
        assert_eq!(origin("http://localhost:3000").as_deref(), Some("http://localhost:3000"));
        for bad in [
            "https://*.example.com",
            "https://a.example.com/x",
            "https://a.example.com?x",
            "https://user@a.example.com",
            "a.example.com",
            "data:,x",
            "null",
            "https://a.example.com;",
            "",
            "javascript:alert(1)",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_path_stays_inside_the_portal() {
        for good in
            ["/", "/endpoints/new", "/deliveries?status=failed", "/endpoints/whe_a1b2c3d4e5f6g7h8", "/?a", "/a/"]
        {
            assert!(PortalPath::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "endpoints",
            "//evil.example",
            "/\\evil.example",
            "/../x",
            "/a/..",
            "/%2e%2E/x",
            "/a b",
            "/a\n",
            "/#x",
            "/ü",
            "/a//b",
            "/a?next=//evil.example",
        ] {
            assert!(PortalPath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_return_url_is_a_link_that_runs_nothing() {
        assert!(ReturnUrl::parse("https://app.example.com/settings?tab=hooks").is_ok());
        assert!(ReturnUrl::parse("http://localhost:3000/").is_ok());
        for bad in
            ["http://app.example.com/", "javascript:alert(1)", "data:text/html,x", "https://a:b@example.com/", "/x"]
        {
            assert!(ReturnUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_language_is_found_in_what_a_browser_prefers() {
        assert_eq!(Locale::preferred("de-AT,de;q=0.9,en;q=0.8"), Some(Locale::De));
        assert_eq!(Locale::preferred("fr, en-GB;q=0.7"), Some(Locale::En));
        assert_eq!(Locale::preferred("fr"), None);
        for bad in ["den", "de-", "en_longerthan8", "en-\u{e4}", ""] {
            assert_eq!(Locale::parse(bad), None, "{bad}");
        }
        assert_eq!(Locale::parse("EN_gb-oxendict"), Some(Locale::En));
    }

    #[test]
    fn terms_read_back_as_they_were_stored() {
        let terms = PortalTerms {
            capabilities: Capabilities::of(&[Capability::EndpointsRead, Capability::Test]),
            event_types: Some(vec![EventTypeName::from_stored("post.created")]),
            locale: Some(Locale::De),
            theme: Theme::Dark,
            next: PortalPath::parse("/deliveries").ok(),
            return_url: ReturnUrl::parse("https://app.example.com/").ok(),
            frame_ancestors: vec![FrameAncestor::parse("https://app.example.com").unwrap()],
            is_preview: false,
        };
        assert_eq!(PortalTerms::from_text(&terms.to_text()), Some(terms));
        assert_eq!(PortalTerms::from_text("{}"), None);
    }
}
