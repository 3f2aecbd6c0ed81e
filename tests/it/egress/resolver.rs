//! Name servers that fail, refuse and keep silent: who is asked next, and who is at fault.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use postrider_domain::limits;
use postrider_domain::target::{RefusalReason, Requester, TargetGuard, VettingError};
use postrider_egress::{Egress, EgressSettings, ResolveError, SendError};
use tokio::time::Instant;
use url::Url;

use super::{NOON, SHORT, egress, loopback_settings, post, post_within, reason, requester, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::{Receiver, ReservedPort};

/// Sockets of one look-up: of both families, one for each datagram, which is repeated twice because it may be lost.
/// They are closed before the server is asked again, which happens twice.
const SOCKETS_PER_LOOK_UP: usize = 6;

async fn asking(servers: &[&DnsServer]) -> Egress {
    let dns_servers = servers.iter().map(|server| server.address()).collect();
    egress(EgressSettings { dns_servers, ..loopback_settings() }, &ManualClock::new(NOON))
}

async fn vet(egress: &Egress, name: &str) -> Result<(), VettingError> {
    egress.vet(&Url::parse(&format!("https://{name}/")).unwrap(), Requester::default()).await
}

#[tokio::test]
async fn a_server_that_cannot_say_does_not_outvote_one_that_can() {
    let receiver = Receiver::start().await;
    for failing in [Answer::ServFail, Answer::Refused, Answer::Silent] {
        let (first, second) = (DnsServer::start().await, DnsServer::start().await);
        for name in ["hooks.test", "nowhere.test"] {
            first.set(name, failing.clone());
        }
        second.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
        let egress = asking(&[&first, &second]).await;
        assert_eq!(status(&post(&egress, &receiver.url_at("hooks.test", "/")).await), 200, "{failing:?}");
        assert_eq!(reason(vet(&egress, "nowhere.test").await), Some(RefusalReason::Unresolvable));
    }
}

#[tokio::test]
async fn an_answer_counts_also_when_it_says_no() {
    let (first, second) = (DnsServer::start().await, DnsServer::start().await);
    second.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = asking(&[&first, &second]).await;
    assert_eq!(reason(vet(&egress, "hooks.test").await), Some(RefusalReason::Unresolvable));
    assert_eq!(second.queries("hooks.test"), 0);
}

#[tokio::test]
async fn a_name_at_which_all_servers_fail_is_at_fault() {
    let (first, second) = (DnsServer::start().await, DnsServer::start().await);
    for server in [&first, &second] {
        server.set("hooks.test", Answer::ServFail);
    }
    let exchange = post(&asking(&[&first, &second]).await, "https://hooks.test/").await;
    assert!(matches!(exchange.result, Err(SendError::Dns(ResolveError::Failed))), "{exchange:?}");
}

#[tokio::test]
async fn servers_that_all_refuse_or_are_gone_are_our_fault() {
    let refusing = DnsServer::start().await;
    refusing.set("hooks.test", Answer::Refused);
    let closed = ReservedPort::reserve();
    let dns_servers = vec![closed.address(), refusing.address()];
    let egress = egress(EgressSettings { dns_servers, ..loopback_settings() }, &ManualClock::new(NOON));
    assert_eq!(vet(&egress, "hooks.test").await, Err(VettingError::NoNameServer));
    let exchange = post(&egress, "https://hooks.test/").await;
    assert!(matches!(exchange.result, Err(SendError::Dns(ResolveError::Unavailable))), "{exchange:?}");
}

#[tokio::test]
async fn silence_is_a_names_fault_if_others_are_answered() {
    let server = DnsServer::start().await;
    server.set("silent.test", Answer::Silent);
    server.set("loud.test", Answer::addresses(&["127.0.0.1"]));
    let egress = asking(&[&server]).await;
    assert_eq!(vet(&egress, "silent.test").await, Err(VettingError::NoNameServer));
    let cut = post_within(&egress, "https://silent.test/", Duration::from_millis(200)).await;
    assert!(matches!(cut.result, Err(SendError::Dns(ResolveError::Unavailable))), "{cut:?}");
    vet(&egress, "loud.test").await.unwrap();
    assert_eq!(reason(vet(&egress, "silent.test").await), Some(RefusalReason::Unresolvable));
}

#[tokio::test]
async fn look_ups_of_one_name_are_joined() {
    let server = DnsServer::start().await;
    server.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = asking(&[&server]).await;
    let url = Url::parse("https://hooks.test/").unwrap();
    let vettings = join_all((0..150).map(|letter| egress.vet(&url, requester(b'a', letter)))).await;
    assert!(vettings.iter().all(Result::is_ok));
    assert_eq!(server.queries("hooks.test"), 2, "one of each family");
}

/// More names than may be looked up at once.
fn many_silent_names(server: &DnsServer) -> Vec<String> {
    let names: Vec<String> = (0..150).map(|number| format!("silent-{number}.test")).collect();
    assert!(names.len() > 2 * limits::LOOK_UPS_AT_ONCE);
    for name in &names {
        server.set(name, Answer::Silent);
    }
    names
}

#[tokio::test]
async fn look_ups_of_many_names_take_turns() {
    let server = DnsServer::start().await;
    let names = many_silent_names(&server);
    let egress = asking(&[&server]).await;
    let started = Instant::now();
    // Three endpoints of each name, which share one look-up.
    let calls: Vec<_> = (0..3).flat_map(|endpoint| names.iter().map(move |name| (name, endpoint))).collect();
    let vettings = join_all(calls.iter().map(async |&(name, endpoint)| {
        let url = Url::parse(&format!("https://{name}/")).unwrap();
        (egress.vet(&url, requester(b'a', endpoint)).await, Instant::now())
    }));
    let vettings = vettings.await;
    let took = started.elapsed();
    assert!(took < limits::LOOK_UP_TIMEOUT + Duration::from_secs(2), "{took:?}");
    // A look-up has ended when the first of its callers has the outcome.
    let mut ends: HashMap<&String, Instant> = HashMap::new();
    for ((name, _), (_, end)) in calls.iter().zip(&vettings) {
        ends.entry(*name).and_modify(|first| *first = (*first).min(*end)).or_insert(*end);
    }
    assert!(vettings.iter().all(|(verdict, _)| *verdict == Err(VettingError::NoNameServer)));

    let datagrams = server.datagrams();
    let (mut begun, mut most) = (HashSet::new(), 0);
    for datagram in &datagrams {
        begun.insert(&datagram.name);
        most = most.max(begun.iter().filter(|name| ends[**name] > datagram.arrived).count());
    }
    assert_eq!(most, limits::LOOK_UPS_AT_ONCE, "look-ups under way at a time");
    for name in &names {
        let own = datagrams.iter().filter(|datagram| datagram.name == *name);
        let sockets: HashSet<_> = own.map(|datagram| datagram.client).collect();
        assert!(sockets.len() <= 3 * SOCKETS_PER_LOOK_UP, "{} sockets for {name}", sockets.len());
    }
}

#[tokio::test]
async fn a_name_that_had_no_turn_is_not_charged() {
    let server = DnsServer::start().await;
    let names = many_silent_names(&server);
    server.set("loud.test", Answer::addresses(&["127.0.0.1"]));
    let egress = asking(&[&server]).await;
    vet(&egress, "loud.test").await.unwrap();
    let late = format!("https://{}/", names[names.len() - 1]);
    let vettings = join_all(names.iter().map(|name| vet(&egress, name)));
    let (verdicts, cut) = tokio::join!(vettings, post_within(&egress, &late, SHORT));
    for (number, verdict) in verdicts.into_iter().enumerate() {
        if number < limits::LOOK_UPS_AT_ONCE {
            assert_eq!(reason(verdict), Some(RefusalReason::Unresolvable), "{number}");
        } else {
            assert_eq!(verdict, Err(VettingError::NoNameServer), "{number}");
        }
    }
    assert!(matches!(cut.result, Err(SendError::Dns(ResolveError::Unavailable))), "{cut:?}");
}
