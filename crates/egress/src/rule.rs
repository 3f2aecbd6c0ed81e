//! The operator's rules about targets: what `--allow-target` and `--deny-target` permit and forbid.
//!
//! A rule is parsed once and then matched. It must not judge a target as a whole: `policy` does, with all rules.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::address::{canonical, embedded_v4, needs_exact_rule};
use super::target::{Host, Scheme, TargetUrl};
use postrider_domain::id::{EndpointId, WorkspaceId};
use postrider_domain::limits;
use postrider_domain::target::Requester;

/// One exception made by the operator (`--allow-target`): `[scheme://]host[:port][=workspace:org_…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowTarget {
    hosts: RuleHosts,
    /// `None`: `http` and `https`.
    scheme: Option<Scheme>,
    /// `None`: every port.
    port: Option<u16>,
    holder: RuleHolder,
}

/// A target that is never called, whatever is allowed (`--deny-target`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyTarget(RuleHosts);

/// The hosts that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RuleHosts {
    /// Every address inside the block.
    Network(IpNet),
    /// Exactly this name, whatever it resolves to.
    Name(String),
}

/// For whom a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleHolder {
    Everybody,
    Workspace(WorkspaceId),
    /// The operator webhook.
    Endpoint(EndpointId),
}

/// The text is not a rule, or the rule is too wide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTargetRule {
    #[error("is empty; give an address, a CIDR block like 10.0.0.0/8 or a host name")]
    Empty,
    #[error("{0:?} is not a CIDR block; write an address, a slash and a prefix length, like 10.0.0.0/8")]
    Network(String),
    #[error("{0:?} has bits set to the right of its prefix; did you mean {1}?")]
    HostBits(String, IpNet),
    #[error("{0:?} is not a host name or an address; give no path, credentials or wildcard")]
    Name(String),
    #[error("{0:?} is not a scheme; write http:// or https://, or neither for both")]
    Scheme(String),
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    #[error("{0:?} does not name a workspace; write workspace:org_… with the id of the workspace")]
    Holder(String),
    #[error(
        "{0} is too wide; the shortest prefix is /{v4} for IPv4, /{v6} for IPv6, and /7 inside fc00::/7",
        v4 = limits::ALLOWED_V4_PREFIX_MIN, v6 = limits::ALLOWED_V6_PREFIX_MIN
    )]
    TooWide(IpNet),
    #[error("{0} is a block of link-local addresses, which are allowed one by one; name the exact address")]
    LinkLocalBlock(IpNet),
    #[error("has a scheme, a port or a workspace; a denied target is denied for every one of them")]
    Qualified,
}

impl AllowTarget {
    /// A rule for exactly this address, with any scheme and any port.
    pub fn address(address: IpAddr) -> Self {
        let hosts = RuleHosts::Network(canonical(address).into());
        Self { hosts, scheme: None, port: None, holder: RuleHolder::Everybody }
    }

    /// A rule for scheme, host and port of this target, for one endpoint alone.
    pub(super) fn for_endpoint(target: &TargetUrl, endpoint: EndpointId) -> Self {
        Self {
            hosts: RuleHosts::of(target.host()),
            scheme: Some(target.scheme()),
            port: Some(target.port()),
            holder: RuleHolder::Endpoint(endpoint),
        }
    }

    pub(super) fn holder(&self) -> RuleHolder {
        self.holder
    }

    /// Whether the rule holds for this scheme, port and requester.
    pub(super) fn covers(&self, scheme: Scheme, port: u16, requester: Requester) -> bool {
        let for_them = match self.holder {
            RuleHolder::Everybody => true,
            RuleHolder::Workspace(workspace) => requester.workspace == Some(workspace),
            RuleHolder::Endpoint(endpoint) => requester.endpoint == Some(endpoint),
        };
        let for_port = self.port.is_none_or(|own| own == port);
        for_them && for_port && self.scheme.is_none_or(|own| own == scheme)
    }

