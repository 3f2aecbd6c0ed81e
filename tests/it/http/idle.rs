//! Answers that nobody reads, idle connections, the number of connections, the stop, and the caller behind proxies.

use super::*;

#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up() {
    let front = Front::with(DoorLimits { connections: 1, answer_time: SOON, ..patient() }).await;
    let mut silent = front.connect().await;
    silent.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // The only permit is free once the first connection has been given up.
    front.connect().await.hello().await;
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_not_given_up() {
    let front = Front::with(DoorLimits { answer_time: Duration::from_secs(5), ..patient() }).await;
    let mut slow = front.connect().await;
    slow.send("GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut read = 0;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match bounded("more of the answer", slow.0.read(&mut buffer)).await.unwrap() {
            0 => break,
            bytes => read += bytes,
        }
        tokio::task::yield_now().await;
    }
    assert!(read > 64 * 1024 * 1024, "{read}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let front = Front::with(DoorLimits { idle_time: SOON, ..patient() }).await;
    let mut client = front.connect().await;
    for _ in 0..3 {
        client.hello().await;
    }
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn further_connections_wait_until_one_ends() {
    let front = Front::with(DoorLimits { connections: 2, ..patient() }).await;
    let mut first = front.connect().await;
    let mut second = front.connect().await;
    first.hello().await;
    second.hello().await;
    let mut third = front.connect().await;
    third.send(HELLO).await;
    second.hello().await;
    let early = third.0.try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "the third connection has no permit yet");
    drop(first);
    assert_eq!(third.answer().await.check(200).body, "hello");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_waits_for_answers() {
    let front = Front::with(patient()).await;
    let mut idle = front.connect().await;
    idle.hello().await;
    let mut silent = front.connect().await;
    let mut busy = front.connect().await;
    busy.send("POST /length HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert!(busy.answer().await.head.starts_with("http/1.1 100"));
    front.stop.cancel();
    assert_eq!(idle.rest().await, b"");
    assert_eq!(silent.rest().await, b"");
    assert!(!front.serving.is_finished());
    busy.send("12345").await;
    let answer = busy.answer().await;
    assert_eq!(answer.check(200).body, "5");
    assert!(answer.closes());
    bounded("the end of the listener", front.serving).await.unwrap();
}

#[tokio::test]
async fn a_cut_ends_every_connection() {
    let front = Front::with(patient()).await;
    let mut holding = front.connect().await;
    holding.send("POST /hold HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx").await;
    front.connect().await.hello().await;
    front.stop.cancel();
    front.cut.cancel();
    assert_eq!(holding.rest().await, b"");
    bounded("the end of the listener", front.serving).await.unwrap();
}

#[tokio::test]
async fn the_caller_is_the_one_that_a_trusted_proxy_names() {
    let caller = async |trusted: &[&str]| {
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let front = Front::open(patient(), |door| door.trusted_proxies = trusted).await;
        let mut client = front.connect().await;
        client.send("GET /caller HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.9, 192.0.2.1\r\n\r\n").await;
        client.answer().await.body
    };
    assert_eq!(caller(&[]).await, "Some(CallerAddress(127.0.0.1))");
    assert_eq!(caller(&["127.0.0.0/8"]).await, "Some(CallerAddress(192.0.2.1))");
}
