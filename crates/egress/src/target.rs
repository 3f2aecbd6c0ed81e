//! A webhook's URL, parsed once: proof that it has a scheme, a host and a port, and the parts that every request needs.
//!
//! It exists so that the hot path neither parses nor allocates. Whether the target *may* be called is decided in
//! `policy`.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use url::Url;

/// An `http` or `https` URL with a host, split into the parts of a request.
#[derive(Clone, Debug)]
pub struct TargetUrl {
    url: Url,
    origin: Arc<Origin>,
    host_hash: u64,
    authority: HeaderValue,
    origin_form: Uri,
    absolute_form: Uri,
    server_name: ServerName<'static>,
}

/// Two URLs share connections if their scheme, host and port are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// A host as the URL standard parses it.
///
/// - A name is in lower case, with IDNA applied and without the final dot.
/// - An address is an address in every spelling. An IPv4-mapped IPv6 address is the IPv4 address in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(Arc<str>),
    Address(IpAddr),
}

/// The URL cannot be called, whatever addresses its host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTargetUrl {
    #[error("must be an absolute URL")]
    Syntax,
    #[error("must be an http or https URL")]
    Scheme,
    #[error("must have a host that can be a DNS name or an address")]
    Host,
    #[error("must not contain credentials")]
    Credentials,
}

impl TargetUrl {
    /// # Errors
    /// When the text is not an absolute `http` or `https` URL with a host and without credentials.
    pub fn parse(text: &str) -> Result<Self, InvalidTargetUrl> {
        Self::from_url(Url::parse(text).map_err(|_| InvalidTargetUrl::Syntax)?)
    }

    /// # Errors
    /// As [`Self::parse`]. A fragment is dropped: HTTP never sends it.
    pub fn from_url(url: Url) -> Result<Self, InvalidTargetUrl> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(InvalidTargetUrl::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidTargetUrl::Credentials);
        }
        let host = Host::of(&url).ok_or(InvalidTargetUrl::Host)?;
        let server_name = match &host {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| InvalidTargetUrl::Host)?,
        };
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let origin_form = Uri::try_from(path).map_err(|_| InvalidTargetUrl::Syntax)?;
        let absolute = format!("{}://{authority}{path}", url.scheme());
        let absolute_form = Uri::try_from(absolute).map_err(|_| InvalidTargetUrl::Syntax)?;
        let port = url.port_or_known_default().ok_or(InvalidTargetUrl::Scheme)?;
        let origin = Arc::new(Origin { scheme, host, port });
        Ok(Self {
            authority: HeaderValue::try_from(authority).map_err(|_| InvalidTargetUrl::Host)?,
            host_hash: origin.host.hash_for_sharding(),
            url,
            origin,
            origin_form,
            absolute_form,
            server_name,
        })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn scheme(&self) -> Scheme {
        self.origin.scheme
    }

    pub fn host(&self) -> &Host {
        &self.origin.host
    }

    pub fn port(&self) -> u16 {
        self.origin.port
    }

    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The value of `Host`: without the port if it is the scheme's default.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Path and query, the request target of HTTP/1.1.
    pub fn origin_form(&self) -> &Uri {
        &self.origin_form
    }

    /// The whole URL. HTTP/2 takes its pseudo-headers from it.
    pub fn absolute_form(&self) -> &Uri {
        &self.absolute_form
    }

    /// The name that the peer's certificate must be valid for.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    pub(super) fn host_hash(&self) -> u64 {
        self.host_hash
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl Host {
    /// The URL's host, unless it is missing or empty.
    pub fn of(url: &Url) -> Option<Self> {
        match url.host()? {
            url::Host::Ipv4(address) => Some(Self::Address(address.into())),
            url::Host::Ipv6(address) => Some(Self::Address(IpAddr::V6(address).to_canonical())),
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                (!name.is_empty()).then(|| Self::Name(name.into()))
            }
        }
    }

    /// Equal for equal hosts within one process. Not stable across processes.
    pub(super) fn hash_for_sharding(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_the_parts_of_a_request() {
        let target = TargetUrl::parse("https://Hooks.Example.:8443/a%20b?x=1#part").unwrap();
        assert_eq!(target.authority(), "hooks.example:8443");
        assert_eq!(target.origin_form().to_string(), "/a%20b?x=1");
        assert_eq!(target.absolute_form().to_string(), "https://hooks.example:8443/a%20b?x=1");
        assert_eq!(target.port(), 8443);
        assert_eq!(target.server_name().to_str(), "hooks.example");
    }

    #[test]
    fn the_default_port_of_the_scheme_is_left_out() {
        let target = TargetUrl::parse("http://hooks.example:80").unwrap();
        assert_eq!(target.authority(), "hooks.example");
        assert_eq!(target.origin_form().to_string(), "/");
        assert_eq!(target.port(), 80);
    }

    #[test]
    fn an_address_is_an_address_and_a_mapped_one_is_unmapped() {
        let mapped = TargetUrl::parse("https://[::ffff:1.2.3.4]/").unwrap();
        assert_eq!(*mapped.host(), Host::Address("1.2.3.4".parse().unwrap()));
        assert_eq!(mapped.authority(), "1.2.3.4");
        let v6 = TargetUrl::parse("https://[2606:4700::1]:444/").unwrap();
        assert_eq!(v6.authority(), "[2606:4700::1]:444");
    }

    #[test]
    fn names_with_underscores_or_idna_are_hosts() {
        for text in [
            "https://a_b.example/",
            "https://_hook.example/",
            "https://xn--bcher-kva.example/",
            "https://b\u{fc}cher.example/",
        ] {
            assert!(TargetUrl::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_called_is_refused() {
        for (text, fault) in [
            ("/path", InvalidTargetUrl::Syntax),
            ("ftp://a.example/", InvalidTargetUrl::Scheme),
            ("https://u:p@a.example/", InvalidTargetUrl::Credentials),
            ("https://./", InvalidTargetUrl::Host),
            ("https://a..b/", InvalidTargetUrl::Host),
        ] {
            assert_eq!(TargetUrl::parse(text).unwrap_err(), fault, "{text}");
        }
    }
}
