//! Why a target is, or is not, reachable: the same verdicts and connections as for a delivery, with a reason per
//! address.
//!
//! It is for operators: it shows more than a customer may see. It must not have rules of its own, and must not connect
//! to a target that is refused.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::address::{AddressClass, classify, is_bad_port};
use super::connector::{Connector, Probe};
use super::policy::TargetPolicy;
use super::resolver::{ResolveError, Resolver};
use super::rule::{AllowTarget, DenyTarget};
use super::target::{Host, Scheme, TargetUrl};
use postrider_domain::target::{RefusalReason, Requester};

/// The report on one target.
#[derive(Debug)]
pub struct Diagnosis {
    /// The port is one that usually serves another protocol than HTTP.
    pub odd_port: bool,
    pub look_up: Result<LookUp, ResolveError>,
    pub addresses: Vec<AddressReport>,
    /// For the target as a whole: one refused address refuses it.
    pub verdict: Result<(), RefusalReason>,
    /// The exceptions that would together allow the target. Empty if it is not refused, or denied.
    pub missing: Vec<AllowTarget>,
}

/// How the addresses were found.
#[derive(Clone, Copy, Debug)]
pub enum LookUp {
    /// The URL contains an address.
    Literal,
    Resolved {
        in_time: Duration,
    },
}

/// One address of the host.
#[derive(Debug)]
pub struct AddressReport {
    pub address: IpAddr,
    pub class: AddressClass,
    /// The operator's exception that allows it, whether or not it needs one.
    pub exception: Option<AllowTarget>,
    /// The operator's rule that forbids the host or this address.
    pub denial: Option<DenyTarget>,
    /// Present only if the whole target may be called.
    pub probe: Option<Probe>,
}

impl Diagnosis {
    /// Whether a delivery would get a connection.
    pub fn is_reachable(&self) -> bool {
        let works = |report: &AddressReport| report.probe.as_ref().is_some_and(|probe| probe.result.is_ok());
        self.verdict.is_ok() && self.addresses.iter().any(works)
    }
}

impl AddressReport {
    pub fn is_refused(&self) -> bool {
        self.denial.is_some() || self.class.refusal.is_some() && self.exception.is_none()
    }
}

/// Resolves and vets one target, and connects to each address if it is allowed.
pub(super) async fn diagnose(
    target: &TargetUrl,
    requester: Requester,
    policy: &TargetPolicy,
    resolver: &Resolver,
    connector: &Connector,
) -> Diagnosis {
    let (look_up, addresses) = look_up(target, resolver).await;
    let report = |&address: &IpAddr| report(target, requester, policy, address);
    let mut reports: Vec<AddressReport> = addresses.iter().map(report).collect();
    let verdict = policy.vet(target, &addresses, requester);
    let missing = match verdict {
        Ok(()) | Err(RefusalReason::Denied) => Vec::new(),
        Err(_) => missing_exceptions(target, &reports),
    };
    if verdict.is_ok() {
        for report in &mut reports {
            report.probe = Some(connector.probe(target, requester, report.address).await);
        }
    }
    Diagnosis { odd_port: is_bad_port(target.port()), look_up, addresses: reports, verdict, missing }
}

async fn look_up(target: &TargetUrl, resolver: &Resolver) -> (Result<LookUp, ResolveError>, Vec<IpAddr>) {
    let name = match target.host() {
        Host::Address(address) => return (Ok(LookUp::Literal), vec![*address]),
        Host::Name(name) => name,
    };
    let started = Instant::now();
    match resolver.resolve(name).await {
        Ok(addresses) => (Ok(LookUp::Resolved { in_time: started.elapsed() }), addresses),
        Err(error) => (Err(error), Vec::new()),
    }
}

fn report(target: &TargetUrl, requester: Requester, policy: &TargetPolicy, address: IpAddr) -> AddressReport {
    let exception = policy.exception_for(target, address, requester).cloned();
    let denial = policy.denial_of(target.host(), address).cloned();
    AddressReport { address, class: classify(address), exception, denial, probe: None }
}

/// Plain `http` and odd ports need an exception for every address. Otherwise only refused addresses need one.
fn missing_exceptions(target: &TargetUrl, reports: &[AddressReport]) -> Vec<AllowTarget> {
    let all = target.scheme() == Scheme::Http || is_bad_port(target.port());
    let lacks = |report: &&AddressReport| if all { report.exception.is_none() } else { report.is_refused() };
    reports.iter().filter(lacks).map(|report| AllowTarget::address(report.class.judged_as)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the missing exceptions, and asserts that the target passes with them.
    fn missing(url: &str, addresses: &[&str], given: &[&str]) -> Vec<String> {
        let target = TargetUrl::parse(url).unwrap();
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let given: Vec<AllowTarget> = given.iter().map(|text| text.parse().unwrap()).collect();
        let policy = TargetPolicy::new(given.clone(), Vec::new());
        let report = |&address: &IpAddr| report(&target, Requester::default(), &policy, address);
        let reports: Vec<_> = addresses.iter().map(report).collect();
        let missing = missing_exceptions(&target, &reports);
        let widened = TargetPolicy::new(given.into_iter().chain(missing.clone()).collect(), Vec::new());
        assert_eq!(widened.vet(&target, &addresses, Requester::default()), Ok(()), "{url} with {missing:?}");
        missing.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_missing_exceptions_are_exactly_those_that_it_needs() {
        assert_eq!(missing("https://a.example/", &["8.8.8.8", "10.0.0.1"], &[]), ["10.0.0.1"]);
        assert_eq!(missing("https://a.example/", &["127.0.0.1", "::1"], &["127.0.0.0/8"]), ["::1"]);
        assert_eq!(missing("http://a.example/", &["8.8.8.8", "10.0.0.1"], &["10.0.0.0/8"]), ["8.8.8.8"]);
        assert_eq!(missing("https://a.example:25/", &["8.8.8.8", "10.0.0.1"], &[]), ["8.8.8.8", "10.0.0.1"]);
        assert_eq!(missing("https://a.example/", &["64:ff9b::a00:1"], &[]), ["10.0.0.1"]);
    }
}
