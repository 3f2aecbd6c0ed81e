//! The cookies of sessions.

use http::HeaderMap;
use http::HeaderValue;
use http::header::COOKIE;

use crate::site::Site;

/// The dashboard's cookie. Over https its prefix binds it to this host. Over plain http a cookie with `Secure` would
/// never come back, so it has neither.
pub fn name(site: &Site) -> &'static str {
    if site.is_https() { "__Host-postrider" } else { "postrider" }
}

/// The value of the cookie of this name that the browser sent.
pub fn read<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The header that keeps a session's token until the browser closes; the server ends the session earlier.
pub fn keep(site: &Site, token: &str) -> Option<HeaderValue> {
    set(site, token, "")
}

/// The header that removes it.
pub fn forget(site: &Site) -> Option<HeaderValue> {
    set(site, "", "; Max-Age=0")
}

/// The cookie of a portal session. Browsers return it in a frame of another site only when it is partitioned, which
/// needs https. Over plain http it comes back on pages of the same site.
pub fn portal_name(site: &Site) -> &'static str {
    if site.is_https() { "__Secure-portal" } else { "portal" }
}

/// The header that keeps the token of a portal session. `path` is the base of its pages: two sessions in two frames of
/// one page have one cookie jar.
pub fn keep_portal(site: &Site, path: &str, token: &str) -> Option<HeaderValue> {
    let rules = if site.is_https() { "Secure; HttpOnly; SameSite=None; Partitioned" } else { "HttpOnly; SameSite=Lax" };
    HeaderValue::from_str(&format!("{}={token}; Path={path}; {rules}", portal_name(site))).ok()
}

fn set(site: &Site, value: &str, age: &str) -> Option<HeaderValue> {
    let secure = if site.is_https() { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{age}{secure}", name(site))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("a=1; postrider=token; postrider2=x"))]);
        assert_eq!(read(&headers, "postrider"), Some("token"));
        assert_eq!(read(&headers, "postride"), None);
        assert_eq!(read(&HeaderMap::new(), "postrider"), None);
    }
}
