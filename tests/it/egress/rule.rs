//! The operator's rules on real sockets: no pooled connection and no pin carries an allowance to another workspace.

use postrider_domain::target::{RefusalReason, Requester, TargetGuard};
use postrider_egress::{Egress, EgressSettings, SendError};
use url::Url;

use super::{NOON, egress, post_for, requester, settings_with, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::Receiver;

async fn refusal(egress: &Egress, url: &str, requester: Requester) -> RefusalReason {
    match post_for(egress, url, requester).await.result {
        Err(SendError::Refused(refusal)) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connection_under_a_workspaces_rule_serves_no_other() {
    let (dns, receiver) = (DnsServer::start().await, Receiver::start().await);
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let rule = "127.0.0.1=workspace:org_aaaaaaaaaaaaaaaa".parse().unwrap();
    let settings = EgressSettings { allow_targets: vec![rule], ..settings_with(&dns, None) };
    let egress = egress(settings, &ManualClock::new(NOON));
    for url in [receiver.url("/"), receiver.url_at("hooks.test", "/")] {
        assert_eq!(status(&post_for(&egress, &url, requester(b'a', b'1')).await), 200);
        assert_eq!(refusal(&egress, &url, requester(b'b', b'2')).await, RefusalReason::Loopback);
        let again = post_for(&egress, &url, requester(b'a', b'3')).await;
        assert!(
            again.reused,
            "the refusal of a neighbour closes nothing; endpoints of the workspace share connections"
        );
    }
    assert_eq!(receiver.received().len(), 4);
}

#[tokio::test]
async fn the_operator_webhooks_connection_serves_nobody_else() {
    let (dns, receiver) = (DnsServer::start().await, Receiver::start().await);
    let settings = EgressSettings { allow_targets: Vec::new(), ..settings_with(&dns, None) };
    let egress = egress(settings, &ManualClock::new(NOON));
    let operator = requester(b'o', b'o');
    let url = receiver.url("/operations");
    assert_eq!(refusal(&egress, &url, operator).await, RefusalReason::Loopback);
    egress.allow_operator_webhook(&Url::parse(&url).unwrap(), operator.endpoint.unwrap());
    assert_eq!(status(&post_for(&egress, &url, operator).await), 200);
    assert_eq!(refusal(&egress, &url, requester(b'o', b'x')).await, RefusalReason::Loopback);
    assert!(post_for(&egress, &url, operator).await.reused);
}

#[tokio::test]
async fn a_rule_for_one_port_opens_no_other() {
    let (dns, allowed, other) = (DnsServer::start().await, Receiver::start().await, Receiver::start().await);
    let rule = format!("http://127.0.0.1:{}", allowed.address().port()).parse().unwrap();
    let settings = EgressSettings { allow_targets: vec![rule], ..settings_with(&dns, None) };
    let egress = egress(settings, &ManualClock::new(NOON));
    assert_eq!(status(&post_for(&egress, &allowed.url("/"), requester(b'a', b'a')).await), 200);
    assert_eq!(refusal(&egress, &other.url("/"), requester(b'a', b'a')).await, RefusalReason::Loopback);
    assert_eq!(other.counts().connections, 0);
}

#[tokio::test]
async fn a_denied_address_is_never_connected_to() {
    let (dns, receiver) = (DnsServer::start().await, Receiver::start().await);
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    for denied in ["127.0.0.1", "127.0.0.0/8"] {
        let settings = EgressSettings { deny_targets: vec![denied.parse().unwrap()], ..settings_with(&dns, None) };
        let egress = egress(settings, &ManualClock::new(NOON));
        for url in [receiver.url("/"), receiver.url_at("hooks.test", "/")] {
            assert_eq!(refusal(&egress, &url, requester(b'a', b'a')).await, RefusalReason::Denied);
        }
    }
    assert_eq!(receiver.counts().connections, 0);
}
