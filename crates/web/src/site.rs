//! What all pages share.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, Uri};

use tokio_util::sync::CancellationToken;

use postrider_domain::portal_look::PortalLook;
use postrider_service::Service;

use crate::live::Streams;
use crate::portal::PortalTheme;

/// A setting as its page shows it, without any secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSetting {
    pub name: &'static str,
    pub help: &'static str,
    pub value: String,
    /// The flag, variable or file that it comes from.
    pub source: String,
    pub default: String,
    /// It concerns the whole server with all its workspaces: its store, or whom it may call.
    pub is_of_server: bool,
}

/// The state of the pages' router.
pub struct Site {
    pub service: Arc<Service>,
    /// Scheme, host and port of the public URL, as a browser writes them into `Origin`.
    pub origin: String,
    /// The path of the public URL, without a slash at the end. A proxy may strip it or not: the pages answer with it
    /// and without it, and their links have it.
    pub prefix: String,
    /// The settings that the server runs with, for the page that shows them.
    pub settings: Vec<ShownSetting>,
    /// How the portal looks.
    pub portal: PortalTheme,
    /// The streams of pages that are open.
    pub streams: Arc<Streams>,
    /// Whether the public URL was set. Without it the server guesses from its own address.
    pub has_public_url: bool,
}

impl Site {
    /// `public_url` is where browsers reach this server, without a slash at the end. Streams end when `stop` is
    /// cancelled.
    pub fn new(
        service: Arc<Service>,
        public_url: &str,
        has_public_url: bool,
        settings: Vec<ShownSetting>,
        look: &PortalLook,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let url: Uri = public_url.parse().unwrap_or_default();
        let scheme = url.scheme_str().unwrap_or("http");
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let authority = match scheme {
            "https" => authority.strip_suffix(":443").unwrap_or(authority),
            _ => authority.strip_suffix(":80").unwrap_or(authority),
        };
        let origin = format!("{scheme}://{authority}").to_ascii_lowercase();
        let prefix = url.path().trim_end_matches('/').to_owned();
        let (portal, streams) = (PortalTheme::new(look), Streams::new(stop));
        Arc::new(Self { service, origin, prefix, settings, portal, streams, has_public_url })
    }

    /// The brand as a title.
    pub fn brand(&self) -> &str {
        self.service.catalogue().brand.title()
    }

    /// Path and query as the browser has them, with the prefix that a proxy may have stripped.
    pub fn path_in_browser(&self, uri: &Uri) -> String {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if path.starts_with(&format!("{}/", self.prefix)) { path.to_owned() } else { format!("{}{path}", self.prefix) }
    }

    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }

    /// Whether the browser of this request treats its origin as trustworthy: over https, and on loopback. Without a
    /// public URL only the request says by which name it came, because the server may listen on every address of the
    /// machine.
    pub fn is_trustworthy(&self, headers: &HeaderMap) -> bool {
        let asked = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|_| !self.has_public_url);
        self.is_https() || is_loopback(asked.unwrap_or(self.host()))
    }

    /// Whether [`Self::is_trustworthy`] can be true for a request.
    pub fn may_be_trustworthy(&self) -> bool {
        self.is_https() || !self.has_public_url || is_loopback(self.host())
    }

    /// Host and port of the public URL.
    pub fn host(&self) -> &str {
        self.origin.split_once("://").map_or("", |(_, host)| host)
    }
}

/// Whether a host, with or without a port, is this machine by every reading.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let is_ipv4 = name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback());
    is_ipv4 || name == "[::1]" || name.eq_ignore_ascii_case("localhost")
}
