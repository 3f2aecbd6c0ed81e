//! What an address is: the IANA special-purpose registries in one table, and the ports of other protocols.
//!
//! It judges addresses alone. The operator's rules are in `rule`, the verdict on a target in `policy`. It must not
//! resolve, connect, log or read a clock.
//!
//! Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries, the IPv6 address space registry (only
//! `2000::/3` is assigned for public use), and the port list of the WHATWG Fetch standard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use postrider_domain::target::RefusalReason;

/// The table's verdict on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressClass {
    /// The IPv4 address embedded in it, or the address itself.
    pub judged_as: IpAddr,
    /// The block of the table that contains it.
    pub block: IpNet,
    /// `None` for a public address.
    pub refusal: Option<RefusalReason>,
    /// What the block is for, and the document that says so.
    pub source: &'static str,
}

/// Whether a port may be called only if the operator allows the target.
pub fn is_bad_port(port: u16) -> bool {
    BAD_PORTS.binary_search(&port).is_ok()
}

/// Why an address may not be called, or `None` when it is public.
pub fn refusal_of(address: IpAddr) -> Option<RefusalReason> {
    classify(address).refusal
}

/// The row of the table that decides about an address.
///
/// ISATAP is the one entry that no prefix describes: its interface identifier marks it, in any network.
pub fn classify(address: IpAddr) -> AddressClass {
    let judged_as = canonical(address);
    let row = TABLE.iter().find(|(network, ..)| network.contains(&judged_as));
    let (block, refusal, source) = *row.expect("the last row of each family contains every address");
    if refusal.is_none() && is_isatap(judged_as) {
        let source = "ISATAP: leads to the IPv4 address inside it, RFC 5214";
        return AddressClass { judged_as, block: judged_as.into(), refusal: RESERVED, source };
    }
    AddressClass { judged_as, block, refusal, source }
}

/// Whether the operator can allow this address only by a rule for it alone: link-local and metadata addresses, and
/// addresses that lead to one. Credentials of the machine are often kept there, and a block includes them unnoticed.
pub fn needs_exact_rule(address: IpAddr) -> bool {
    let is_listed = |address: &IpAddr| EXACT_ONLY.iter().any(|block| block.contains(address));
    is_listed(&canonical(address)) || embedded_v4(address).any(|v4| is_listed(&v4.into()))
}

/// The IPv4 address in an IPv4-mapped or NAT64 address. Any other address is returned as it is.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => last_four_octets(v6).into(),
        _ => address,
    }
}

/// Every IPv4 address to which a translator or a tunnel may forward this IPv6 address.
pub(super) fn embedded_v4(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let mut found = [None; 2];
    if let IpAddr::V6(v6) = address {
        let last = last_four_octets(v6);
        let octets = v6.octets();
        found = match v6.segments() {
            [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                [Some(last), None]
            }
            // A local prefix of NAT64 may have any length of RFC 6052 from /48 to /96. The two ends are the usual ones.
            [0x64, 0xff9b, 1, ..] => [Some(last), Some(Ipv4Addr::new(octets[6], octets[7], octets[9], octets[10]))],
            [0x2002, ..] => [Some(Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5])), None],
            [0x2001, 0, ..] => [Some(Ipv4Addr::from(!u32::from(last))), None],
            _ if is_isatap(address) => [Some(last), None],
            _ => found,
        };
    }
    found.into_iter().flatten()
}

fn last_four_octets(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// The interface identifier is `0000:5efe` and an IPv4 address. The bits for "universal" and "group" may be set.
fn is_isatap(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return false };
    let segments = v6.segments();
    segments[4] & 0xfcff == 0 && segments[5] == 0x5efe
}

/// IPv4-mapped IPv6 addresses.
pub(super) const MAPPED: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));

/// See [`needs_exact_rule`].
const EXACT_ONLY: &[IpNet] = &[
    v4(169, 254, 0, 0, 16),
    v4(168, 63, 129, 16, 32),
    v4(100, 100, 100, 200, 32),
    v6(0xfe80, 0, 0, 0, 10),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128)),
];

