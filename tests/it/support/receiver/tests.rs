//! Tests of the receivers' behaviours through a raw TCP client.

use super::exchange::gzip_bomb;
use super::*;

async fn post(stream: &mut TcpStream, path: &str, body: &str) {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: here\r\nwebhook-id: evt_1\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
}

/// Reads until `end` or the end of the connection.
async fn read_until(stream: &mut TcpStream, end: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(end) {
            if stream.read_buf(&mut bytes).await? == 0 {
                break;
            }
        }
        Ok(())
    };
    bounded("an answer", reading).await.map(|()| String::from_utf8_lossy(&bytes).into_owned())
}

/// Posts to a receiver with this behaviour. Reads until `end`, the end of the connection or an error.
async fn provoke(behaviour: impl Into<Behaviour>, end: &str) -> (io::Result<String>, Receiver, TcpStream) {
    let receiver = Receiver::start().await;
    receiver.then(behaviour);
    let mut stream = connect(receiver.address()).await;
    post(&mut stream, "/", "{}").await;
    let answer = read_until(&mut stream, end).await;
    (answer, receiver, stream)
}

const NEVER: &str = "\0\0\0";

#[tokio::test]
async fn requests_are_recorded_and_the_script_is_followed_in_order() {
    let receiver = Receiver::start().await;
    receiver.then(Behaviour::status(500)).then(Answer::status(202).header("x-a", "b").body("taken"));
    receiver.decide(|request| Behaviour::status(if request.path == "/gone" { 410 } else { 204 }));
    let mut stream = connect(receiver.address()).await;
    for (path, status, end) in [("/", 500, "\r\n\r\n"), ("/", 202, "taken"), ("/gone", 410, "\r\n\r\n")] {
        post(&mut stream, path, r#"{"n":1}"#).await;
        let answer = read_until(&mut stream, end).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let before = Instant::now();
    let mut second = connect(receiver.address()).await;
    post(&mut second, "/a?b=c", r#"{"n":2}"#).await;

    let all = receiver.wait_for(4).await;
    let last = &all[3];
    assert_eq!((last.method.as_str(), last.path.as_str()), ("POST", "/a?b=c"));
    assert_eq!(last.header("webhook-id"), Some("evt_1"));
    assert_eq!(last.json()["n"], 2);
    assert!(last.at >= before && last.tls.is_none());
    assert_eq!(all.iter().map(|request| request.connection).collect::<Vec<_>>(), [1, 1, 1, 2]);
    assert_eq!(receiver.counts().connections, 2);
    assert_eq!(receiver.url("/x"), format!("http://{}/x", receiver.address()));
    assert_eq!(receiver.url_at("a.test", "/x"), format!("http://a.test:{}/x", receiver.address().port()));
}

#[tokio::test]
async fn a_held_answer_comes_when_the_gate_opens() {
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.otherwise(Behaviour::hold(&gate));
    let mut stream = connect(receiver.address()).await;
    post(&mut stream, "/", "").await;
    receiver.wait_for(1).await;
    assert_eq!(receiver.counts().bytes_sent, 0);
    gate.open();
    assert!(read_until(&mut stream, "\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_redirect_names_its_target() {
    let (answer, ..) = provoke(Behaviour::redirect("http://169.254.169.254/"), "\r\n\r\n").await;
    assert!(answer.unwrap().contains("location: http://169.254.169.254/\r\n"));
}

#[tokio::test]
async fn a_stalled_answer_lasts_until_the_client_hangs_up() {
    for (behaviour, end) in [
        (Behaviour::StallBeforeHeaders, ""),
        (Behaviour::StallMidBody, "hello"),
        (Behaviour::DripHeaders(Duration::from_millis(1)), "x-drip: aaa"),
        (Behaviour::DripBody(Duration::from_millis(1)), "\r\n\r\naaa"),
        (Behaviour::EndlessBody, "\r\n1000\r\n"),
        (Behaviour::EndlessInterim, "preload\r\n\r\nHTTP/1.1 103"),
    ] {
        let (answer, receiver, stream) = provoke(behaviour.clone(), end).await;
        answer.unwrap_or_else(|error| panic!("{behaviour:?}: {error}"));
        receiver.wait_for(1).await;
        assert_eq!(receiver.counts().open_connections, 1, "{behaviour:?}");
        drop(stream);
        receiver.wait_until("the end of the connection", |counts| counts.open_connections == 0).await;
    }
}

#[tokio::test]
async fn a_cut_a_close_and_a_greeting_end_the_connection() {
    for (behaviour, expected_end) in [
        (Behaviour::CutMidBody, "content-length: 10\r\n\r\nhello"),
        (Behaviour::CloseWithoutAnswer, ""),
        (Behaviour::NotHttp, "SSH-2.0-OpenSSH_9.6\r\n"),
    ] {
        let (answer, ..) = provoke(behaviour, NEVER).await;
        let answer = answer.unwrap();
        assert!(answer.ends_with(expected_end) && answer.len() < 100, "{answer}");
    }
}

#[tokio::test]
async fn a_reset_is_an_error_and_not_an_end() {
    let (answer, ..) = provoke(Behaviour::Reset, NEVER).await;
    assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn headers_can_be_huge_and_many() {
    for (behaviour, least_bytes) in [(Behaviour::HugeHeader, 1 << 20), (Behaviour::ManyHeaders, 150_000)] {
        let (answer, receiver, _stream) = provoke(behaviour, "\r\n\r\n").await;
        assert!(answer.unwrap().len() > least_bytes);
        assert!(receiver.counts().bytes_sent > least_bytes);
    }
}

#[tokio::test]
async fn a_gzip_bomb_is_small_on_the_wire_and_large_unpacked() {
    let mut unpacked = Vec::new();
    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(gzip_bomb()), &mut unpacked).unwrap();
    assert_eq!(unpacked.len(), GZIP_BOMB_BYTES);
    assert!(gzip_bomb().len() < 32 << 10);
    let (answer, ..) = provoke(Behaviour::GzipBomb, "\r\n\r\n").await;
    assert!(answer.unwrap().contains("content-encoding: gzip\r\n"));
}

#[tokio::test]
async fn a_kept_connection_dies_as_the_next_request_arrives() {
    let (answer, receiver, mut stream) = provoke(Behaviour::KeepAliveThenClose, "\r\n\r\n").await;
    assert!(answer.unwrap().contains("connection: keep-alive"));
    assert_eq!(receiver.counts().open_connections, 1);
    post(&mut stream, "/", "{}").await;
    assert!(read_until(&mut stream, NEVER).await.map_or(true, |answer| answer.is_empty()));
    assert_eq!(receiver.received().len(), 1);
    let mut fresh = connect(receiver.address()).await;
    post(&mut fresh, "/", "{}").await;
    assert_eq!(receiver.wait_for(2).await[1].connection, 2);
}

#[tokio::test]
async fn a_stopped_receiver_refuses_and_can_come_back() {
    let port = ReservedPort::reserve();
    let address = port.address();
    let is_refused = async || {
        #[expect(clippy::disallowed_methods, reason = "the test plays the stranger")]
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    };
    is_refused().await;
    Receiver::start_on(address).await.stop().await;
    is_refused().await;
    let back = Receiver::start_on(address).await;
    let mut stream = connect(address).await;
    post(&mut stream, "/", "").await;
    back.wait_for(1).await;
}
