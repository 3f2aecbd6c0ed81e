//! The cookie of a session.

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
