//! Name servers that fail, refuse and keep silent: who is asked next, and who is at fault.

use std::time::Duration;

use futures_util::future::join_all;
use postrider_domain::target::{RefusalReason, Requester, TargetGuard, VettingError};
use postrider_egress::{Egress, EgressSettings, ResolveError, SendError};
use url::Url;

use super::{NOON, egress, loopback_settings, post, post_within, reason, requester, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::{ClosedPort, Receiver};

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
    let closed = ClosedPort::reserve();
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
