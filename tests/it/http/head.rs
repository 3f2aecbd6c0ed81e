//! Heads: their size, their time, and the refusals that the listener gives itself.

use super::*;

fn head_of(bytes: usize) -> String {
    let start = "GET /hello HTTP/1.1\r\nhost: x\r\nx-long: ";
    format!("{start}{}\r\n\r\n", "a".repeat(bytes - start.len() - 4))
}

#[tokio::test]
async fn a_head_has_at_most_32_kb() {
    let front = Front::with(patient()).await;
    let mut client = front.connect().await;
    client.send(head_of(32 * 1024)).await;
    client.answer().await.check(200);
    client.send(head_of(32 * 1024 + 1)).await;
    let answer = client.answer().await;
    assert_eq!(answer.check(400).body, "HeaderTooLarge");
    assert!(answer.closes());
}

#[tokio::test]
async fn a_head_that_never_ends_is_refused_when_it_is_too_large() {
    let front = Front::with(patient()).await;
    let mut client = front.connect().await;
    client.try_send(head_of(390 * 1024).trim_end()).await;
    assert_eq!(client.answer().await.check(400).body, "HeaderTooLarge");
}

#[tokio::test]
async fn a_head_has_at_most_100_fields() {
    let front = Front::with(patient()).await;
    let with_fields = |count: usize| format!("GET /hello HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    let mut client = front.connect().await;
    client.send(with_fields(100)).await;
    client.answer().await.check(200);
    client.send(with_fields(101)).await;
    assert_eq!(client.answer().await.check(400).body, "HeaderTooLarge");
}

#[tokio::test]
async fn a_target_has_at_most_16_kb() {
    let front = Front::with(patient()).await;
    let of = |bytes: usize| format!("GET /hello?{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(bytes - 7));
    let mut client = front.connect().await;
    client.send(of(16 * 1024)).await;
    client.answer().await.check(200);
    client.send(of(16 * 1024 + 1)).await;
    let answer = client.answer().await;
    assert_eq!(answer.check(400).body, "UriTooLong");
    assert!(!answer.closes(), "the head was read to its end");
    for bytes in [31 * 1024, 40 * 1024, 300 * 1024] {
        let mut client = front.connect().await;
        client.try_send(of(bytes)).await;
        assert_eq!(client.answer().await.check(400).body, "UriTooLong");
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused_in_our_shape() {
    let front = Front::with(DoorLimits { linger_quiet_time: SOON, ..patient() }).await;
    let malformed = [
        "HELLO\r\n\r\n",
        "GET /hello\r\n\r\n",
        "GET /hello HTTP/3.0\r\n\r\n",
        "GET /hello HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /hel\u{1}lo HTTP/1.1\r\n\r\n",
        "POST /length HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        "POST /length HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}",
    ];
    for text in malformed {
        let mut client = front.connect().await;
        client.send(text).await;
        let answer = client.answer().await;
        assert_eq!(answer.check(400).body, "MalformedHead", "{text:?}");
        assert!(answer.closes(), "{text:?}");
        assert_eq!(client.rest().await, b"", "{text:?} has one answer");
    }
    let mut client = front.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.answer().await.check(400).body, "Http2");
}

#[tokio::test]
async fn a_bad_head_after_a_good_request_has_its_own_answer() {
    let front = Front::with(patient()).await;
    let mut client = front.connect().await;
    client.send(format!("{HELLO}{HELLO}nonsense\r\n\r\n")).await;
    client.answer().await.check(200);
    client.answer().await.check(200);
    assert_eq!(client.answer().await.check(400).body, "MalformedHead");
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let front = Front::with(patient()).await;
    let mut client = front.connect().await;
    client.send("GET /hello HTTP/1.0\r\n\r\n").await;
    let text = String::from_utf8(client.rest().await).unwrap();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\nhello"), "{text}");
}

#[tokio::test]
async fn a_head_that_stops_is_refused_and_silence_is_closed() {
    let front = Front::with(DoorLimits { head_time: SOON, ..patient() }).await;
    let mut half_sent = front.connect().await;
    let mut silent = front.connect().await;
    half_sent.send("GET /hello HTTP/1.1\r\nhost:").await;
    let answer = half_sent.answer().await;
    assert_eq!(answer.check(400).body, "HeadTooSlow");
    assert!(answer.closes());
    assert_eq!(silent.rest().await, b"");
}

#[tokio::test]
async fn the_time_of_a_later_head_begins_with_its_first_byte() {
    let front = Front::with(DoorLimits { head_time: SOON, ..patient() }).await;
    let mut client = front.connect().await;
    client.hello().await;
    client.send("GET /hello").await;
    assert_eq!(client.answer().await.check(400).body, "HeadTooSlow");
}

#[tokio::test]
async fn a_slow_head_gains_no_time_by_trickling() {
    let front = Front::with(DoorLimits { head_time: SOON, linger_quiet_time: SOON, ..patient() }).await;
    let mut client = front.connect().await;
    client.send("GET /hello HTTP/1.1\r\n").await;
    let mut other = front.connect().await;
    let mut first = [0; 4];
    // A round trip of another connection between two bytes is the pace. The head may have 32 KB of them.
    while client.0.try_read(&mut first).is_err() {
        client.try_send("a").await;
        other.hello().await;
    }
    assert_eq!(&first, b"HTTP");
    let rest = client.rest().await;
    assert!(rest.ends_with(b"HeadTooSlow"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_caller_that_closes_in_its_head_ends_its_connection() {
    let front = Front::with(DoorLimits { connections: 1, ..patient() }).await;
    let mut half_open = front.connect().await;
    half_open.send("GET /hel").await;
    half_open.0.shutdown().await.unwrap();
    assert_eq!(half_open.rest().await, b"");
    front.connect().await.hello().await;
}
