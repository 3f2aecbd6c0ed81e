//! A listener with a single permit: in each state of a connection, its client falls silent, slows down, closes its half
//! of the connection, or resets it. Each time the server ends the connection and answers the next client.

use std::time::Instant;

use super::body::{LARGE, post_of};
use super::tls::{Files, client_hello, front as tls_front, try_shake_hands};
use super::*;
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

/// What a client does in the state that it has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// It neither sends nor reads. A client that is gone without a FIN or RST looks the same to the server.
    Silence,
    /// It closes its half of the connection and still reads.
    HalfOpen,
    Reset,
}

const DEPARTURES: [Departure; 3] = [Departure::Silence, Departure::HalfOpen, Departure::Reset];

impl Departure {
    /// The time of the state. Only silence has to wait for its end; a client that has gone ends its connection at once.
    fn limit(self) -> Duration {
        if self == Self::Silence { SOON } else { NEVER }
    }

    /// Leaves, and checks that the only permit is free again. `begun` is a moment before the limit began.
    async fn check(self, mut client: Client<TcpStream>, begun: Instant, next: impl AsyncFnOnce()) {
        let client = match self {
            Self::Silence => Some(client),
            Self::HalfOpen => {
                client.0.shutdown().await.unwrap();
                Some(client)
            }
            Self::Reset => {
                client.0.set_zero_linger().unwrap();
                drop(client);
                None
            }
        };
        next().await;
        if self == Self::Silence {
            assert!(begun.elapsed() >= SOON, "{:?} is too early", begun.elapsed());
        }
        if let Some(mut client) = client {
            client.rest().await;
        }
    }
}

/// The limits of a listener with one permit.
fn one() -> DoorLimits {
    DoorLimits { connections: 1, ..patient() }
}

/// The next client of a listener whose handshakes have little time. On a busy machine its own may take longer, so it
/// comes again until it is answered.
async fn next_over_tls(front: &Front, ca: &TestCa) {
    let answered = async || try_shake_hands(front, ca).await.ok()?.try_hello().await.ok();
    eventually("an answer to the next client", answered).await;
}

/// Sends one byte after each round trip of another listener's connection, until the server has closed this one. Returns
/// the number of bytes.
async fn trickle(client: &mut Client<TcpStream>) -> usize {
    let pace = Front::with(patient()).await;
    let mut pacemaker = pace.connect().await;
    let trickling = async {
        let mut sent = 0;
        while client.0.write_all(&[0]).await.is_ok() {
            sent += 1;
            pacemaker.hello().await;
        }
        sent
    };
    bounded("the end of a slow connection", trickling).await
}

#[tokio::test]
async fn a_client_that_leaves_in_its_handshake_frees_its_permit() {
    let ca = TestCa::new();
    let files = Files::of(&ca);
    let certificate = files.read();
    let hello = client_hello(&ca);
    for departure in DEPARTURES {
        for sent in [0, 5, hello.len() - 1, hello.len()] {
            let front = tls_front(&certificate, DoorLimits { head_time: departure.limit(), ..one() }).await;
            let begun = Instant::now();
            let mut client = front.connect().await;
            client.send(&hello[..sent]).await;
            if sent == hello.len() {
                bounded("the server's part", client.0.peek(&mut [0])).await.unwrap();
            }
            let next = async || next_over_tls(&front, &ca).await;
            departure.check(client, begun, next).await;
        }
    }
}

#[tokio::test]
async fn a_slow_handshake_gains_no_time_by_trickling() {
    const RECORD_BYTES: usize = 0x4000;
    let ca = TestCa::new();
    let files = Files::of(&ca);
    let front = tls_front(&files.read(), DoorLimits { head_time: SOON, ..one() }).await;
    let begun = Instant::now();
    let mut client = front.connect().await;
    // The head of a record of the greatest length. The server waits for all of it.
    client.send([0x16, 3, 1, 0x40, 0]).await;
    let sent = trickle(&mut client).await;
    assert!(begun.elapsed() >= SOON && sent < RECORD_BYTES, "{sent} bytes in {:?}", begun.elapsed());
    next_over_tls(&front, &ca).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_its_answer_frees_its_permit() {
    for departure in DEPARTURES {
        let front = Front::with(DoorLimits { answer_time: departure.limit(), ..one() }).await;
        let begun = Instant::now();
        let mut client = front.connect().await;
        client.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        bounded("the first byte", client.0.peek(&mut [0])).await.unwrap();
        departure.check(client, begun, async || front.connect().await.hello().await).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_frees_its_permit() {
    for departure in [Departure::HalfOpen, Departure::Reset] {
        let front = Front::with(one()).await;
        let mut client = front.connect().await;
        client.send(post_of("/hold", 1) + "x").await;
        departure.check(client, Instant::now(), async || front.connect().await.hello().await).await;
    }
}

#[tokio::test]
async fn a_half_open_client_with_a_next_request_must_still_read() {
    let front = Front::with(DoorLimits { answer_time: SOON, ..one() }).await;
    let begun = Instant::now();
    let mut client = front.connect().await;
    client.send(format!("GET /large HTTP/1.1\r\nhost: x\r\n\r\n{HELLO}")).await;
    client.0.shutdown().await.unwrap();
    front.connect().await.hello().await;
    assert!(begun.elapsed() >= SOON, "{:?} is too early", begun.elapsed());
    client.rest().await;
}

#[tokio::test]
async fn a_half_open_client_over_tls_frees_its_permit() {
    let ca = TestCa::new();
    let files = Files::of(&ca);
    let certificate = files.read();
    for path in ["large", "hello"] {
        for sends_close_notify in [true, false] {
            // The server cannot write its close_notify while the client does not read.
            let front = tls_front(&certificate, DoorLimits { linger_quiet_time: SOON, ..one() }).await;
            let mut client = try_shake_hands(&front, &ca).await.unwrap();
            client.send(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            bounded("the first byte", client.0.read_u8()).await.unwrap();
            if sends_close_notify {
                client.0.shutdown().await.unwrap();
            } else {
                client.0.get_mut().0.shutdown().await.unwrap();
            }
            try_shake_hands(&front, &ca).await.unwrap().hello().await;
            client.rest().await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_when_idle_frees_its_permit() {
    for departure in DEPARTURES {
        let front = Front::with(DoorLimits { idle_time: departure.limit(), ..one() }).await;
        let begun = Instant::now();
        let mut client = front.connect().await;
        client.hello().await;
        departure.check(client, begun, async || front.connect().await.hello().await).await;
    }
}

#[tokio::test]
async fn a_slow_client_gains_no_time_of_lingering_by_trickling() {
    for request in [post_of("/unread", LARGE), "nonsense\r\n\r\n".to_owned()] {
        let front = Front::with(DoorLimits { linger_time: SOON, ..one() }).await;
        let begun = Instant::now();
        let mut client = front.connect().await;
        client.send(request).await;
        assert!(client.answer().await.closes());
        let sent = trickle(&mut client).await;
        assert!(begun.elapsed() >= SOON, "{sent} bytes in {:?}", begun.elapsed());
        front.connect().await.hello().await;
    }
}

#[tokio::test]
async fn a_reset_while_lingering_frees_the_permit() {
    let front = Front::with(one()).await;
    let mut client = front.connect().await;
    client.send(post_of("/unread", LARGE)).await;
    client.answer().await.check(401);
    Departure::Reset.check(client, Instant::now(), async || front.connect().await.hello().await).await;
}
