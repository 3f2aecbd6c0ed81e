//! The address of the caller behind proxies.
//!
//! Anyone can send `X-Forwarded-For` and `Forwarded`, so they count only when the peer is a trusted proxy. Each proxy
//! appends the address of its own peer. The rightmost address that is not a trusted proxy is therefore the caller.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{Extensions, HeaderMap, HeaderName};
use ipnet::IpNet;

use postrider_domain::caller::CallerAddress;
use postrider_domain::limits;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the caller, which the listener has put into the extensions of the request.
pub fn caller_address(extensions: &Extensions) -> Option<CallerAddress> {
    extensions.get().copied()
}

/// The address of the caller of a request from this peer.
pub(crate) fn find_caller(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> CallerAddress {
    let peer = peer.to_canonical();
    if !is_trusted(trusted, peer) {
        return CallerAddress(peer);
    }
    let fields =
        |name: &HeaderName| headers.contains_key(name).then(|| rightmost_untrusted(peer, headers, name, trusted));
    match (fields(&X_FORWARDED_FOR), fields(&FORWARDED)) {
        // A proxy maintains one of them. The caller may have sent the other, so neither counts when they differ.
        (Some(one), Some(other)) if one != other => CallerAddress(peer),
        (Some(found), _) | (None, Some(found)) => CallerAddress(found),
        (None, None) => CallerAddress(peer),
    }
}

fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// Walks from the peer to the left until an address is not trusted or cannot be read.
fn rightmost_untrusted(peer: IpAddr, headers: &HeaderMap, name: &HeaderName, trusted: &[IpNet]) -> IpAddr {
    let mut found = peer;
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    let items = values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    for item in items.take(limits::FORWARDED_ADDRESSES) {
        let text = std::str::from_utf8(item).unwrap_or_default().trim();
        let address = if *name == FORWARDED { forwarded_for(text) } else { parse_address(text) };
        let Some(address) = address else { break };
        found = address;
        if !is_trusted(trusted, address) {
            break;
        }
    }
    found
}

/// The `for` of one element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    parse_address(node.trim_matches('"'))
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: Option<IpAddr> = bracketed.unwrap_or(text).parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())).map(|found| found.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(peer: &str, fields: &[(&HeaderName, &'static str)]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        find_caller(peer.parse().unwrap(), &headers, &trusted).0.to_string()
    }

    #[test]
    fn headers_of_a_stranger_do_not_count() {
        let forged = [(&X_FORWARDED_FOR, "192.0.2.9"), (&FORWARDED, "for=192.0.2.9")];
        assert_eq!(found("198.51.100.1", &forged), "198.51.100.1");
        assert_eq!(found("::ffff:198.51.100.1", &forged), "198.51.100.1");
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_caller() {
        let x = |value| found("10.0.0.1", &[(&X_FORWARDED_FOR, value)]);
        assert_eq!(x("192.0.2.1"), "192.0.2.1");
        assert_eq!(x("203.0.113.7, 192.0.2.1"), "192.0.2.1");
        assert_eq!(x("203.0.113.7,192.0.2.1, 10.9.9.9"), "192.0.2.1");
        assert_eq!(x("10.1.1.1, 10.9.9.9"), "10.1.1.1");
        assert_eq!(x("192.0.2.1:4711"), "192.0.2.1");
        assert_eq!(x("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(x("192.0.2.1, unknown, 10.9.9.9"), "10.9.9.9");
        assert_eq!(x("nonsense"), "10.0.0.1");
        assert_eq!(x(""), "10.0.0.1");
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn several_fields_are_one_list() {
        let fields =
            [(&X_FORWARDED_FOR, "203.0.113.7"), (&X_FORWARDED_FOR, "192.0.2.1"), (&X_FORWARDED_FOR, "10.2.2.2")];
        assert_eq!(found("fd00::1", &fields), "192.0.2.1");
    }

    #[test]
    fn the_standard_header_counts_too() {
        let f = |value| found("10.0.0.1", &[(&FORWARDED, value)]);
        assert_eq!(f("for=192.0.2.1"), "192.0.2.1");
        assert_eq!(f("For=\"[2001:db8::1]:80\";proto=https"), "2001:db8::1");
        assert_eq!(f("for=203.0.113.7, by=10.0.0.1;for=192.0.2.1;proto=https, for=10.9.9.9"), "192.0.2.1");
        assert_eq!(f("for=_hidden"), "10.0.0.1");
        assert_eq!(f("proto=https"), "10.0.0.1");
    }

    #[test]
    fn two_headers_that_differ_do_not_count() {
        let both = |x, f| found("10.0.0.1", &[(&X_FORWARDED_FOR, x), (&FORWARDED, f)]);
        assert_eq!(both("192.0.2.1", "for=192.0.2.1"), "192.0.2.1");
        assert_eq!(both("192.0.2.1", "for=192.0.2.2"), "10.0.0.1");
    }

    #[test]
    fn a_long_list_is_read_from_the_right_only() {
        let long: &'static str = Box::leak(format!("192.0.2.1{}", ", 10.0.0.2".repeat(40)).into_boxed_str());
        assert_eq!(found("10.0.0.1", &[(&X_FORWARDED_FOR, long)]), "10.0.0.2");
    }
}
