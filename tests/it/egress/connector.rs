//! Which hosts may be connected to, and how a peer proves that it is the host in the URL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postrider_domain::target::{RefusalReason, Requester, TargetGuard, TargetRefusal};
use postrider_egress::{Egress, EgressSettings, Phase, ResolveError, SendError, TlsFault};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use super::{NOON, SHORT, egress, post, post_within, reason, settings_with, status, to_loopback};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::Receiver;
use crate::support::tls::{Identity, TestCa};

fn refusal(result: Result<postrider_egress::Answer, SendError>) -> RefusalReason {
    match result {
        Err(SendError::Refused(TargetRefusal { reason, .. })) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// A server that sends plain text where TLS is expected.
struct Impostor {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Impostor {
    async fn start(address: SocketAddr) -> (Self, JoinSet<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                open.push(stream);
            }
        });
        (Self { address, connections }, accepting)
    }
}

async fn verdict(egress: &Egress, url: &str) -> Option<RefusalReason> {
    reason(egress.vet(&Url::parse(url).unwrap(), Requester::default()).await)
}

#[tokio::test]
async fn tls_proves_the_urls_host_and_sessions_are_resumed() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let receiver = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let url = receiver.url_at("hooks.test", "/");
    let first = post(&egress, &url).await;
    assert_eq!(status(&first), 200);
    assert!(first.phases.dns.is_some() && first.phases.tls.is_some());
    assert_eq!(egress.idle_connections(), 1);
    egress.forget(postrider_egress::TargetUrl::parse(&url).unwrap().host());
    assert_eq!(egress.idle_connections(), 0);
    let second = post(&egress, &url).await;
    assert_eq!(status(&second), 200);
    assert!(second.phases.dns.is_none(), "pinned");
    let handshakes: Vec<_> = receiver.received().into_iter().map(|request| request.tls.unwrap()).collect();
    assert_eq!(handshakes[0].server_name.as_deref(), Some("hooks.test"));
    assert!(!handshakes[0].resumed && handshakes[1].resumed);
    let host = format!("hooks.test:{}", receiver.address().port());
    assert_eq!(receiver.received()[0].header("host"), Some(host.as_str()));
}

#[tokio::test]
async fn a_bad_certificate_is_reported_by_kind() {
    let ca = TestCa::new();
    for (identity, fault) in [
        (ca.expired_leaf(&["hooks.test"]), TlsFault::CertificateExpired),
        (ca.leaf(&["another.test"]), TlsFault::CertificateForAnotherName),
        (Identity::self_signed(&["hooks.test"]), TlsFault::CertificateFromUnknownIssuer),
    ] {
        let dns = DnsServer::start().await;
        dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
        let receiver = Receiver::start_tls(&identity).await;
        let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
        let exchange = post(&egress, &receiver.url_at("hooks.test", "/")).await;
        assert!(matches!(exchange.result, Err(SendError::Tls(found)) if found == fault), "{exchange:?}");
        assert!(receiver.received().is_empty());
    }
}

#[tokio::test]
async fn half_a_handshake_ends_at_the_deadline() {
    let receiver = Receiver::start_half_handshake().await;
    let url = format!("https://{}/", receiver.address());
    let exchange = post_within(&to_loopback(), &url, SHORT).await;
    let timed_out = SendError::Timeout { phase: Phase::Tls, status: None };
    assert_eq!(format!("{:?}", exchange.result.unwrap_err()), format!("{timed_out:?}"));
    receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
}

#[tokio::test]
async fn half_a_handshake_uses_one_address_share_of_a_long_deadline() {
    let receiver = Receiver::start_half_handshake().await;
    let exchange = post(&to_loopback(), &format!("https://{}/", receiver.address())).await;
    assert!(matches!(exchange.result, Err(SendError::Tls(TlsFault::Timeout))), "{exchange:?}");
}

#[tokio::test]
async fn plain_text_behind_https_is_a_tls_fault() {
    let (impostor, _accepting) = Impostor::start("127.0.0.1:0".parse().unwrap()).await;
    let exchange = post(&to_loopback(), &format!("https://{}/", impostor.address)).await;
    assert!(matches!(exchange.result, Err(SendError::Tls(TlsFault::Protocol))), "{exchange:?}");
}

#[tokio::test]
async fn a_name_with_any_private_address_is_refused_before_connecting() {
    let dns = DnsServer::start().await;
    let receiver = Receiver::start().await;
    dns.set("private.test", Answer::addresses(&["10.0.0.1"]));
    dns.set("mixed.test", Answer::addresses(&["127.0.0.1", "169.254.169.254"]));
    dns.set("mapped.test", Answer::addresses(&["::ffff:192.168.0.1"]));
    dns.set("alias.test", Answer::Alias("private.test".to_owned()));
    let egress = egress(settings_with(&dns, None), &ManualClock::new(NOON));
    for (name, reason) in [
        ("private.test", RefusalReason::Private),
        ("mixed.test", RefusalReason::LinkLocal),
        ("mapped.test", RefusalReason::Private),
        ("alias.test", RefusalReason::Private),
    ] {
        let url = receiver.url_at(name, "/");
        assert_eq!(refusal(post(&egress, &url).await.result), reason, "{name}");
        assert_eq!(verdict(&egress, &url).await, Some(reason), "{name}");
    }
    assert_eq!(receiver.counts().connections, 0);
}

