//! Publishers: keep-alive connections that post events back to back, or at a given rate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::histogram::Histogram;
use super::sink::{Arrivals, NUMBER_DIGITS};
use super::wire::{pass, read_message};

/// What all publishers of a run share.
pub struct Plan {
    pub server: SocketAddr,
    pub api_key: String,
    pub arrivals: Arc<Arrivals>,
    pub events_per_request: usize,
    pub payload_bytes: usize,
    pub publishers: usize,
    pub duration: Duration,
    pub events_per_second: Option<u32>,
    /// No more events than this, however long it takes.
    pub events_max: usize,
}

/// What the publishers saw.
#[derive(Default)]
pub struct Published {
    pub events: usize,
    pub latencies: Histogram,
    pub refused: u64,
    pub took: Duration,
}

pub async fn publish(plan: Arc<Plan>) -> io::Result<Published> {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let publishers: Vec<_> =
        (0..plan.publishers).map(|_| tokio::spawn(publisher(Arc::clone(&plan), Arc::clone(&next), started))).collect();
    let mut published = Published::default();
    for publisher in publishers {
        let one = publisher.await.map_err(io::Error::other)??;
        published.latencies.merge(&one.latencies);
        published.refused += one.refused;
    }
    published.took = started.elapsed();
    published.events = next.load(Ordering::Relaxed).min(plan.events_max);
    Ok(published)
}

async fn publisher(plan: Arc<Plan>, next: Arc<AtomicUsize>, started: Instant) -> io::Result<Published> {
    let mut stream = connect(plan.server).await?;
    let mut request = Request::new(&plan);
    let mut buffer = BytesMut::with_capacity(4096);
    let mut published = Published::default();
    while started.elapsed() < plan.duration {
        let first = next.fetch_add(plan.events_per_request, Ordering::Relaxed);
        if first + plan.events_per_request > plan.events_max {
            break;
        }
        let intended = match plan.events_per_second {
            None => Instant::now(),
            Some(rate) => {
                let at = started + Duration::from_secs_f64(first as f64 / f64::from(rate));
                tokio::time::sleep_until(at.into()).await;
                at
            }
        };
        for number in first..first + plan.events_per_request {
            plan.arrivals.publishing(number, intended);
        }
        stream.write_all(request.numbered(first)).await?;
        let head = read_message(&mut stream, &mut buffer).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        published.latencies.record(intended.elapsed());
        published.refused += u64::from(!buffer.starts_with(b"HTTP/1.1 202"));
        pass(&mut buffer, &head);
    }
    Ok(published)
}

#[expect(clippy::disallowed_methods, reason = "the server under measurement, on this machine")]
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A request whose bytes are made once; only the events' numbers change.
struct Request {
    bytes: Vec<u8>,
    numbers_at: Vec<usize>,
}

impl Request {
    fn new(plan: &Plan) -> Self {
        let pad = "x".repeat(plan.payload_bytes.saturating_sub(NUMBER_DIGITS + 20));
        let number = "0".repeat(NUMBER_DIGITS);
        // A number may not start with zeros in JSON, so the digits follow a one.
        let event = format!("{{\"type\":\"post.created\",\"data\":{{\"pad\":\"{pad}\",\"n\":1{number}}}}}");
        let (path, body) = if plan.events_per_request == 1 {
            ("/v1/events", event)
        } else {
            let events = vec![event; plan.events_per_request].join(",");
            ("/v1/events/batch", format!("{{\"events\":[{events}]}}"))
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            plan.server,
            plan.api_key,
            body.len()
        );
        let bytes = [head.into_bytes(), body.into_bytes()].concat();
        let mark = format!("\"n\":1{number}");
        let numbers_at = (0..bytes.len() - mark.len())
            .filter(|at| bytes[*at..].starts_with(mark.as_bytes()))
            .map(|at| at + mark.len() - NUMBER_DIGITS)
            .collect();
        Self { bytes, numbers_at }
    }

    fn numbered(&mut self, first: usize) -> &[u8] {
        for (offset, at) in self.numbers_at.iter().enumerate() {
            let digits = format!("{:0NUMBER_DIGITS$}", first + offset);
            self.bytes[*at..at + NUMBER_DIGITS].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }
}