const PUBLIC: Option<RefusalReason> = None;
const CGNAT: Option<RefusalReason> = Some(RefusalReason::Cgnat);
const LINK_LOCAL: Option<RefusalReason> = Some(RefusalReason::LinkLocal);
const LOOPBACK: Option<RefusalReason> = Some(RefusalReason::Loopback);
const MULTICAST: Option<RefusalReason> = Some(RefusalReason::Multicast);
const PRIVATE: Option<RefusalReason> = Some(RefusalReason::Private);
const RESERVED: Option<RefusalReason> = Some(RefusalReason::Reserved);
const UNSPECIFIED: Option<RefusalReason> = Some(RefusalReason::Unspecified);

type BlockRow = (IpNet, Option<RefusalReason>, &'static str);

/// The first row that contains an address decides. The last row of each family contains every address.
///
/// The registries mark a few anycast services inside reserved blocks as globally reachable (192.0.0.9, 2001:1::1, AMT,
/// AS112, ORCHIDv2, DRIP). They are refused too: none of them can be a webhook receiver, and the nearest instance may
/// be in the operator's own network.
const TABLE: &[BlockRow] = &[
    (v4(0, 0, 0, 0, 32), UNSPECIFIED, "\"this host\", RFC 1122"),
    (v4(0, 0, 0, 0, 8), RESERVED, "\"this network\", RFC 791"),
    (v4(10, 0, 0, 0, 8), PRIVATE, "private use, RFC 1918"),
    (v4(100, 64, 0, 0, 10), CGNAT, "shared address space, RFC 6598"),
    (v4(127, 0, 0, 0, 8), LOOPBACK, "loopback, RFC 1122"),
    // The registry counts this address as public.
    (v4(168, 63, 129, 16, 32), RESERVED, "the platform's metadata service on Azure"),
    (v4(169, 254, 0, 0, 16), LINK_LOCAL, "link local, cloud metadata among it, RFC 3927"),
    (v4(172, 16, 0, 0, 12), PRIVATE, "private use, RFC 1918"),
    (v4(192, 0, 0, 0, 24), RESERVED, "IETF protocol assignments, RFC 6890"),
    (v4(192, 0, 2, 0, 24), RESERVED, "documentation (TEST-NET-1), RFC 5737"),
    (v4(192, 31, 196, 0, 24), RESERVED, "AS112, RFC 7535"),
    (v4(192, 52, 193, 0, 24), RESERVED, "AMT, RFC 7450"),
    (v4(192, 88, 99, 0, 24), RESERVED, "6to4 relays, deprecated, RFC 7526"),
    (v4(192, 168, 0, 0, 16), PRIVATE, "private use, RFC 1918"),
    (v4(192, 175, 48, 0, 24), RESERVED, "AS112, direct delegation, RFC 7534"),
    (v4(198, 18, 0, 0, 15), RESERVED, "benchmarking, RFC 2544"),
    (v4(198, 51, 100, 0, 24), RESERVED, "documentation (TEST-NET-2), RFC 5737"),
    (v4(203, 0, 113, 0, 24), RESERVED, "documentation (TEST-NET-3), RFC 5737"),
    (v4(224, 0, 0, 0, 4), MULTICAST, "multicast, RFC 5771"),
    (v4(240, 0, 0, 0, 4), RESERVED, "future use and broadcast, RFC 1112"),
    (v4(0, 0, 0, 0, 0), PUBLIC, "public"),
    (v6(0, 0, 0, 0, 128), UNSPECIFIED, "unspecified, RFC 4291"),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)), LOOPBACK, "loopback, RFC 4291"),
    (v6(0, 0, 0, 0, 96), RESERVED, "IPv4-compatible, deprecated, RFC 4291"),
    (
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96)),
        RESERVED,
        "IPv4-translated, RFC 2765",
    ),
    (v6(0x64, 0xff9b, 1, 0, 48), RESERVED, "local-use NAT64: leads to an IPv4 address inside it, RFC 8215"),
    (v6(0x100, 0, 0, 0, 64), RESERVED, "discard only, RFC 6666"),
    (v6(0x100, 0, 0, 1, 64), RESERVED, "dummy prefix, RFC 9780"),
    (v6(0x2001, 0, 0, 0, 32), RESERVED, "Teredo: leads to an IPv4 address inside it, RFC 4380"),
    (v6(0x2001, 0, 0, 0, 23), RESERVED, "protocol assignments: benchmarking, ORCHID and others, RFC 2928"),
    (v6(0x2001, 0xdb8, 0, 0, 32), RESERVED, "documentation, RFC 3849"),
    (v6(0x2002, 0, 0, 0, 16), RESERVED, "6to4: leads to the IPv4 address inside it, RFC 3056"),
    (v6(0x2620, 0x4f, 0x8000, 0, 48), RESERVED, "AS112, direct delegation, RFC 7534"),
    (v6(0x3fff, 0, 0, 0, 20), RESERVED, "documentation, RFC 9637"),
    (v6(0x2000, 0, 0, 0, 3), PUBLIC, "public"),
    (v6(0x5f00, 0, 0, 0, 16), RESERVED, "segment routing (SRv6) SIDs, RFC 9602"),
    (v6(0xfc00, 0, 0, 0, 7), PRIVATE, "unique local, RFC 4193"),
    (v6(0xfe80, 0, 0, 0, 10), LINK_LOCAL, "link local, RFC 4291"),
    (v6(0xfec0, 0, 0, 0, 10), PRIVATE, "site local, deprecated, RFC 3879"),
    (v6(0xff00, 0, 0, 0, 8), MULTICAST, "multicast, RFC 4291"),
    (v6(0, 0, 0, 0, 0), RESERVED, "outside 2000::/3, the only space that is assigned for public use"),
];