#[tokio::test]
async fn literals_localhost_and_plain_http_need_an_exception() {
    let dns = DnsServer::start().await;
    dns.set("public.test", Answer::addresses(&["8.8.8.8"]));
    let settings = EgressSettings { allow_targets: Vec::new(), ..settings_with(&dns, None) };
    let egress = egress(settings, &ManualClock::new(NOON));
    for (url, reason) in [
        ("https://127.0.0.1/", RefusalReason::Loopback),
        ("https://2130706433/", RefusalReason::Loopback),
        ("https://0177.1/", RefusalReason::Loopback),
        ("https://[::ffff:a9fe:a9fe]/", RefusalReason::LinkLocal),
        ("https://localhost/", RefusalReason::Loopback),
        ("https://a.localhost/", RefusalReason::Loopback),
        ("http://public.test/", RefusalReason::PlainHttp),
        ("https://public.test:25/", RefusalReason::Port),
    ] {
        assert_eq!(refusal(post(&egress, url).await.result), reason, "{url}");
        assert_eq!(verdict(&egress, url).await, Some(reason), "{url}");
    }
    assert_eq!(verdict(&egress, "https://public.test/").await, None);
}

#[tokio::test]
async fn a_name_without_addresses_is_unresolvable_and_a_dns_failure() {
    let dns = DnsServer::start().await;
    dns.set("broken.test", Answer::ServFail);
    dns.set("empty.test", Answer::NoData);
    let egress = egress(settings_with(&dns, None), &ManualClock::new(NOON));
    for name in ["missing.test", "empty.test", "broken.test"] {
        let url = format!("https://{name}/");
        assert_eq!(verdict(&egress, &url).await, Some(RefusalReason::Unresolvable), "{name}");
        assert!(matches!(post(&egress, &url).await.result, Err(SendError::Dns(_))), "{name}");
    }
}

#[tokio::test]
async fn silent_dns_servers_end_in_a_dns_failure_or_at_the_deadline() {
    let dns = DnsServer::start().await;
    dns.set("silent.test", Answer::Silent);
    let settings = settings_with(&dns, None);
    let (patient, hasty) =
        (egress(settings.clone(), &ManualClock::new(NOON)), egress(settings, &ManualClock::new(NOON)));
    dns.set("loud.test", Answer::addresses(&["127.0.0.1"]));
    for egress in [&patient, &hasty] {
        assert_eq!(verdict(egress, "https://loud.test/").await, None, "the server answers for other names");
    }
    let url = "https://silent.test/";
    let (failed, cut) = tokio::join!(post(&patient, url), post_within(&hasty, url, SHORT));
    assert!(matches!(failed.result, Err(SendError::Dns(ResolveError::Timeout))), "{failed:?}");
    assert!(matches!(cut.result, Err(SendError::Timeout { phase: Phase::Dns, status: None })), "{cut:?}");
}

#[tokio::test]
async fn a_name_is_queried_unchanged_for_both_address_families() {
    use hickory_proto::rr::RecordType;
    let dns = DnsServer::start().await;
    dns.set("short", Answer::addresses(&["127.0.0.1"]));
    let receiver = Receiver::start().await;
    let egress = egress(settings_with(&dns, None), &ManualClock::new(NOON));
    assert_eq!(status(&post(&egress, &receiver.url_at("short", "/")).await), 200);
    assert_eq!(dns.queries_of("short", RecordType::A), 1);
    assert_eq!(dns.queries_of("short", RecordType::AAAA), 1);
}

#[tokio::test]
async fn a_dead_address_is_skipped_for_a_live_one() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    let receiver = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2", "127.0.0.1"]));
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let exchange = post(&egress, &receiver.url_at("hooks.test", "/")).await;
    assert_eq!(status(&exchange), 200);
    assert_eq!(exchange.peer, Some(receiver.address()));
}

#[tokio::test]
async fn an_address_that_fails_tls_is_skipped_for_one_that_passes() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    let good = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    let address = SocketAddr::from(([127, 0, 0, 2], good.address().port()));
    let (impostor, _accepting) = Impostor::start(address).await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.2", "127.0.0.1"]));
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let exchange = post(&egress, &good.url_at("hooks.test", "/")).await;
    assert_eq!(status(&exchange), 200);
    assert_eq!(exchange.peer, Some(good.address()));
    assert_eq!(impostor.connections.load(Ordering::SeqCst), 1);
}