    /// Whether the rule permits this address of this host.
    pub(super) fn permits(&self, host: &Host, address: IpAddr) -> bool {
        match &self.hosts {
            RuleHosts::Name(_) => self.may_permit(host) && !needs_exact_rule(address),
            RuleHosts::Network(network) => {
                let is_exact = network.prefix_len() == network.max_prefix_len();
                let contains = network.contains(&address) || network.contains(&canonical(address));
                contains && (is_exact || !needs_exact_rule(address))
            }
        }
    }

    /// Whether the rule may permit an address of this host: always possible for a block and a name.
    pub(super) fn may_permit(&self, host: &Host) -> bool {
        match (&self.hosts, host) {
            (RuleHosts::Name(own), Host::Name(name)) => **own == **name,
            (RuleHosts::Name(_), Host::Address(_)) => false,
            (RuleHosts::Network(_), Host::Name(_)) => true,
            (RuleHosts::Network(_), Host::Address(address)) => self.permits(host, *address),
        }
    }
}

impl DenyTarget {
    /// Whether the rule forbids this host because of its name or of this address. An IPv6 address that leads to a
    /// denied IPv4 address is denied too.
    pub(super) fn forbids(&self, host: &Host, address: IpAddr) -> bool {
        match (&self.0, host) {
            (RuleHosts::Name(own), Host::Name(name)) => **own == **name,
            (RuleHosts::Name(_), Host::Address(_)) => false,
            (RuleHosts::Network(network), _) => {
                let leads_there = || embedded_v4(address).any(|v4| network.contains(&IpAddr::V4(v4)));
                network.contains(&address) || network.contains(&canonical(address)) || leads_there()
            }
        }
    }
}

impl RuleHosts {
    fn of(host: &Host) -> Self {
        match host {
            Host::Name(name) => Self::Name(name.to_string()),
            Host::Address(address) => Self::Network(canonical(*address).into()),
        }
    }

    fn parse(text: &str) -> Result<Self, InvalidTargetRule> {
        if text.is_empty() {
            return Err(InvalidTargetRule::Empty);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        if text.contains('/') {
            let network: IpNet = text.parse().map_err(|_| InvalidTargetRule::Network(text.to_owned()))?;
            if network.addr() != network.network() {
                return Err(InvalidTargetRule::HostBits(text.to_owned(), network.trunc()));
            }
            return Ok(Self::Network(as_v4(network)));
        }
        // The parser of endpoint URLs, so that a name is normalised in the same way on both sides.
        match url::Host::parse(text) {
            Ok(url::Host::Domain(name)) if !name.contains('*') => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                if name.is_empty() || name.split('.').any(str::is_empty) {
                    return Err(InvalidTargetRule::Name(text.to_owned()));
                }
                Ok(Self::Name(name.to_owned()))
            }
            Ok(url::Host::Ipv4(address)) => Ok(Self::Network(IpAddr::V4(address).into())),
            _ => Err(InvalidTargetRule::Name(text.to_owned())),
        }
    }

    /// Whether the operator may allow as much with one rule.
    fn check_width(&self) -> Result<(), InvalidTargetRule> {
        let Self::Network(network) = self else { return Ok(()) };
        let shortest = match network {
            IpNet::V4(_) => limits::ALLOWED_V4_PREFIX_MIN,
            IpNet::V6(network) if UNIQUE_LOCAL.contains(&IpNet::V6(*network)) => 0,
            IpNet::V6(_) => limits::ALLOWED_V6_PREFIX_MIN,
        };
        let is_block = network.prefix_len() < network.max_prefix_len();
        if is_block && LINK_LOCAL.iter().any(|link_local| link_local.contains(network)) {
            return Err(InvalidTargetRule::LinkLocalBlock(*network));
        }
        if network.prefix_len() < shortest {
            return Err(InvalidTargetRule::TooWide(*network));
        }
        Ok(())
    }
}

const UNIQUE_LOCAL: IpNet = super::address::v6(0xfc00, 0, 0, 0, 7);
const LINK_LOCAL: [IpNet; 2] = [super::address::v4(169, 254, 0, 0, 16), super::address::v6(0xfe80, 0, 0, 0, 10)];
/// Blocks of IPv6 that are IPv4: mapped addresses and the well-known prefix of NAT64.
const V4_IN_V6: [IpNet; 2] = [super::address::MAPPED, super::address::v6(0x64, 0xff9b, 0, 0, 96)];