/// Ports of other protocols, whose servers could execute the body of a request as commands. It is the list of the Fetch
/// standard, sorted, plus a few text-based protocols.
const BAD_PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211,
];

pub(super) const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

pub(super) const fn v6(a: u16, b: u16, c: u16, d: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_class_of_address_has_its_reason() {
        use RefusalReason::{Cgnat, LinkLocal, Loopback, Multicast, Private, Reserved, Unspecified};
        for (text, reason) in [
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Reserved),
            ("10.1.2.3", Private),
            ("100.64.0.1", Cgnat),
            ("100.100.100.200", Cgnat),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("168.63.129.16", Reserved),
            ("169.254.169.254", LinkLocal),
            ("172.31.255.255", Private),
            ("192.0.0.192", Reserved),
            ("192.168.1.1", Private),
            ("198.19.255.255", Reserved),
            ("239.1.1.1", Multicast),
            ("255.255.255.255", Reserved),
            ("::", Unspecified),
            ("::1", Loopback),
            ("::7f00:1", Reserved),
            ("::ffff:0:7f00:1", Reserved),
            ("::ffff:10.0.0.1", Private),
            ("64:ff9b::a00:1", Private),
            ("64:ff9b:1::1", Reserved),
            ("100::1", Reserved),
            ("2001::1", Reserved),
            ("2001:1::1", Reserved),
            ("2001:20::1", Reserved),
            ("2001:db8::1", Reserved),
            ("2002:a00:1::1", Reserved),
            ("2002:808:808::1", Reserved),
            ("3fff::1", Reserved),
            ("4000::1", Reserved),
            ("5f00::1", Reserved),
            ("fd00:ec2::254", Private),
            ("fe80::1", LinkLocal),
            ("fec0::1", Private),
            ("ff02::1", Multicast),
            ("2606:4700::5efe:a00:1", Reserved),
            ("2606:4700::200:5efe:808:808", Reserved),
            ("fe80::5efe:a00:1", LinkLocal),
        ] {
            assert_eq!(refusal_of(ip(text)), Some(reason), "{text}");
        }
    }

    #[test]
    fn addresses_next_to_a_refused_block_are_public() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700:4700::1111",
            "3fff:1000::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2606:4700::1:5efe:808:808",
            "2606:4700::5eff:808:808",
        ] {
            assert_eq!(refusal_of(ip(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_address_of_a_refused_block_is_refused(row in 0..TABLE.len(), bits: u128) {
            let (network, verdict, _) = TABLE[row];
            prop_assume!(verdict.is_some() && network.prefix_len() > 0);
            let address = match network {
                IpNet::V4(net) => {
                    let host = u32::try_from(bits & u128::from(u32::MAX)).unwrap() & u32::from(net.hostmask());
                    IpAddr::V4((u32::from(net.network()) | host).into())
                }
                IpNet::V6(net) => {
                    IpAddr::V6((u128::from(net.network()) | (bits & u128::from(net.hostmask()))).into())
                }
            };
            prop_assert!(refusal_of(address).is_some(), "{address} of {network}");
        }

        #[test]
        fn an_embedded_ipv4_address_has_the_verdict_of_the_plain_one(bits: u32) {
            let plain = Ipv4Addr::from(bits);
            let nat64 = Ipv6Addr::from((0x0064_ff9b_u128 << 96) | u128::from(bits));
            prop_assert_eq!(refusal_of(plain.to_ipv6_mapped().into()), refusal_of(plain.into()));
            prop_assert_eq!(refusal_of(nat64.into()), refusal_of(plain.into()));
            let compatible = Ipv6Addr::from(u128::from(bits));
            let six_to_four = Ipv6Addr::from((0x2002_u128 << 112) | (u128::from(bits) << 80) | 1);
            let teredo = Ipv6Addr::from((0x2001_0000_u128 << 96) | u128::from(!bits));
            for address in [compatible, six_to_four, teredo] {
                prop_assert!(refusal_of(address.into()).is_some(), "{}", address);
            }
        }

        #[test]
        fn nothing_outside_the_assigned_unicast_space_is_public(bits: u128) {
            let address = Ipv6Addr::from(bits);
            prop_assume!(bits >> 125 != 1);
            prop_assume!(canonical(address.into()).is_ipv6());
            prop_assert!(refusal_of(address.into()).is_some(), "{}", address);
        }
    }

    #[test]
    fn every_block_of_both_registries_is_refused() {
        // Every entry of both IANA special-purpose registries, except the two whose addresses embed an IPv4 address.
        for block in [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "::/128",
            "::1/128",
            "64:ff9b:1::/48",
            "100::/64",
            "100:0:0:1::/64",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "2620:4f:8000::/48",
            "3fff::/20",
            "5f00::/16",
            "fc00::/7",
            "fe80::/10",
        ] {
            let network: IpNet = block.parse().unwrap();
            for address in [network.network(), network.broadcast()] {
                let class = classify(address);
                assert!(class.refusal.is_some() && !class.source.is_empty(), "{block}: {class:?}");
            }
        }
    }

    #[test]
    fn a_class_names_the_deciding_block_and_its_purpose() {
        let class = classify(ip("64:ff9b::a00:1"));
        assert_eq!((class.judged_as, class.block.to_string()), (ip("10.0.0.1"), "10.0.0.0/8".to_owned()));
        assert_eq!((class.refusal, class.source), (Some(RefusalReason::Private), "private use, RFC 1918"));
        assert_eq!(classify(ip("2001:0:1::1")).block.to_string(), "2001::/32");
        assert_eq!(classify(ip("8.8.8.8")).refusal, None);
    }

    #[test]
    fn metadata_addresses_need_an_exact_rule_in_every_spelling() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "168.63.129.16",
            "100.100.100.200",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::1",
            "2001:0:808:808:0:0:5601:5601",
            "fd12::5efe:a9fe:a9fe",
        ] {
            assert!(needs_exact_rule(ip(text)), "{text}");
        }
        for text in ["169.253.255.255", "100.100.100.201", "fd00:ec2::253", "10.0.0.1", "2606:4700::1", "fec0::1"] {
            assert!(!needs_exact_rule(ip(text)), "{text}");
        }
    }

    #[test]
    fn the_port_list_is_sorted_for_its_search() {
        assert!(BAD_PORTS.is_sorted());
    }
}
