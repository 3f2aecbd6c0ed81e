//! A host's addresses are vetted once, kept for a day, and asked for again only when none of them works.

use std::time::Duration;

use futures_util::future::join_all;
use postrider_domain::target::{RefusalReason, TargetGuard};
use postrider_egress::SendError;
use url::Url;

use super::{NOON, egress, post, settings_with, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::{Behaviour, Gate, Receiver};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn forget_connections(egress: &postrider_egress::Egress, url: &str) {
    egress.forget(postrider_egress::TargetUrl::parse(url).unwrap().host());
}

#[tokio::test]
async fn a_name_that_turns_private_is_not_noticed_for_a_day_and_refused_then() {
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
async fn a_name_that_rebinds_between_the_check_and_the_connection_is_called_where_it_was_checked() {
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
async fn a_name_servers_word_on_how_long_an_answer_holds_changes_nothing() {
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
async fn a_refused_vetting_drops_the_pin_and_closes_what_is_pooled() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    assert_eq!(status(&post(&egress, &url).await), 200);
    assert_eq!(egress.idle_connections(), 1);
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1", "192.168.0.1"]));
    let refusal = egress.vet(&Url::parse(&url).unwrap()).await.unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Private);
    assert_eq!(egress.idle_connections(), 0);
    receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
    assert!(matches!(post(&egress, &url).await.result, Err(SendError::Refused(_))));
}

#[tokio::test]
async fn a_connection_in_use_while_its_host_is_refused_does_not_come_back() {
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
async fn vetting_anew_replaces_the_pin() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let guarded = Url::parse(&url).unwrap();
    assert!(egress.allows_plain_http(&guarded));
    egress.vet(&guarded).await.unwrap();
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    egress.vet(&guarded).await.unwrap();
    let exchange = post(&egress, &url).await;
    assert_eq!(status(&exchange), 200);
    assert!(exchange.phases.dns.is_none());
}

#[tokio::test]
async fn vetting_anew_lets_go_of_connections_to_addresses_that_are_no_longer_the_hosts() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let guarded = Url::parse(&url).unwrap();
    assert_eq!(status(&post(&egress, &url).await), 200);
    egress.vet(&guarded).await.unwrap();
    assert_eq!(egress.idle_connections(), 1, "the same answer is no reason to reconnect");
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    egress.vet(&guarded).await.unwrap();
    assert_eq!(egress.idle_connections(), 0);
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
async fn a_host_that_moved_to_a_private_address_is_refused_in_the_same_attempt() {
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
async fn a_dead_host_whose_answer_stays_is_asked_once_a_minute() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    // The first attempt has just asked; the second asks whether the host has moved; the others know.
    for (look_ups, advance) in [(1, 1), (2, 1), (2, 58), (2, 1), (3, 0), (3, 0)] {
        let failed = post(&egress, &url).await;
        assert!(matches!(failed.result, Err(SendError::ConnectRefused)), "{failed:?}");
        assert_eq!(dns.queries("hooks.test"), 2 * look_ups);
        clock.advance(Duration::from_secs(advance));
    }
}

#[tokio::test]
async fn many_attempts_at_once_ask_once() {
    let (dns, clock) = (DnsServer::start().await, ManualClock::new(NOON));
    let receiver = Receiver::start().await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = egress(settings_with(&dns, None), &clock);
    let url = receiver.url_at("hooks.test", "/");
    let exchanges = join_all((0..30).map(|_| post(&egress, &url))).await;
    assert!(exchanges.iter().all(|exchange| exchange.result.is_ok()));
    assert_eq!(dns.queries("hooks.test"), 2);
}
