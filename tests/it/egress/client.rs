//! One request and its answer: what is sent, and the result of every kind of bad answer.

use std::time::Duration;

use futures_util::future::join_all;
use postrider_egress::{Exchange, Phase, SendError};

use super::{LONG, SHORT, post, post_within, status, to_loopback};
use crate::support::receiver::{Answer, Behaviour, Receiver, ReservedPort};

async fn provoke(behaviour: impl Into<Behaviour>, deadline: Duration) -> (Exchange, Receiver) {
    let receiver = Receiver::start().await;
    receiver.then(behaviour);
    let exchange = post_within(&to_loopback(), &receiver.url("/hook"), deadline).await;
    (exchange, receiver)
}

#[tokio::test]
async fn the_request_is_a_post_with_host_length_and_the_given_headers() {
    let answer = Answer::status(202).header("x-a", "b").body("taken");
    let (exchange, receiver) = provoke(answer, LONG).await;
    let answer = exchange.result.unwrap();
    assert_eq!((answer.status, &answer.body[..], answer.body_truncated), (202, &b"taken"[..], false));
    assert_eq!(answer.headers["x-a"], "b");
    assert_eq!(exchange.peer, Some(receiver.address()));
    assert!(exchange.phases.connect.is_some() && exchange.phases.first_byte.is_some() && !exchange.reused);
    assert!(exchange.phases.dns.is_none() && exchange.phases.tls.is_none());

    let request = &receiver.wait_for(1).await[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook"));
    assert_eq!(request.header("host"), Some(receiver.address().to_string().as_str()));
    assert_eq!(request.header("content-length"), Some("7"));
    assert_eq!(request.header("webhook-id"), Some("evt_1"));
    assert_eq!(request.body, b"{\"n\":1}");
}

#[tokio::test]
async fn one_connection_carries_request_after_request() {
    let receiver = Receiver::start().await;
    receiver.then(Answer::status(200).body(vec![b'a'; 64 * 1024])).then(Behaviour::status(204));
    let egress = to_loopback();
    for count in 0..20 {
        let exchange = post(&egress, &receiver.url("/")).await;
        assert!(exchange.result.is_ok());
        assert_eq!(exchange.reused, count > 0);
        assert_eq!(exchange.peer, Some(receiver.address()));
    }
    assert_eq!(receiver.counts().connections, 1);
    assert_eq!(egress.idle_connections(), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    for code in [301, 302, 303, 307, 308] {
        let answer = Answer::status(code).header("location", "http://169.254.169.254/latest/meta-data/");
        let (exchange, receiver) = provoke(answer, LONG).await;
        assert_eq!((status(&exchange), exchange.peer), (code, Some(receiver.address())));
        assert_eq!(receiver.received().len(), 1);
    }
}

#[tokio::test]
async fn stalled_and_dripping_answers_time_out_and_are_closed() {
    let drip = Duration::from_millis(1);
    let cases = [
        (Behaviour::StallBeforeHeaders, Phase::Headers, None),
        (Behaviour::DripHeaders(drip), Phase::Headers, None),
        (Behaviour::StallMidBody, Phase::Body, Some(200)),
        (Behaviour::DripBody(drip), Phase::Body, Some(200)),
    ];
    let checks = cases.map(|(behaviour, phase, status)| async move {
        let (exchange, receiver) = provoke(behaviour.clone(), SHORT).await;
        let Err(SendError::Timeout { phase: at, status: seen }) = exchange.result else {
            panic!("{behaviour:?}: {exchange:?}");
        };
        assert_eq!((at, seen), (phase, status), "{behaviour:?}");
        assert!(exchange.phases.total >= SHORT && exchange.phases.total < LONG);
        receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
    });
    join_all(checks).await;
}

#[tokio::test]
async fn an_endless_body_is_cut_and_its_connection_dropped() {
    let (exchange, receiver) = provoke(Behaviour::EndlessBody, LONG).await;
    let answer = exchange.result.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.body_truncated), (200, 4096, true));
    receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit_and_its_beginning_kept() {
    for (length, kept, truncated, reusable) in [
        (0, 0, false, true),
        (4096, 4096, false, true),
        (4097, 4096, true, true),
        (65_536, 4096, true, true),
        (65_537, 4096, true, false),
    ] {
        let receiver = Receiver::start().await;
        receiver.otherwise(Answer::status(200).body(vec![b'a'; length]));
        let egress = to_loopback();
        let answer = post(&egress, &receiver.url("/")).await.result.unwrap();
        assert_eq!((answer.body.len(), answer.body_truncated), (kept, truncated), "{length}");
        assert_eq!(egress.idle_connections(), usize::from(reusable), "{length}");
    }
}

#[tokio::test]
async fn a_gzip_bomb_is_truncated() {
    let (exchange, _receiver) = provoke(Behaviour::GzipBomb, LONG).await;
    let answer = exchange.result.unwrap();
    assert_eq!((answer.status, answer.body_truncated), (200, true));
    assert_eq!(answer.body, vec![0; 4096]);
}

#[tokio::test]
async fn a_compressed_body_is_limited_even_if_it_unpacks_to_nothing() {
    let gzip_head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let empty_block = [0, 0, 0, 0xff, 0xff];
    let body = [&gzip_head[..], &empty_block.repeat(50_000)].concat();
    let receiver = Receiver::start().await;
    receiver.then(Answer::status(200).header("content-encoding", "gzip").body(body));
    let egress = to_loopback();
    let answer = post(&egress, &receiver.url("/")).await.result.unwrap();
    assert!(answer.body.is_empty() && answer.body_truncated);
    assert_eq!(egress.idle_connections(), 0);
    receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
}

#[tokio::test]
async fn an_unreadable_answer_is_an_invalid_response() {
    for behaviour in [
        Behaviour::NotHttp,
        Behaviour::HugeHeader,
        Behaviour::ManyHeaders,
        Behaviour::EndlessHeaders,
        Behaviour::EndlessInterim,
    ] {
        let (exchange, receiver) = provoke(behaviour.clone(), LONG).await;
        assert!(matches!(exchange.result, Err(SendError::InvalidResponse { .. })), "{behaviour:?}: {exchange:?}");
        let counts = receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
        // The count includes bytes in the kernel buffers of both sides.
        assert!(counts.bytes_sent < 32 << 20, "{behaviour:?}: {} bytes", counts.bytes_sent);
    }
}

#[tokio::test]
async fn a_hundred_headers_are_read_and_no_more() {
    for (count, read) in [(99, true), (100, false)] {
        // `Content-Length` is one more header.
        let headers = (0..count).map(|number| (format!("x-{number}"), "a".to_owned())).collect();
        let (exchange, _receiver) = provoke(Answer { headers, ..Answer::status(200) }, LONG).await;
        assert_eq!(exchange.result.is_ok(), read, "{count}: {exchange:?}");
    }
}

#[tokio::test]
async fn a_closed_connection_is_reported_with_any_received_status() {
    for (behaviour, expected) in
        [(Behaviour::Reset, None), (Behaviour::CloseWithoutAnswer, None), (Behaviour::CutMidBody, Some(200))]
    {
        let (exchange, receiver) = provoke(behaviour.clone(), LONG).await;
        let Err(SendError::ConnectionClosed { status, .. }) = exchange.result else {
            panic!("{behaviour:?}: {exchange:?}");
        };
        assert_eq!(status, expected, "{behaviour:?}");
        assert_eq!(receiver.received().len(), 1, "a fresh connection's failure is not tried again");
    }
}

#[tokio::test]
async fn a_kept_connection_that_dies_on_reuse_costs_no_attempt() {
    let receiver = Receiver::start().await;
    receiver.then(Behaviour::KeepAliveThenClose);
    let egress = to_loopback();
    post(&egress, &receiver.url("/")).await.result.unwrap();
    let second = post(&egress, &receiver.url("/")).await;
    assert_eq!(status(&second), 200);
    assert!(!second.reused);
    let received = receiver.received();
    assert_eq!(received.iter().map(|request| request.connection).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_kept_connection_that_dies_mid_answer_is_not_retried() {
    let receiver = Receiver::start().await;
    receiver.then(Behaviour::status(200)).then(Behaviour::CutMidBody);
    let egress = to_loopback();
    post(&egress, &receiver.url("/")).await.result.unwrap();
    let second = post(&egress, &receiver.url("/")).await;
    assert!(matches!(second.result, Err(SendError::ConnectionClosed { status: Some(200), .. })), "{second:?}");
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn a_closed_port_is_a_refused_connection() {
    let closed = ReservedPort::reserve();
    let exchange = post(&to_loopback(), &format!("http://{}/", closed.address())).await;
    assert!(matches!(exchange.result, Err(SendError::ConnectRefused)), "{exchange:?}");
}
