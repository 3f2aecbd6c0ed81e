//! Which addresses, ports and schemes may be called: the IANA special-purpose registries in one table, and the
//! operator's exceptions.
//!
//! The verdict is a pure function, fast enough to be called again right before every connect. It must not resolve,
//! connect, log or read a clock.
//!
//! Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries, the IPv6 address space registry (only
//! `2000::/3` is assigned for public use), and the port list of the WHATWG Fetch standard.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::target::{Host, Scheme, TargetUrl};
use postrider_domain::target::RefusalReason;

/// One exception made by the operator (`--allow-target`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowTarget {
    /// Every address inside the block.
    Network(IpNet),
    /// Exactly this name, whatever it resolves to.
    Name(String),
}

/// The text is neither an address, nor a CIDR block, nor a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAllowTarget {
    #[error("is empty; give an address, a CIDR block like 10.0.0.0/8 or a host name")]
    Empty,
    #[error("{0:?} is not a CIDR block; write an address, a slash and a prefix length, like 10.0.0.0/8")]
    Network(String),
    #[error("{0:?} has bits set to the right of its prefix; did you mean {1}?")]
    HostBits(String, IpNet),
    #[error("{0:?} is not a host name or an address; give no scheme, port, path or wildcard")]
    Name(String),
}

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

/// The table of blocks and the operator's exceptions.
#[derive(Clone, Debug, Default)]
pub struct TargetPolicy {
    networks: Vec<IpNet>,
    names: Vec<String>,
}

impl TargetPolicy {
    pub fn new(rules: impl IntoIterator<Item = AllowTarget>) -> Self {
        let mut policy = Self::default();
        for rule in rules {
            match rule {
                AllowTarget::Network(network) => policy.networks.push(network),
                AllowTarget::Name(name) => policy.names.push(name),
            }
        }
        policy
    }

    /// Judges a target by all addresses of its host. One refused address refuses the target: the owner of the name also
    /// controls which address is tried first.
    ///
    /// # Errors
    /// - The class of the first address that may not be called.
    /// - [`RefusalReason::Unresolvable`] if there is no address.
    /// - `PlainHttp` or `Port`, unless the operator has allowed every address or the name.
    pub fn vet(&self, target: &TargetUrl, addresses: &[IpAddr]) -> Result<(), RefusalReason> {
        if addresses.is_empty() {
            return Err(RefusalReason::Unresolvable);
        }
        if self.allows_name(target.host()) {
            return Ok(());
        }
        for &address in addresses {
            self.vet_address(address)?;
        }
        if addresses.iter().all(|&address| self.allows_address(address)) {
            return Ok(());
        }
        if target.scheme() == Scheme::Http {
            return Err(RefusalReason::PlainHttp);
        }
        if is_bad_port(target.port()) {
            return Err(RefusalReason::Port);
        }
        Ok(())
    }

    /// Whether plain `http` can be allowed for this host. For a name that is not itself allowed, `true` means "perhaps"
    /// while any network is allowed: [`Self::vet`] knows whether all its addresses are inside one.
    pub fn may_allow_plain_http(&self, host: &Host) -> bool {
        match host {
            Host::Address(address) => self.allows_address(*address),
            Host::Name(_) => self.allows_name(host) || !self.networks.is_empty(),
        }
    }

    /// The operator's exception that allows an address of this host.
    pub fn exception_for(&self, host: &Host, address: IpAddr) -> Option<AllowTarget> {
        match host {
            Host::Name(name) if self.allows_name(host) => Some(AllowTarget::Name(name.to_string())),
            _ => self.network_around(address).map(AllowTarget::Network),
        }
    }

    fn vet_address(&self, address: IpAddr) -> Result<(), RefusalReason> {
        match refusal_of(address) {
            Some(reason) if !self.allows_address(address) => Err(reason),
            _ => Ok(()),
        }
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        self.network_around(address).is_some()
    }

    fn network_around(&self, address: IpAddr) -> Option<IpNet> {
        let canonical = canonical(address);
        let around = |network: &&IpNet| network.contains(&address) || network.contains(&canonical);
        self.networks.iter().find(around).copied()
    }

