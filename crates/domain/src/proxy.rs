//! The URL of the operator's forward proxy. Its credentials must never be printed.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use url::{Host, Url};
use zeroize::Zeroizing;

/// `http://[user:password@]host:port`: a proxy that supports `CONNECT`.
#[derive(Clone)]
pub struct ProxyUrl {
    host: Host,
    port: u16,
    /// `user:password`, decoded.
    credentials: Option<Zeroizing<String>>,
}

/// The text is not such a URL. The error does not repeat it, since it may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a proxy like http://proxy.internal:3128 or http://user:password@proxy.internal:3128")]
pub struct InvalidProxyUrl;

impl ProxyUrl {
    /// # Errors
    /// When the scheme is not `http`, the host or port is missing, or there is a path, query or fragment.
    pub fn parse(text: &str) -> Result<Self, InvalidProxyUrl> {
        let url = Url::parse(text).map_err(|_| InvalidProxyUrl)?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !bare {
            return Err(InvalidProxyUrl);
        }
        let host = url.host().ok_or(InvalidProxyUrl)?.to_owned();
        let port = url.port_or_known_default().filter(|port| *port > 0).ok_or(InvalidProxyUrl)?;
        let password = url.password().unwrap_or_default();
        let credentials = match url.username() {
            "" if url.password().is_none() => None,
            user => Some(Zeroizing::new(format!("{}:{}", *decoded(user)?, *decoded(password)?))),
        };
        Ok(Self { host, port, credentials })
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of `Proxy-Authorization`, if there are credentials.
    pub fn authorization(&self) -> Option<Zeroizing<String>> {
        let credentials = self.credentials.as_ref()?;
        Some(Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(credentials.as_bytes()))))
    }
}

/// The URL without its credentials.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

/// Decodes percent-encoding.
fn decoded(text: &str) -> Result<Zeroizing<String>, InvalidProxyUrl> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, left) = match (first, tail) {
            (b'%', [high, low, left @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).map_err(|_| InvalidProxyUrl)?;
                (u8::from_str_radix(digits, 16).map_err(|_| InvalidProxyUrl)?, left)
            }
            (b'%', _) => return Err(InvalidProxyUrl),
            (byte, left) => (*byte, left),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes.to_vec()).map(Zeroizing::new).map_err(|_| InvalidProxyUrl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_a_host_a_port_and_optional_credentials() {
        let plain = ProxyUrl::parse("http://proxy.internal:3128").unwrap();
        assert_eq!((plain.host().to_string().as_str(), plain.port()), ("proxy.internal", 3128));
        assert!(plain.authorization().is_none());
        assert_eq!(ProxyUrl::parse("http://[::1]/").unwrap().to_string(), "http://[::1]:80");
        let named = ProxyUrl::parse("http://al%3Aice:p%40ss%20word@10.0.0.1:8080/").unwrap();
        let expected = BASE64_STANDARD.encode("al:ice:p@ss word");
        assert_eq!(named.authorization().unwrap().as_str(), format!("Basic {expected}"));
        let lonely = ProxyUrl::parse("http://token@10.0.0.1:8080").unwrap();
        assert_eq!(lonely.authorization().unwrap().as_str(), format!("Basic {}", BASE64_STANDARD.encode("token:")));
    }

    #[test]
    fn credentials_are_never_printed() {
        let proxy = ProxyUrl::parse("http://alice:hunter2@proxy.internal:3128").unwrap();
        assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy.internal:3128 ProxyUrl(http://proxy.internal:3128)");
        assert!(!InvalidProxyUrl.to_string().contains("hunter2"));
    }

    #[test]
    fn any_other_url_is_refused() {
        for text in [
            "",
            "proxy.internal:3128",
            "https://proxy.internal:3128",
            "socks5://proxy.internal:1080",
            "http://",
            "http://proxy.internal:0",
            "http://proxy.internal:3128/path",
            "http://proxy.internal:3128/?a",
            "http://proxy.internal:3128/#a",
            "http://a:%zz@proxy.internal:3128",
        ] {
            assert!(ProxyUrl::parse(text).is_err(), "{text}");
        }
    }
}
