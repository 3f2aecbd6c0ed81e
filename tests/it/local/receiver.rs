//! The local receiver: which webhooks it verifies, what it answers and what it reports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use postrider_domain::event_type::Catalogue;
use postrider_domain::secret::WebhookSecret;
use postrider_local::receiver::{Arrival, INBOX_PATH, Receiver, Signature};
use postrider_local::verify::VerifyFault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{NOON, Outgoing, send};
use crate::support::clock::ManualClock;
use crate::support::receiver::connect;
use crate::support::wait::bounded;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const EVENT_ID: &str = "evt_00000000000000000001";
const BODY: &[u8] = br#"{"id":"evt_00000000000000000001","type":"post.created","data":{}}"#;

async fn receiver() -> Receiver {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let clock = Arc::new(ManualClock::new(NOON));
    Receiver::start(any_port, &Catalogue::built_in().unwrap(), clock).await.unwrap()
}

async fn receiver_with_secret() -> Receiver {
    let receiver = receiver().await;
    receiver.set_secret(&WebhookSecret::parse(SECRET).unwrap());
    receiver
}

async fn next(receiver: &mut Receiver) -> Arrival {
    bounded("an arrival", receiver.next()).await
}

fn webhook() -> Outgoing {
    Outgoing::signed(SECRET, EVENT_ID, NOON, BODY)
}

#[tokio::test]
async fn a_webhook_signed_by_the_library_gets_204_and_is_reported() {
    let mut receiver = receiver_with_secret().await;
    let webhook =
        webhook().header("scripe-delivery-id", "dlv_00000000000000000002").header("scripe-delivery-attempt", "3");
    assert_eq!(webhook.post(receiver.address(), INBOX_PATH).await, (204, String::new()));
    let expected = Arrival {
        event_id: EVENT_ID.parse().ok(),
        delivery_id: "dlv_00000000000000000002".parse().ok(),
        event_type: Catalogue::built_in().unwrap().find("post.created").map(|event| event.name.clone()),
        attempt: Some(3),
        signature: Signature::Verified,
        at: NOON,
        body_bytes: BODY.len(),
    };
    assert_eq!(next(&mut receiver).await, expected);
    assert!(receiver.try_next().is_none());
}

#[tokio::test]
async fn an_unverified_webhook_gets_401_with_the_reason() {
    let mut receiver = receiver_with_secret().await;
    let old = NOON.minus(Duration::from_secs(301));
    let ahead = NOON.plus(Duration::from_secs(301));
    for (webhook, fault) in [
        (Outgoing::signed(OTHER_SECRET, EVENT_ID, NOON, BODY), VerifyFault::WrongSignature),
        (Outgoing { body: b"{}".to_vec(), ..webhook() }, VerifyFault::WrongSignature),
        (Outgoing::signed(SECRET, EVENT_ID, old, BODY), VerifyFault::TooOld),
        (Outgoing::signed(SECRET, EVENT_ID, ahead, BODY), VerifyFault::TooNew),
        (webhook().header("webhook-timestamp", "noon"), VerifyFault::InvalidTimestamp),
        (Outgoing { headers: Vec::new(), ..webhook() }, VerifyFault::MissingHeader("webhook-id")),
    ] {
        let answer = webhook.post(receiver.address(), INBOX_PATH).await;
        assert_eq!(answer, (401, fault.to_string()));
        assert_eq!(next(&mut receiver).await.signature, Signature::Refused(fault));
    }
}

#[tokio::test]
async fn either_of_two_signatures_is_enough_as_in_a_rotation() {
    let mut receiver = receiver_with_secret().await;
    let signature = |secret| Outgoing::signed(secret, EVENT_ID, NOON, BODY).headers[2].1.clone();
    let both = format!("{} {}", signature(OTHER_SECRET), signature(SECRET));
    let answer = webhook().header("webhook-signature", &both).post(receiver.address(), INBOX_PATH).await;
    assert_eq!((answer.0, next(&mut receiver).await.signature), (204, Signature::Verified));
}

#[tokio::test]
async fn only_the_newest_secret_verifies_and_without_one_nothing_does() {
    let mut receiver = receiver().await;
    for (secret, expected) in [(None, 401), (Some(SECRET), 204), (Some(OTHER_SECRET), 401)] {
        if let Some(secret) = secret {
            receiver.set_secret(&WebhookSecret::parse(secret).unwrap());
        }
        assert_eq!(webhook().post(receiver.address(), INBOX_PATH).await.0, expected, "{secret:?}");
        next(&mut receiver).await;
    }
}

#[tokio::test]
async fn other_paths_accept_every_webhook_and_report_it_unchecked() {
    let mut receiver = receiver_with_secret().await;
    let webhook = Outgoing::signed(OTHER_SECRET, EVENT_ID, NOON, BODY);
    assert_eq!(webhook.post(receiver.address(), "/mine").await.0, 204);
    assert_eq!(next(&mut receiver).await.signature, Signature::Unchecked);
}

#[tokio::test]
async fn unknown_ids_types_and_attempts_are_not_reported() {
    let mut receiver = receiver_with_secret().await;
    let body = "{\"type\":\"\u{1b}[2J\"}".as_bytes();
    let webhook = Outgoing::signed(SECRET, "msg_1", NOON, body).header("scripe-delivery-attempt", "many");
    assert_eq!(webhook.post(receiver.address(), INBOX_PATH).await.0, 204);
    let arrival = next(&mut receiver).await;
    assert_eq!((arrival.event_id, arrival.event_type, arrival.attempt), (None, None, None));
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused_and_a_get_is_not_a_webhook() {
    let mut receiver = receiver_with_secret().await;
    let large = |length| Outgoing::signed(SECRET, EVENT_ID, NOON, &vec![b' '; length]);
    assert_eq!(large(1024 * 1024 + 1).post(receiver.address(), INBOX_PATH).await.0, 413);
    assert_eq!(large(1024 * 1024).post(receiver.address(), INBOX_PATH).await.0, 204);
    assert_eq!(next(&mut receiver).await.body_bytes, 1024 * 1024);
    let get = Request::get(INBOX_PATH).header("host", "x").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(send(receiver.address(), get).await.0, 405);
    assert!(receiver.try_next().is_none());
}

#[tokio::test]
async fn a_stop_frees_the_port_even_while_a_request_is_half_sent() {
    let receiver = receiver_with_secret().await;
    let address = receiver.address();
    let mut half = connect(address).await;
    half.write_all(b"POST /inbox HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    let mut interim = [0; 12];
    bounded("the receiver to read the head", half.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100");
    bounded("the stop", receiver.stop()).await;
    TcpListener::bind(address).await.unwrap();
}