/// The IPv4 block that an IPv6 block stands for, so that its width counts as that of the IPv4 block.
fn as_v4(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    if !V4_IN_V6.iter().any(|block| block.contains(&network)) {
        return network;
    }
    match canonical(IpAddr::V6(v6.addr())) {
        IpAddr::V4(address) => Ipv4Net::new(address, v6.prefix_len() - 96).map_or(network, IpNet::V4),
        IpAddr::V6(_) => network,
    }
}

impl FromStr for AllowTarget {
    type Err = InvalidTargetRule;

    fn from_str(text: &str) -> Result<Self, InvalidTargetRule> {
        let RuleText { scheme, host, port, holder } = RuleText::parse(text.trim())?;
        let hosts = RuleHosts::parse(host)?;
        hosts.check_width()?;
        Ok(Self { hosts, scheme, port, holder })
    }
}

impl FromStr for DenyTarget {
    type Err = InvalidTargetRule;

    fn from_str(text: &str) -> Result<Self, InvalidTargetRule> {
        match RuleText::parse(text.trim())? {
            RuleText { scheme: None, host, port: None, holder: RuleHolder::Everybody } => {
                RuleHosts::parse(host).map(Self)
            }
            _ => Err(InvalidTargetRule::Qualified),
        }
    }
}

/// The parts of a rule's text.
struct RuleText<'a> {
    scheme: Option<Scheme>,
    host: &'a str,
    port: Option<u16>,
    holder: RuleHolder,
}

impl<'a> RuleText<'a> {
    fn parse(text: &'a str) -> Result<Self, InvalidTargetRule> {
        let (target, holder) = match text.rsplit_once('=') {
            Some((target, holder)) => (target, parse_holder(holder)?),
            None => (text, RuleHolder::Everybody),
        };
        let (scheme, rest) = match target.split_once("://") {
            Some((scheme, rest)) => (Some(parse_scheme(scheme)?), rest),
            None => (None, target),
        };
        // Brackets enclose an IPv6 address as in a URL, or an IPv6 block that a port follows.
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, after)) if inside.contains(':') => (inside, parse_port(after.strip_prefix(':'), after)?),
            _ if rest.matches(':').count() == 1 => {
                let (host, port) = rest.split_once(':').unwrap_or((rest, ""));
                (host, parse_port(Some(port), port)?)
            }
            _ => (rest, None),
        };
        Ok(Self { scheme, host, port, holder })
    }
}

fn parse_scheme(text: &str) -> Result<Scheme, InvalidTargetRule> {
    match text.to_ascii_lowercase().as_str() {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        _ => Err(InvalidTargetRule::Scheme(text.to_owned())),
    }
}

fn parse_port(digits: Option<&str>, shown: &str) -> Result<Option<u16>, InvalidTargetRule> {
    if digits.is_none() && shown.is_empty() {
        return Ok(None);
    }
    let number = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    match number.and_then(|digits| digits.parse().ok()) {
        Some(port) if port > 0 => Ok(Some(port)),
        _ => Err(InvalidTargetRule::Port(shown.to_owned())),
    }
}

fn parse_holder(text: &str) -> Result<RuleHolder, InvalidTargetRule> {
    let id = text.strip_prefix("workspace:").and_then(|id| id.parse().ok());
    id.map(RuleHolder::Workspace).ok_or_else(|| InvalidTargetRule::Holder(text.to_owned()))
}

/// As the operator writes it: a block of a single address is shown as the address.
impl fmt::Display for AllowTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{scheme}://")?;
        }
        match (&self.hosts, self.port) {
            (RuleHosts::Network(IpNet::V6(_)), Some(port)) => write!(f, "[{}]:{port}", self.hosts)?,
            (_, Some(port)) => write!(f, "{}:{port}", self.hosts)?,
            (_, None) => write!(f, "{}", self.hosts)?,
        }
        match self.holder {
            RuleHolder::Everybody => Ok(()),
            RuleHolder::Workspace(workspace) => write!(f, "=workspace:{workspace}"),
            RuleHolder::Endpoint(endpoint) => write!(f, " for the endpoint {endpoint} alone"),
        }
    }
}

