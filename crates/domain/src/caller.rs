//! The address from which a request came.

use std::net::{IpAddr, Ipv6Addr};

/// The caller's address. The front door puts it into the extensions of each request: the peer's address, or the one
/// that a trusted proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerAddress(pub IpAddr);

/// The addresses that one caller can be assumed to have: an IPv4 address, or a /64 of IPv6, of which a caller can use
/// any address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressBlock(IpAddr);

impl AddressBlock {
    pub const fn of(address: CallerAddress) -> Self {
        Self(match address.0.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !(u64::MAX as u128))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_an_ipv4_address_or_64_bits_of_ipv6() {
        let block = |text: &str| AddressBlock::of(CallerAddress(text.parse().unwrap()));
        assert_eq!(block("2001:db8::1"), block("2001:db8:0:0:ffff::2"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_eq!(block("192.0.2.1"), block("::ffff:192.0.2.1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
    }
}
