//! The egress crate against real sockets on loopback.

mod client;
mod connector;
mod http2_frames;
mod identity;
mod pin;
mod pool;
mod proxy;
mod raw_answer;
mod resend;
mod resolver;
mod rule;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use postrider_domain::id::{EndpointId, WorkspaceId};
use postrider_domain::target::{RefusalReason, Requester, VettingError};
use postrider_domain::time::Timestamp;
use postrider_egress::{ClientIdentity, Egress, EgressSettings, Exchange, OutboundRequest, TargetUrl};

use crate::support::clock::ManualClock;
use crate::support::dns::DnsServer;
use crate::support::tls::TestCa;
use crate::support::wait::BOUND;

const NOON: Timestamp = Timestamp::from_millis(1_778_846_400_000);

/// A deadline that no healthy exchange comes near.
const LONG: Duration = BOUND;
/// A deadline that the test lets pass.
const SHORT: Duration = Duration::from_secs(1);

/// May call loopback addresses, and needs no DNS.
fn to_loopback() -> Egress {
    egress(loopback_settings(), &ManualClock::new(NOON))
}

fn egress(settings: EgressSettings, clock: &ManualClock) -> Egress {
    Egress::new(settings, Arc::new(clock.clone())).unwrap()
}

fn loopback_settings() -> EgressSettings {
    EgressSettings { allow_targets: vec!["127.0.0.0/8".parse().unwrap()], ..EgressSettings::default() }
}

fn settings_with(dns: &DnsServer, ca: Option<&TestCa>) -> EgressSettings {
    EgressSettings {
        dns_servers: vec![dns.address()],
        extra_ca_pem: ca.map(|ca| ca.pem().as_bytes().to_vec()),
        ..loopback_settings()
    }
}

async fn post(egress: &Egress, url: &str) -> Exchange {
    post_within(egress, url, LONG).await
}

async fn post_within(egress: &Egress, url: &str, deadline: Duration) -> Exchange {
    egress.send(request(url, None, deadline)).await
}

async fn post_for(egress: &Egress, url: &str, requester: Requester) -> Exchange {
    egress.send(OutboundRequest { requester, ..request(url, None, LONG) }).await
}

/// An endpoint of a workspace. Equal letters make equal ids.
fn requester(workspace: u8, endpoint: u8) -> Requester {
    let endpoint = EndpointId::from_letters([endpoint; 16]);
    Requester::endpoint(WorkspaceId::from_letters([workspace; 16]), endpoint)
}

async fn post_as(egress: &Egress, url: &str, identity: &Arc<ClientIdentity>) -> Exchange {
    egress.send(request(url, Some(Arc::clone(identity)), LONG)).await
}

fn request(url: &str, identity: Option<Arc<ClientIdentity>>, deadline: Duration) -> OutboundRequest {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
    let url = Arc::new(TargetUrl::parse(url).unwrap());
    let (requester, body) = (Requester::default(), Bytes::from_static(b"{\"n\":1}"));
    OutboundRequest { url, requester, headers, body, identity, deadline }
}

/// The reason why a vetting was refused.
fn reason(vetting: Result<(), VettingError>) -> Option<RefusalReason> {
    match vetting {
        Ok(()) => None,
        Err(VettingError::Refused(refusal)) => Some(refusal.reason),
        Err(error) => panic!("{error}"),
    }
}

fn status(exchange: &Exchange) -> u16 {
    match &exchange.result {
        Ok(answer) => answer.status,
        Err(error) => panic!("no answer: {error:?}"),
    }
}
