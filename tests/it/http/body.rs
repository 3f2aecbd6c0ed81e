//! Bodies: their time, their memory, and answers that come before they were read.

use super::*;

pub(super) fn post_of(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
}

pub(super) const LARGE: usize = 300 * 1024;

#[tokio::test]
async fn a_small_body_that_stops_is_refused() {
    let front = Front::with(DoorLimits { body_time: SOON, ..patient() }).await;
    let mut client = front.connect().await;
    client.send(post_of("/length", 10) + "12345").await;
    let answer = client.answer().await;
    assert_eq!(answer.check(408).body, "too slow");
    assert!(answer.closes());
}

#[tokio::test]
async fn a_large_body_has_no_fixed_time_but_a_pace() {
    let front = Front::with(DoorLimits { body_time: NEVER, body_slow_start: SOON, ..patient() }).await;
    let mut client = front.connect().await;
    client.send(post_of("/length", LARGE)).await;
    client.send(vec![b' '; LARGE - 1]).await;
    assert_eq!(client.answer().await.check(408).body, "too slow", "a fast start does not pay for a stall");

    let limits = DoorLimits { body_time: Duration::ZERO, body_bytes_per_second: 1, ..patient() };
    let front = Front::with(limits).await;
    let mut client = front.connect().await;
    client.send(post_of("/length", LARGE)).await;
    client.send(vec![b' '; LARGE]).await;
    assert_eq!(client.answer().await.check(200).body, LARGE.to_string());
}

#[tokio::test]
async fn bodies_in_memory_have_a_limit_over_all_requests() {
    let front = Front::with(DoorLimits { bodies_bytes: 1000, linger_quiet_time: SOON, ..patient() }).await;
    let mut holding = front.connect().await;
    holding.send(post_of("/hold", 600) + &"x".repeat(600)).await;
    let send = async |bytes: usize| {
        let mut client = front.connect().await;
        client.send(post_of("/length", bytes) + &"x".repeat(bytes)).await;
        client.answer().await
    };
    let too_many = async || {
        // The held body is counted once it has arrived.
        Some(send(401).await).filter(|answer| answer.body == "no memory")
    };
    let answer = crate::support::wait::eventually("the limit", too_many).await;
    answer.check(503);
    assert_eq!(send(400).await.check(200).body, "400");
    drop(holding);
    let enough = async || Some(send(1000).await).filter(|answer| answer.body == "1000");
    crate::support::wait::eventually("the memory of a closed connection", enough).await;
}

#[tokio::test]
async fn an_early_answer_to_a_short_body_keeps_the_connection() {
    let front = Front::with(patient()).await;
    let mut client = front.connect().await;
    for length in [1, 256 * 1024] {
        client.send(post_of("/unread", length)).await;
        client.send(vec![b'x'; length]).await;
        let answer = client.answer().await;
        assert!(!answer.check(401).closes(), "{length}");
    }
    client.send("POST /unread HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert!(!client.answer().await.check(401).closes());
    client.hello().await;
}

#[tokio::test]
async fn an_early_answer_to_a_long_body_closes_and_can_be_read() {
    let front = Front::with(patient()).await;
    for length in [256 * 1024 + 1, 9 * 1024 * 1024] {
        let mut client = front.connect().await;
        client.send(post_of("/unread", length)).await;
        client.send(vec![b'x'; length]).await;
        let answer = client.answer().await;
        assert!(answer.check(401).closes(), "{length}");
    }
    let mut client = front.connect().await;
    client.send("POST /unread HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n500000\r\n").await;
    client.send(vec![b'x'; 0x50_0000]).await;
    assert!(client.answer().await.check(401).closes());
}

#[tokio::test]
async fn an_early_answer_does_not_wait_long_for_the_body() {
    let front = Front::with(DoorLimits { drain_time: SOON, ..patient() }).await;
    let mut client = front.connect().await;
    client.send(post_of("/unread", 10) + "12345").await;
    assert!(client.answer().await.check(401).closes());
}

#[tokio::test]
async fn continue_is_sent_only_when_the_body_is_wanted() {
    let front = Front::with(patient()).await;
    let head =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    let mut client = front.connect().await;
    client.send(head("/length")).await;
    assert!(client.answer().await.head.starts_with("http/1.1 100 continue"));
    client.send("12345").await;
    assert_eq!(client.answer().await.check(200).body, "5");
    client.send(head("/unread")).await;
    assert!(client.answer().await.check(401).closes(), "the body may or may not follow");
}

#[tokio::test]
async fn lingering_ends_with_silence_with_time_and_with_the_caller() {
    let quiet = DoorLimits { connections: 1, linger_quiet_time: SOON, ..patient() };
    let timed = DoorLimits { connections: 1, linger_time: SOON, ..patient() };
    for limits in [quiet, timed] {
        let front = Front::with(limits).await;
        let mut client = front.connect().await;
        client.send(post_of("/unread", LARGE)).await;
        assert!(client.answer().await.check(401).closes());
        // The only permit is free once the first connection has ended.
        front.connect().await.hello().await;
    }
    let front = Front::with(DoorLimits { connections: 1, ..patient() }).await;
    let mut client = front.connect().await;
    client.send(post_of("/unread", LARGE)).await;
    client.answer().await.check(401);
    client.0.shutdown().await.unwrap();
    front.connect().await.hello().await;
}

#[tokio::test]
async fn a_caller_that_closes_in_its_body_ends_its_connection() {
    let front = Front::with(DoorLimits { connections: 1, ..patient() }).await;
    let mut half_open = front.connect().await;
    half_open.send(post_of("/length", 10) + "123").await;
    half_open.0.shutdown().await.unwrap();
    half_open.rest().await;
    front.connect().await.hello().await;
}
