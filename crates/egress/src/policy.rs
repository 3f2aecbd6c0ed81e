//! Whether a target may be called: the table of addresses, and the operator's rules.
//!
//! The verdict is a pure function, fast enough to be called again right before every connect. It must not resolve,
//! connect, log or read a clock.

use std::net::IpAddr;
use std::sync::OnceLock;

use super::address::{is_bad_port, refusal_of};
use super::rule::{AllowTarget, DenyTarget, RuleHolder};
use super::target::{Host, Scheme, TargetUrl};
use postrider_domain::id::{EndpointId, WorkspaceId};
use postrider_domain::target::{RefusalReason, Requester};

/// The operator's rules, applied to the table of addresses.
#[derive(Clone, Debug, Default)]
pub struct TargetPolicy {
    allowed: Vec<AllowTarget>,
    denied: Vec<DenyTarget>,
    /// The endpoint of the operator webhook, and the rule for it alone.
    operator_webhook: OnceLock<(EndpointId, AllowTarget)>,
}

/// The requesters for whom the same rules hold. Connections and TLS sessions are shared only inside one scope, so that
/// a connection which was opened under a rule for one workspace never serves another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleScope {
    /// Only rules that hold for everybody.
    Everybody,
    /// A workspace with rules of its own.
    Workspace(WorkspaceId),
    /// The operator webhook.
    Endpoint(EndpointId),
}

impl TargetPolicy {
    pub fn new(allowed: Vec<AllowTarget>, denied: Vec<DenyTarget>) -> Self {
        Self { allowed, denied, operator_webhook: OnceLock::new() }
    }

    /// Allows scheme, host and port of the operator webhook for its endpoint alone. Once set it stays: the settings of
    /// a process do not change.
    pub fn allow_operator_webhook(&self, target: &TargetUrl, endpoint: EndpointId) {
        let _first = self.operator_webhook.get_or_init(|| (endpoint, AllowTarget::for_endpoint(target, endpoint)));
    }

    /// Judges a target by all addresses of its host. One refused address refuses the target: the owner of the name also
    /// controls which address is tried first.
    ///
    /// # Errors
    /// - `Denied` if the operator forbids the name or an address.
    /// - The class of the first address that may not be called.
    /// - [`RefusalReason::Unresolvable`] if there is no address.
    /// - `PlainHttp` or `Port`, unless a rule allows it for each of the addresses.
    pub fn vet(&self, target: &TargetUrl, addresses: &[IpAddr], requester: Requester) -> Result<(), RefusalReason> {
        if addresses.is_empty() {
            return Err(RefusalReason::Unresolvable);
        }
        for &address in addresses {
            if self.denial_of(target.host(), address).is_some() {
                return Err(RefusalReason::Denied);
            }
        }
        let is_allowed = |address| self.exception_for(target, address, requester).is_some();
        for &address in addresses {
            match refusal_of(address) {
                Some(reason) if !is_allowed(address) => return Err(reason),
                _ => {}
            }
        }
        let needs_rule = target.scheme() == Scheme::Http || is_bad_port(target.port());
        if !needs_rule || addresses.iter().all(|&address| is_allowed(address)) {
            return Ok(());
        }
        if target.scheme() == Scheme::Http { Err(RefusalReason::PlainHttp) } else { Err(RefusalReason::Port) }
    }

    /// Whether plain `http` can be allowed for this target. For a name that is not itself allowed, `true` means
    /// "perhaps" while a block is allowed: [`Self::vet`] knows whether all its addresses are inside one.
    pub fn may_allow_plain_http(&self, target: &TargetUrl, requester: Requester) -> bool {
        self.rules_for(target, requester).any(|rule| rule.may_permit(target.host()))
    }

    /// The operator's exception that allows an address of this target.
    pub fn exception_for(&self, target: &TargetUrl, address: IpAddr, requester: Requester) -> Option<&AllowTarget> {
        self.rules_for(target, requester).find(|rule| rule.permits(target.host(), address))
    }

    /// The operator's rule that forbids this host, or this address of it.
    pub fn denial_of(&self, host: &Host, address: IpAddr) -> Option<&DenyTarget> {
        self.denied.iter().find(|rule| rule.forbids(host, address))
    }