impl fmt::Display for DenyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RuleHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allow(text: &str) -> Result<AllowTarget, InvalidTargetRule> {
        text.parse()
    }

    #[test]
    fn a_rule_is_a_host_with_a_scheme_port_and_workspace() {
        for good in [
            "127.0.0.0/8",
            "10.0.0.1",
            "::1",
            "[::1]",
            "fd00::/8",
            "fc00::/7",
            "2001:db8::/32",
            "hooks.local",
            "hooks.local.",
            "0x7f.1",
            "http://10.1.2.3:9000",
            "https://hooks.local",
            "10.20.0.0/16:9000",
            "[fd00::1]:9000",
            "http://[fd00::/8]:9000",
            "10.20.0.0/16=workspace:org_aaaaaaaaaaaaaaaa",
            "http://hooks.local:9000=workspace:org_aaaaaaaaaaaaaaaa",
            "169.254.169.254",
            "169.254.169.254/32",
            "fe80::1",
        ] {
            assert!(allow(good).is_ok(), "{good}: {:?}", allow(good));
        }
        for bad in [
            "",
            "  ",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "ftp://a",
            "http://",
            "http://a/",
            "a:0",
            "a:+80",
            "a:65536",
            "a:",
            "u@a",
            "a/b",
            "*.a",
            "[a]",
            "[::1",
            "[::1]80",
            "a b",
            "a..b",
            "a=",
            "a=workspace:acme",
            "a=project:p",
            "=workspace:org_aaaaaaaaaaaaaaaa",
        ] {
            assert!(allow(bad).is_err(), "{bad}: {:?}", allow(bad));
        }
        let hint = allow("10.0.0.1/8").unwrap_err().to_string();
        assert!(hint.ends_with("did you mean 10.0.0.0/8?"), "{hint}");
    }

    #[test]
    fn a_rule_is_shown_as_it_is_written() {
        for text in [
            "10.1.2.3",
            "http://10.1.2.3:9000",
            "10.20.0.0/16:9000=workspace:org_aaaaaaaaaaaaaaaa",
            "https://[fd00::1]:9000",
            "hooks.local:25",
        ] {
            assert_eq!(allow(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_prefix_that_is_too_short_is_refused_in_every_spelling() {
        for wide in [
            "0.0.0.0/0",
            "0.0.0.0/7",
            "10.0.0.0/7",
            "::/0",
            "2000::/31",
            "2000::/3",
            "8000::/1",
            "::ffff:0:0/96",
            "::ffff:0.0.0.0/103",
            "64:ff9b::/96",
            "64:ff9b::/103",
        ] {
            assert!(matches!(allow(wide), Err(InvalidTargetRule::TooWide(_))), "{wide}: {:?}", allow(wide));
        }
        for narrow in ["10.0.0.0/8", "2001:db8::/32", "fc00::/7", "::ffff:10.0.0.0/104", "64:ff9b::a00:0/104"] {
            assert!(allow(narrow).is_ok(), "{narrow}");
        }
        for block in ["169.254.0.0/16", "169.254.169.254/31", "fe80::/10", "fe80::/64", "::ffff:169.254.0.0/112"] {
            assert!(matches!(allow(block), Err(InvalidTargetRule::LinkLocalBlock(_))), "{block}: {:?}", allow(block));
        }
    }

    #[test]
    fn a_denied_target_is_a_name_an_address_or_any_block() {
        for good in ["0.0.0.0/0", "203.0.113.0/24", "64:ff9b::/96", "hooks.local", "8.8.8.8", "[::1]"] {
            assert!(good.parse::<DenyTarget>().is_ok(), "{good}");
        }
        for bad in ["", "http://a", "a:80", "a=workspace:org_aaaaaaaaaaaaaaaa", "a/b"] {
            assert!(bad.parse::<DenyTarget>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_rule_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<AllowTarget>();
            let _ = text.parse::<DenyTarget>();
        }
    }
}
