//! Pins: the addresses of a host are vetted once and kept for a day. They are looked up again only when none works.

use std::time::Duration;

use futures_util::future::join_all;
use postrider_domain::target::{RefusalReason, Requester, TargetGuard};
use postrider_egress::SendError;
use url::Url;

use super::{NOON, egress, post, post_for, reason, requester, settings_with, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::{Behaviour, Gate, Receiver};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn forget_connections(egress: &postrider_egress::Egress, url: &str) {
    egress.forget(postrider_egress::TargetUrl::parse(url).unwrap().host());
}

#[tokio::test]
async fn a_name_that_turns_private_is_refused_when_its_pin_expires() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]).with_ttl_seconds(0));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    assert_eq!(status(&post(&egress, &url).await), 200);

    dns.set("hooks.test", Answer::addresses(&["10.0.0.1"]));
    clock.advance(DAY - Duration::from_secs(1));
    forget_connections(&egress, &url);
    let pinned = post(&egress, &url).await;
    assert_eq!((status(&pinned), pinned.peer), (200, Some(receiver.address())));

    clock.advance(Duration::from_secs(1));
    forget_connections(&egress, &url);
    let rebound = post(&egress, &url).await;
    let Err(SendError::Refused(refusal)) = rebound.result else { panic!("{rebound:?}") };
    assert_eq!((refusal.host.as_str(), refusal.reason), ("hooks.test", RefusalReason::Private));
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn a_name_that_rebinds_is_called_at_its_checked_address() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    let first = Answer::addresses(&["127.0.0.1"]).with_ttl_seconds(0);
    dns.set_sequence("hooks.test", vec![first, Answer::addresses(&["169.254.169.254"])]);
    let egress = egress(settings_with(&dns, None), &clock);
    let exchange = post(&egress, &receiver.url_at("hooks.test", "/")).await;
    assert_eq!((status(&exchange), exchange.peer), (200, Some(receiver.address())));
    assert_eq!(dns.queries("hooks.test"), 2, "one look-up, of both families");
}

#[tokio::test]
async fn the_ttl_of_a_dns_answer_does_not_change_the_pin() {
    for ttl_seconds in [0, 1, u32::MAX] {
        let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
        let receiver = Receiver::start().await;
        dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]).with_ttl_seconds(ttl_seconds));
        let egress = egress(settings_with(&dns, None), &clock);
        let url = receiver.url_at("hooks.test", "/");
        for (advance, queries) in [(Duration::ZERO, 2), (DAY - Duration::from_secs(1), 2), (Duration::from_secs(1), 4)]
        {
            clock.advance(advance);
            forget_connections(&egress, &url);
            assert_eq!(status(&post(&egress, &url).await), 200);
            assert_eq!(dns.queries("hooks.test"), queries, "{ttl_seconds}");
        }
    }
}

#[tokio::test]
async fn a_refused_vetting_drops_the_pin_of_its_own_endpoint() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    assert_eq!(status(&post(&egress, &url).await), 200);
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1", "192.168.0.1"]));
    let vetting = egress.vet(&Url::parse(&url).unwrap(), Requester::default()).await;
    assert_eq!(reason(vetting), Some(RefusalReason::Private));
    forget_connections(&egress, &url);
    assert!(matches!(post(&egress, &url).await.result, Err(SendError::Refused(_))));
}

#[tokio::test]
async fn a_registration_elsewhere_moves_no_pin_and_closes_nothing() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let guarded = Url::parse(&url).unwrap();
    let own = requester(b'a', b'a');
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    assert_eq!(status(&post_for(&egress, &url, own).await), 200);
    // The same workspace has other endpoints, and another workspace knows the name too.
    for neighbour in [requester(b'a', b'n'), requester(b'b', b'n')] {
        dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
        egress.vet(&guarded, neighbour).await.unwrap();
        dns.set("hooks.test", Answer::addresses(&["10.0.0.1"]));
        egress.vet(&guarded, neighbour).await.unwrap_err();
        assert!(post_for(&egress, &url, own).await.reused, "the connection is still open");
        forget_connections(&egress, &url);
        assert_eq!(status(&post_for(&egress, &url, own).await), 200, "the pin has not moved");
    }
}

#[tokio::test]
async fn a_connection_in_use_when_its_host_is_refused_is_not_kept() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.otherwise(Behaviour::hold(&gate));
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let turning = async {
        receiver.wait_for(1).await;
        dns.set("hooks.test", Answer::addresses(&["10.0.0.1"]));
        clock.advance(DAY);
        let refused = post(&egress, &url).await;
        gate.open();
        refused
    };
    let (held, refused) = tokio::join!(post(&egress, &url), turning);
    assert_eq!(status(&held), 200);
    assert!(matches!(refused.result, Err(SendError::Refused(_))), "{refused:?}");
    assert_eq!(egress.idle_connections(), 0);
}

#[tokio::test]
async fn a_second_vetting_of_an_endpoint_replaces_its_pin() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let guarded = Url::parse(&url).unwrap();
    assert!(egress.allows_plain_http(&guarded, Requester::default()));
    egress.vet(&guarded, Requester::default()).await.unwrap();
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    egress.vet(&guarded, Requester::default()).await.unwrap();
    let exchange = post(&egress, &url).await;
    assert_eq!(status(&exchange), 200);
    assert!(exchange.phases.dns.is_none());
}

#[tokio::test]
async fn a_host_that_moved_is_found_in_the_same_attempt() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    assert!(matches!(post(&egress, &url).await.result, Err(SendError::ConnectRefused)));
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    assert_eq!(status(&post(&egress, &url).await), 200);
}

#[tokio::test]
async fn a_host_that_moved_to_a_private_address_is_refused_at_once() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    assert!(matches!(post(&egress, &url).await.result, Err(SendError::ConnectRefused)));
    dns.set("hooks.test", Answer::addresses(&["10.0.0.1"]));
    assert!(matches!(post(&egress, &url).await.result, Err(SendError::Refused(_))));
}

#[tokio::test]
async fn a_dead_host_is_looked_up_at_most_once_a_minute() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    // The first attempt has just looked up. The second looks up whether the host has moved. The others use that result.
    for (look_ups, advance) in [(1, 1), (2, 1), (2, 58), (2, 1), (3, 0), (3, 0)] {
        let failed = post(&egress, &url).await;
        assert!(matches!(failed.result, Err(SendError::ConnectRefused)), "{failed:?}");
        assert_eq!(dns.queries("hooks.test"), 2 * look_ups);
        clock.advance(Duration::from_secs(advance));
    }
}

#[tokio::test]
async fn endpoints_of_one_dead_host_share_the_look_up_of_a_minute() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let endpoints = [requester(b'a', b'a'), requester(b'b', b'b'), requester(b'c', b'c')];
    for endpoint in endpoints.into_iter().cycle().take(9) {
        assert!(matches!(post_for(&egress, &url, endpoint).await.result, Err(SendError::ConnectRefused)));
    }
    assert_eq!(dns.queries("hooks.test"), 2 * (3 + 1), "a first look-up each, and one renewal");
    // A renewal that found no change does not keep an endpoint from a move that happens later.
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    clock.advance(Duration::from_secs(60));
    for endpoint in endpoints {
        assert_eq!(status(&post_for(&egress, &url, endpoint).await), 200);
    }
}

#[tokio::test]
async fn concurrent_attempts_share_one_lookup() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let exchanges = join_all((0..30).map(|_| post(&egress, &url))).await;
    assert!(exchanges.iter().all(|exchange| exchange.result.is_ok()));
    assert_eq!(dns.queries("hooks.test"), 2);
}