    /// Whose connections a requester may share.
    pub fn scope_of(&self, requester: Requester) -> RuleScope {
        if let Some((endpoint, _)) = self.operator_webhook.get()
            && requester.endpoint == Some(*endpoint)
        {
            return RuleScope::Endpoint(*endpoint);
        }
        match requester.workspace {
            Some(workspace) if self.has_rules_of(workspace) => RuleScope::Workspace(workspace),
            _ => RuleScope::Everybody,
        }
    }

    fn has_rules_of(&self, workspace: WorkspaceId) -> bool {
        self.allowed.iter().any(|rule| rule.holder() == RuleHolder::Workspace(workspace))
    }

    fn rules_for(&self, target: &TargetUrl, requester: Requester) -> impl Iterator<Item = &AllowTarget> {
        let (scheme, port) = (target.scheme(), target.port());
        let rules = self.allowed.iter().chain(self.operator_webhook.get().map(|(_, rule)| rule));
        rules.filter(move |rule| rule.covers(scheme, port, requester))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: Requester = Requester { workspace: Some(WorkspaceId::from_letters([b'a'; 16])), endpoint: None };
    const OTHER: Requester = Requester { workspace: Some(WorkspaceId::from_letters([b'b'; 16])), endpoint: None };

    fn policy(rules: &[&str]) -> TargetPolicy {
        TargetPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect(), Vec::new())
    }

