//! Requests through the egress proxy: only to vetted addresses, with TLS end to end. Each failure is charged to the
//! proxy or to the host beyond it.

use std::net::SocketAddr;
use std::time::Duration;

use postrider_domain::proxy::ProxyUrl;
use postrider_domain::target::RefusalReason;
use postrider_egress::{Egress, EgressSettings, ProxyFault, SendError};
use tokio::net::TcpListener;

use super::{LONG, NOON, egress, loopback_settings, post, post_within, settings_with, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::proxy::{Habit, Proxy};
use crate::support::receiver::{Receiver, ReservedPort};
use crate::support::tls::TestCa;

fn through(url: &str, settings: EgressSettings) -> Egress {
    let proxy = Some(ProxyUrl::parse(url).unwrap());
    egress(EgressSettings { proxy, ..settings }, &ManualClock::new(NOON))
}

/// Makes one attempt to a receiver on loopback through a proxy with this habit.
async fn provoke(habit: Habit) -> SendError {
    let (proxy, receiver) = (Proxy::start(habit).await, Receiver::start().await);
    let settings = EgressSettings { connect_timeout: Duration::from_millis(200), ..loopback_settings() };
    let exchange = post(&through(&proxy.url(), settings), &receiver.url("/")).await;
    assert_eq!(receiver.counts().connections, 0);
    exchange.result.unwrap_err()
}

#[tokio::test]
async fn the_proxy_gets_the_vetted_address_and_tls_is_end_to_end() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    let (proxy, receiver) = (Proxy::start(Habit::Tunnel).await, Receiver::start_tls(&ca.leaf(&["hooks.test"])).await);
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    dns.set("proxy.test", Answer::addresses(&["127.0.0.1"]));
    let url = format!("http://alice:hunter2@proxy.test:{}", proxy.address().port());
    let egress = through(&url, settings_with(&dns, Some(&ca)));
    for reused in [false, true] {
        let exchange = post(&egress, &receiver.url_at("hooks.test", "/")).await;
        assert_eq!((status(&exchange), exchange.reused), (200, reused));
        assert_eq!(exchange.peer, Some(receiver.address()));
    }
    let asked = proxy.asked();
    let target = receiver.address();
    // base64 of alice:hunter2
    let expected = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic YWxpY2U6aHVudGVyMg==\r\n\r\n"
    );
    assert_eq!(asked, [expected]);
    let received = receiver.received();
    assert_eq!(received[0].tls.as_ref().unwrap().server_name.as_deref(), Some("hooks.test"));
    assert_eq!(received[0].header("proxy-authorization"), None);
}

#[tokio::test]
async fn the_guard_refuses_before_the_proxy_is_called() {
    let dns = DnsServer::start().await;
    dns.set("mixed.test", Answer::addresses(&["127.0.0.1", "10.0.0.1"]));
    let proxy = Proxy::start(Habit::Tunnel).await;
    let egress = through(&proxy.url(), settings_with(&dns, None));
    for (url, reason) in [
        ("https://mixed.test/", RefusalReason::Private),
        ("https://169.254.169.254/latest/meta-data/", RefusalReason::LinkLocal),
        ("https://[::ffff:10.0.0.1]/", RefusalReason::Private),
    ] {
        let refused = post(&egress, url).await;
        assert!(matches!(&refused.result, Err(SendError::Refused(refusal)) if refusal.reason == reason), "{refused:?}");
    }
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn each_proxy_fault_has_a_name() {
    for (habit, fault) in [
        (Habit::Status(403), ProxyFault::Forbidden),
        (Habit::Status(407), ProxyFault::CredentialsRefused),
        (Habit::Status(405), ProxyFault::Status(405)),
        (Habit::Close, ProxyFault::Broken),
        (Habit::Say("SSH-2.0-OpenSSH_9.6\r\n\r\n"), ProxyFault::Broken),
        (Habit::Say("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), ProxyFault::Broken),
    ] {
        let error = provoke(habit.clone()).await;
        assert!(matches!(error, SendError::Proxy(found) if found == fault), "{habit:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_host_that_the_proxy_cannot_reach_is_not_the_proxys_fault() {
    for (habit, expected) in [(Habit::Status(502), Some(502)), (Habit::Status(504), Some(504)), (Habit::Silent, None)] {
        let error = provoke(habit.clone()).await;
        assert!(matches!(error, SendError::BeyondProxy { status } if status == expected), "{habit:?}: {error:?}");
    }
    let (proxy, closed) = (Proxy::start(Habit::Tunnel).await, ReservedPort::reserve());
    let exchange = post(&through(&proxy.url(), loopback_settings()), &format!("http://{}/", closed.address())).await;
    assert!(matches!(exchange.result, Err(SendError::BeyondProxy { status: Some(502) })), "{exchange:?}");
}

#[tokio::test]
async fn an_unreachable_proxy_is_our_own_fault() {
    let dns = DnsServer::start().await;
    let (closed, receiver) = (ReservedPort::reserve(), Receiver::start().await);
    for (url, fault) in [
        (format!("http://{}", closed.address()), ProxyFault::Unreachable),
        ("http://nowhere.test:3128".to_owned(), ProxyFault::Unresolvable),
    ] {
        let exchange = post(&through(&url, settings_with(&dns, None)), &receiver.url("/")).await;
        assert!(matches!(exchange.result, Err(SendError::Proxy(found)) if found == fault), "{exchange:?}");
    }
    assert_eq!(receiver.counts().connections, 0);
}

#[tokio::test]
async fn a_proxy_whose_name_nobody_can_look_up_is_our_own_fault() {
    let (dns, receiver) = (DnsServer::start().await, Receiver::start().await);
    dns.set("silent.test", Answer::Silent);
    dns.set("failing.test", Answer::ServFail);
    for (server, name, deadline) in [
        (ReservedPort::reserve().address(), "proxy.test", LONG),
        (dns.address(), "failing.test", LONG),
        (dns.address(), "silent.test", LONG),
        (dns.address(), "silent.test", Duration::from_millis(200)),
    ] {
        let settings = EgressSettings { dns_servers: vec![server], ..loopback_settings() };
        let egress = through(&format!("http://{name}:3128"), settings);
        let exchange = post_within(&egress, &receiver.url("/"), deadline).await;
        assert!(matches!(exchange.result, Err(SendError::Proxy(_))), "{name}: {exchange:?}");
    }
    assert_eq!(receiver.counts().connections, 0);
}

#[tokio::test]
async fn a_deadline_that_passes_at_a_full_proxy_is_a_proxy_fault() {
    let receiver = Receiver::start().await;
    let (full, _holding) = full_queue().await;
    let egress = through(&format!("http://{full}"), loopback_settings());
    let exchange = post_within(&egress, &receiver.url("/"), Duration::from_millis(300)).await;
    assert!(matches!(exchange.result, Err(SendError::Proxy(ProxyFault::Unreachable))), "{exchange:?}");
}

/// An address whose accept queue is full: a further connection is neither accepted nor refused.
async fn full_queue() -> (SocketAddr, (TcpListener, Vec<tokio::net::TcpStream>)) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        #[expect(clippy::disallowed_methods, reason = "the test plays other clients of the proxy")]
        let connecting = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(200), connecting).await {
            Ok(connected) => waiting.push(connected.unwrap()),
            Err(_) => return (address, (listener, waiting)),
        }
    }
}