    fn allows_name(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.names.iter().any(|allowed| **allowed == **name),
            Host::Address(_) => false,
        }
    }
}

impl FromStr for AllowTarget {
    type Err = InvalidAllowTarget;

    fn from_str(text: &str) -> Result<Self, InvalidAllowTarget> {
        let text = text.trim();
        // A URL writes an IPv6 address, and nothing else, in brackets.
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = bracketed.filter(|inside| inside.contains(':')).unwrap_or(text);
        if bare.is_empty() {
            return Err(InvalidAllowTarget::Empty);
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        if bare.contains('/') {
            let network: IpNet = bare.parse().map_err(|_| InvalidAllowTarget::Network(text.to_owned()))?;
            if network.addr() != network.network() {
                return Err(InvalidAllowTarget::HostBits(text.to_owned(), network.trunc()));
            }
            return Ok(Self::Network(network));
        }
        // The parser of endpoint URLs, so that a name is normalised in the same way on both sides.
        match url::Host::parse(bare) {
            Ok(url::Host::Domain(name)) if !name.contains('*') => {
                Ok(Self::Name(name.strip_suffix('.').unwrap_or(&name).to_owned()))
            }
            Ok(url::Host::Ipv4(address)) => Ok(Self::Network(IpAddr::V4(address).into())),
            _ => Err(InvalidAllowTarget::Name(text.to_owned())),
        }
    }
}

/// As the operator writes it: a block of a single address is shown as the address.
impl fmt::Display for AllowTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
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
pub fn classify(address: IpAddr) -> AddressClass {
    let judged_as = canonical(address);
    let row = TABLE.iter().find(|(network, ..)| network.contains(&judged_as));
    let (block, refusal, source) = *row.expect("the last row of each family contains every address");
    AddressClass { judged_as, block, refusal, source }
}

/// The IPv4 address in an IPv4-mapped or NAT64 address. Any other address is returned as it is.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, high, low] = v6.segments();
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(w, x, y, z))
        }
        _ => address,
    }
}

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

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(a: u16, b: u16, c: u16, d: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn policy(rules: &[&str]) -> TargetPolicy {
        TargetPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()))
    }

    fn vet(policy: &TargetPolicy, url: &str, addresses: &[&str]) -> Result<(), RefusalReason> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
        policy.vet(&TargetUrl::parse(url).unwrap(), &addresses)
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

        #[test]
        fn parsing_an_exception_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<AllowTarget>();
        }
    }

    #[test]
    fn one_refused_address_refuses_the_target() {
        let policy = policy(&[]);
        assert_eq!(vet(&policy, "https://a.example/", &["8.8.8.8"]), Ok(()));
        assert_eq!(vet(&policy, "https://a.example/", &["8.8.8.8", "10.0.0.1"]), Err(RefusalReason::Private));
        assert_eq!(vet(&policy, "https://a.example/", &["2606:4700::1", "::1"]), Err(RefusalReason::Loopback));
        assert_eq!(vet(&policy, "https://a.example/", &[]), Err(RefusalReason::Unresolvable));
    }

    #[test]
    fn an_allowed_network_permits_only_addresses_inside_it() {
        let policy = policy(&["127.0.0.0/8", "[fd00::1]"]);
        assert_eq!(vet(&policy, "http://127.0.0.1:8080/", &["127.0.0.1"]), Ok(()));
        assert_eq!(vet(&policy, "https://a.example/", &["::ffff:127.0.0.1"]), Ok(()));
        assert_eq!(vet(&policy, "https://a.example/", &["fd00::1"]), Ok(()));
        assert_eq!(vet(&policy, "https://a.example/", &["fd00::2"]), Err(RefusalReason::Private));
        assert_eq!(vet(&policy, "https://a.example/", &["10.0.0.1"]), Err(RefusalReason::Private));
    }

    #[test]
    fn an_allowed_name_permits_all_its_addresses_and_no_other_name() {
        let policy = policy(&["Hooks.Local."]);
        assert_eq!(vet(&policy, "http://hooks.local:25/", &["10.0.0.1", "8.8.8.8"]), Ok(()));
        assert_eq!(vet(&policy, "https://hooks.local./", &["10.0.0.1"]), Ok(()));
        assert_eq!(vet(&policy, "https://a.hooks.local/", &["10.0.0.1"]), Err(RefusalReason::Private));
    }

    #[test]
    fn plain_http_and_odd_ports_need_every_address_to_be_allowed() {
        let policy = policy(&["127.0.0.0/8", "9.9.9.9"]);
        assert_eq!(vet(&policy, "http://a.example/", &["127.0.0.1", "9.9.9.9"]), Ok(()));
        assert_eq!(vet(&policy, "http://a.example/", &["127.0.0.1", "8.8.8.8"]), Err(RefusalReason::PlainHttp));
        assert_eq!(vet(&policy, "https://a.example:25/", &["8.8.8.8"]), Err(RefusalReason::Port));
        assert_eq!(vet(&policy, "https://a.example:25/", &["127.0.0.1"]), Ok(()));
        assert_eq!(vet(&policy, "https://a.example:8443/", &["8.8.8.8"]), Ok(()));
    }

    #[test]
    fn every_spelling_of_a_loopback_literal_is_refused() {
        let policy = policy(&[]);
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.1",
            "127.1",
            "127.0.0.1.",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:0001]",
            "[64:ff9b::127.0.0.1]",
            "[::1]",
            "１２７.0.0.1",
        ] {
            let target = TargetUrl::parse(&format!("https://{host}/")).unwrap();
            let Host::Address(address) = *target.host() else { panic!("{host} is not read as an address") };
            assert_eq!(policy.vet(&target, &[address]), Err(RefusalReason::Loopback), "{host}");
        }
    }

    #[test]
    fn every_spelling_of_the_metadata_service_is_refused() {
        use RefusalReason::{LinkLocal, Reserved};
        let policy = policy(&[]);
        for (host, reason) in [
            ("169.254.169.254", LinkLocal),
            ("2852039166", LinkLocal),
            ("0xa9fea9fe", LinkLocal),
            ("0xA9.0xFE.0xA9.0xFE", LinkLocal),
            ("0251.0376.0251.0376", LinkLocal),
            ("025177524776", LinkLocal),
            ("169.254.43518", LinkLocal),
            ("169.16689662", LinkLocal),
            ("169.254.169.254.", LinkLocal),
            ("%31%36%39.254.169.254", LinkLocal),
            ("169\u{3002}254\u{ff0e}169\u{ff61}254", LinkLocal),
            ("[::ffff:169.254.169.254]", LinkLocal),
            ("[::ffff:a9fe:a9fe]", LinkLocal),
            ("[64:ff9b::a9fe:a9fe]", LinkLocal),
            ("[64:ff9b:1::a9fe:a9fe]", Reserved),
            ("[64:ff9b:1:ffff:ffff:ffff:a9fe:a9fe]", Reserved),
            ("[::a9fe:a9fe]", Reserved),
            ("[::ffff:0:a9fe:a9fe]", Reserved),
            ("[2002:a9fe:a9fe::1]", Reserved),
            ("[2001:0:808:808:0:0:5601:5601]", Reserved),
        ] {
            let target = TargetUrl::parse(&format!("https://{host}/")).unwrap();
            let Host::Address(address) = *target.host() else { panic!("{host} is not read as an address") };
            assert_eq!(policy.vet(&target, &[address]), Err(reason), "{host}");
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
    fn an_exception_is_an_address_a_block_or_a_name_only() {
        for good in ["127.0.0.0/8", "10.0.0.1", "::1", "[::1]", "fd00::/8", "hooks.local", "hooks.local.", "0x7f.1"] {
            assert!(good.parse::<AllowTarget>().is_ok(), "{good}");
        }
        for bad in ["", "  ", "10.0.0.0/33", "10.0.0.1/8", "http://a", "a:80", "a/b", "*.a", "[a]", "a b"] {
            assert!(bad.parse::<AllowTarget>().is_err(), "{bad}");
        }
        let hint = "10.0.0.1/8".parse::<AllowTarget>().unwrap_err().to_string();
        assert!(hint.ends_with("did you mean 10.0.0.0/8?"), "{hint}");
    }

    #[test]
    fn the_port_list_is_sorted_for_its_search() {
        assert!(BAD_PORTS.is_sorted());
    }
}