    fn vet_as(policy: &TargetPolicy, requester: Requester, url: &str, addresses: &[&str]) -> Result<(), RefusalReason> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        policy.vet(&TargetUrl::parse(url).unwrap(), &addresses, requester)
    }

    fn vet(policy: &TargetPolicy, url: &str, addresses: &[&str]) -> Result<(), RefusalReason> {
        vet_as(policy, Requester::default(), url, addresses)
    }

    #[test]
    fn a_rule_with_a_port_and_a_scheme_permits_these_alone() {
        let policy = policy(&["http://10.1.2.3:9000", "https://10.1.2.4", "hooks.local:6379"]);
        assert_eq!(vet(&policy, "http://10.1.2.3:9000/", &["10.1.2.3"]), Ok(()));
        assert_eq!(vet(&policy, "http://a.example:9000/", &["10.1.2.3"]), Ok(()));
        for url in ["http://10.1.2.3:9001/", "http://10.1.2.3/", "https://10.1.2.3:9000/"] {
            assert_eq!(vet(&policy, url, &["10.1.2.3"]), Err(RefusalReason::Private), "{url}");
        }
        assert_eq!(vet(&policy, "https://10.1.2.4:8443/", &["10.1.2.4"]), Ok(()));
        assert_eq!(vet(&policy, "http://10.1.2.4/", &["10.1.2.4"]), Err(RefusalReason::Private));
        assert_eq!(vet(&policy, "http://hooks.local:6379/", &["10.0.0.1"]), Ok(()));
        assert_eq!(vet(&policy, "https://hooks.local/", &["10.0.0.1"]), Err(RefusalReason::Private));
    }

    #[test]
    fn a_rule_for_one_workspace_permits_nothing_to_another() {
        let policy = policy(&["10.0.0.0/8=workspace:org_aaaaaaaaaaaaaaaa"]);
        assert_eq!(vet_as(&policy, ACME, "http://10.0.0.1/", &["10.0.0.1"]), Ok(()));
        for requester in [OTHER, Requester::default()] {
            assert_eq!(vet_as(&policy, requester, "http://10.0.0.1/", &["10.0.0.1"]), Err(RefusalReason::Private));
            let target = TargetUrl::parse("http://10.0.0.1/").unwrap();
            assert!(!policy.may_allow_plain_http(&target, requester));
            assert_eq!(policy.scope_of(requester), RuleScope::Everybody);
        }
        assert_ne!(policy.scope_of(ACME), RuleScope::Everybody);
    }

    #[test]
    fn the_operator_webhook_is_allowed_for_its_endpoint_alone() {
        let policy = policy(&[]);
        let endpoint = EndpointId::from_letters([b'o'; 16]);
        let operator = Requester { endpoint: Some(endpoint), ..ACME };
        policy.allow_operator_webhook(&TargetUrl::parse("http://10.0.0.1:9000/in").unwrap(), endpoint);
        assert_eq!(vet_as(&policy, operator, "http://10.0.0.1:9000/other", &["10.0.0.1"]), Ok(()));
        for url in ["http://10.0.0.1:9001/", "https://10.0.0.1:9000/", "http://10.0.0.1/"] {
            assert_eq!(vet_as(&policy, operator, url, &["10.0.0.1"]), Err(RefusalReason::Private), "{url}");
        }
        assert_eq!(vet_as(&policy, ACME, "http://10.0.0.1:9000/", &["10.0.0.1"]), Err(RefusalReason::Private));
        assert_eq!(policy.scope_of(ACME), RuleScope::Everybody);
        assert_eq!(policy.scope_of(operator), RuleScope::Endpoint(endpoint));
    }

    #[test]
    fn metadata_needs_a_rule_for_the_exact_address() {
        let wide = policy(&["100.64.0.0/10", "168.63.0.0/16", "fd00::/8", "hooks.local", "64:ff9b:1::/48"]);
        for (address, reason) in [
            ("100.100.100.200", RefusalReason::Cgnat),
            ("168.63.129.16", RefusalReason::Reserved),
            ("fd00:ec2::254", RefusalReason::Private),
            ("169.254.169.254", RefusalReason::LinkLocal),
            ("fe80::1", RefusalReason::LinkLocal),
            ("64:ff9b:1::a9fe:a9fe", RefusalReason::Reserved),
        ] {
            assert_eq!(vet(&wide, "http://hooks.local/", &[address]), Err(reason), "{address}");
            assert_eq!(vet(&wide, "http://a.example/", &[address]), Err(reason), "{address}");
            let exact = policy(&[address]);
            assert_eq!(vet(&exact, "http://a.example/", &[address]), Ok(()), "{address}");
        }
        assert_eq!(vet(&wide, "http://a.example/", &["fd00:ec2::253"]), Ok(()));
    }

    #[test]
    fn a_denied_target_is_refused_whatever_is_allowed() {
        let allowed = ["10.0.0.0/8", "hooks.local", "8.8.8.8"].map(|rule| rule.parse().unwrap()).to_vec();
        let denied = ["10.1.0.0/16", "evil.example", "8.8.8.8", "2001:db8:64::/96", "9.9.9.0/24"];
        let policy = TargetPolicy::new(allowed, denied.map(|rule| rule.parse().unwrap()).to_vec());
        for (url, address) in [
            ("http://10.1.2.3/", "10.1.2.3"),
            ("http://hooks.local/", "10.1.2.3"),
            ("https://evil.example/", "1.1.1.1"),
            ("https://Evil.Example./", "1.1.1.1"),
            ("https://a.example/", "8.8.8.8"),
            ("https://a.example/", "2001:db8:64::808:808"),
            ("https://a.example/", "9.9.9.9"),
            ("https://a.example/", "64:ff9b::909:909"),
            ("https://a.example/", "2002:909:909::1"),
        ] {
            assert_eq!(vet(&policy, url, &[address]), Err(RefusalReason::Denied), "{url} {address}");
        }
        assert_eq!(vet(&policy, "https://a.example/", &["1.1.1.1", "8.8.8.8"]), Err(RefusalReason::Denied));
        assert_eq!(vet(&policy, "http://10.2.0.1/", &["10.2.0.1"]), Ok(()));
        assert_eq!(vet(&policy, "https://a.evil.example/", &["1.1.1.1"]), Ok(()));
    }

    #[test]
    fn the_operator_webhook_can_be_denied() {
        let policy = TargetPolicy::new(Vec::new(), vec!["10.0.0.1".parse().unwrap()]);
        let endpoint = EndpointId::from_letters([b'o'; 16]);
        let operator = Requester { endpoint: Some(endpoint), ..ACME };
        policy.allow_operator_webhook(&TargetUrl::parse("http://10.0.0.1:9000/in").unwrap(), endpoint);
        assert_eq!(vet_as(&policy, operator, "http://10.0.0.1:9000/in", &["10.0.0.1"]), Err(RefusalReason::Denied));
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
            assert_eq!(policy.vet(&target, &[address], Requester::default()), Err(RefusalReason::Loopback), "{host}");
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
            assert_eq!(policy.vet(&target, &[address], Requester::default()), Err(reason), "{host}");
        }
    }
}
