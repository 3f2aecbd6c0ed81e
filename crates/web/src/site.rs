//! What all pages share.

use std::sync::Arc;

use http::Uri;

use postrider_service::Service;

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
    /// Whether the public URL was set. Without it the server guesses from its own address.
    pub has_public_url: bool,
}

impl Site {
    /// `public_url` is where browsers reach this server, without a slash at the end.
    pub fn new(
        service: Arc<Service>,
        public_url: &str,
        has_public_url: bool,
        settings: Vec<ShownSetting>,
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
        Arc::new(Self { service, origin, prefix, settings, has_public_url })
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

    /// Whether browsers treat the origin as trustworthy: over https, and on loopback.
    pub fn is_trustworthy(&self) -> bool {
        let host = self.origin.split_once("://").map_or("", |(_, host)| host);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.is_https() || name == "localhost" || name.starts_with("127.") || name == "[::1]"
    }
}
