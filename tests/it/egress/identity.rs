//! Mutual TLS: each request presents its own client certificate, and never uses a connection that was opened with
//! another.

use std::sync::Arc;

use postrider_domain::limits;
use postrider_egress::{ClientIdentity, Egress, SendError, TlsFault};

use super::{NOON, egress, post, post_as, settings_with, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::{Handshake, Receiver};
use crate::support::tls::{ClientPem, Clients, TestCa};

/// A receiver named `hooks.test`, an egress that can reach it, and the authority that signs its clients.
struct Stage {
    receiver: Receiver,
    egress: Egress,
    dns: DnsServer,
    clients: TestCa,
    clock: ManualClock,
    url: String,
}

/// Whether the receiver requires a client certificate.
enum Door {
    CertificateRequired,
    CertificateOptional,
}

impl Stage {
    async fn set(door: Door, protocol: &str) -> Self {
        let (dns, servers, clients) = (DnsServer::start().await, TestCa::new(), TestCa::new());
        dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
        let accepted = match door {
            Door::CertificateRequired => Clients::Of(&clients),
            Door::CertificateOptional => Clients::OfOrNone(&clients),
        };
        let settings = servers.leaf(&["hooks.test"]).server_config_for(accepted, &[protocol]);
        let receiver = Receiver::start_tls_with(settings).await;
        let clock = ManualClock::new(NOON);
        let egress = egress(settings_with(&dns, Some(&servers)), &clock);
        let url = receiver.url_at("hooks.test", "/");
        Self { receiver, egress, dns, clients, clock, url }
    }

    fn forget(&self) {
        self.egress.forget(postrider_egress::TargetUrl::parse(&self.url).unwrap().host());
    }

    fn handshakes(&self) -> Vec<Handshake> {
        self.receiver.received().into_iter().map(|request| request.tls.unwrap()).collect()
    }
}

fn identity(pem: &ClientPem) -> Arc<ClientIdentity> {
    Arc::new(ClientIdentity::from_pem(pem.chain.as_bytes(), pem.key.as_bytes()).unwrap())
}

#[tokio::test]
async fn a_receiver_gets_the_client_certificate_of_the_request() {
    let stage = Stage::set(Door::CertificateRequired, "http/1.1").await;
    let pem = stage.clients.client("acme");
    assert_eq!(status(&post_as(&stage.egress, &stage.url, &identity(&pem)).await), 200);
    assert_eq!(stage.handshakes()[0].client.as_deref(), Some(&pem.der[..]));
}

#[tokio::test]
async fn a_missing_or_foreign_client_certificate_is_a_named_tls_fault() {
    for protocol in ["http/1.1", "h2"] {
        let stage = Stage::set(Door::CertificateRequired, protocol).await;
        let without = post(&stage.egress, &stage.url).await;
        let required = Err(SendError::Tls(TlsFault::ClientCertificateRequired));
        assert_eq!(format!("{:?}", without.result), format!("{:?}", required as Result<(), _>), "{protocol}");
        let foreign = identity(&TestCa::new().client("stranger"));
        let refused = post_as(&stage.egress, &stage.url, &foreign).await;
        let fault = refused.result.unwrap_err();
        assert!(matches!(fault, SendError::Tls(TlsFault::ClientCertificateRefused)), "{protocol}: {fault:?}");
        assert!(stage.receiver.received().is_empty());
        assert_eq!(stage.egress.idle_connections(), 0);
    }
}

#[tokio::test]
async fn clients_share_neither_connections_nor_tls_sessions() {
    let stage = Stage::set(Door::CertificateOptional, "http/1.1").await;
    let (one, other) = (stage.clients.client("one"), stage.clients.client("other"));
    let (first, second) = (identity(&one), identity(&other));
    for _ in 0..2 {
        assert_eq!(status(&post_as(&stage.egress, &stage.url, &first).await), 200);
        assert_eq!(status(&post_as(&stage.egress, &stage.url, &second).await), 200);
        assert_eq!(status(&post(&stage.egress, &stage.url).await), 200);
    }
    let connections: Vec<usize> = stage.receiver.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2, 3, 1, 2, 3]);
    assert_eq!(stage.egress.idle_connections(), 3);
    let shown: Vec<_> = stage.handshakes().into_iter().take(3).map(|handshake| handshake.client).collect();
    assert_eq!(shown, [Some(one.der.clone()), Some(other.der), None]);
    assert!(stage.handshakes().iter().all(|handshake| !handshake.resumed), "each began with a handshake of its own");

    stage.forget();
    let again = post_as(&stage.egress, &stage.url, &identity(&one)).await;
    assert_eq!(status(&again), 200);
    let last = stage.handshakes().pop().unwrap();
    assert_eq!((last.resumed, last.client), (true, Some(one.der)), "its own session is resumed");
}

#[tokio::test]
async fn a_name_that_turns_private_closes_every_clients_connections() {
    let stage = Stage::set(Door::CertificateOptional, "http/1.1").await;
    let client = identity(&stage.clients.client("acme"));
    assert_eq!(status(&post_as(&stage.egress, &stage.url, &client).await), 200);
    assert_eq!(status(&post(&stage.egress, &stage.url).await), 200);
    assert_eq!(stage.egress.idle_connections(), 2);
    stage.dns.set("hooks.test", Answer::addresses(&["127.0.0.1", "10.0.0.1"]));
    stage.clock.advance(limits::PIN_LIFETIME);
    let other = identity(&stage.clients.client("other"));
    let refused = post_as(&stage.egress, &stage.url, &other).await;
    assert!(matches!(refused.result, Err(SendError::Refused(_))), "{refused:?}");
    assert_eq!(stage.egress.idle_connections(), 0);
    stage.receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
}
