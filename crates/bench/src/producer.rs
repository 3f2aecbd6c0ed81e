//! Publishers: keep-alive connections that post events in a closed loop or at a fixed rate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::arrivals::{Arrivals, NUMBER_DIGITS};
use super::histogram::Histogram;
use super::load::Load;
use super::wire::{consume, read_message};

/// The parameters of all publishers of a run.
pub struct PublishPlan {
    /// The nodes. Publishers are spread over them evenly.
    pub servers: Vec<SocketAddr>,
    /// One key per workspace, all of the same length.
    pub api_keys: Vec<String>,
    pub arrivals: Arc<Arrivals>,
    pub load: Load,
}

/// The result of the publishers.
#[derive(Default)]
pub struct PublishResult {
    pub events: usize,
    pub latencies: Histogram,
    pub refused: u64,
    pub took: Duration,
}

pub async fn publish(plan: Arc<PublishPlan>) -> io::Result<PublishResult> {
    let pacer = Arc::new(Pacer::default());
    let started = Instant::now();
    plan.arrivals.publishing_begins(started);
    if let Some(rate) = plan.load.events_per_second {
        Pacer::start(Arc::clone(&pacer), Arc::clone(&plan), rate, started)?;
    }
    let publishers: Vec<_> = (0..plan.load.publishers)
        .map(|number| {
            let server = plan.servers[number % plan.servers.len()];
            tokio::spawn(publisher(Arc::clone(&plan), server, Arc::clone(&pacer), started))
        })
        .collect();
    let mut published = PublishResult::default();
    for publisher in publishers {
        let one = publisher.await.map_err(io::Error::other)??;
        published.latencies.merge(&one.latencies);
        published.refused += one.refused;
        published.events += one.events;
    }
    published.took = started.elapsed();
    Ok(published)
}

async fn publisher(
    plan: Arc<PublishPlan>,
    server: SocketAddr,
    pacer: Arc<Pacer>,
    started: Instant,
) -> io::Result<PublishResult> {
    let load = &plan.load;
    let mut stream = connect(server).await?;
    let mut request = RequestTemplate::new(&plan, server)?;
    let mut buffer = BytesMut::with_capacity(4096);
    let mut published = PublishResult::default();
    while started.elapsed() < load.duration {
        let (first, intended) = pacer.next_request(load, started).await?;
        if first + load.events_per_request > load.events_max() || intended >= started + load.duration {
            break;
        }
        for number in first..first + load.events_per_request {
            plan.arrivals.publishing(number, intended);
        }
        stream.write_all(request.numbered(&plan, first)).await?;
        let head = read_message(&mut stream, &mut buffer).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        published.latencies.record(intended.elapsed());
        published.events += load.events_per_request;
        published.refused += u64::from(!buffer.starts_with(b"HTTP/1.1 202"));
        consume(&mut buffer, &head);
    }
    Ok(published)
}

/// Assigns event numbers to publishers and, at a fixed rate, their times.
struct Pacer {
    /// The number of the next event.
    next: AtomicUsize,
    /// One permit for each request that is due, at a fixed rate.
    due: Semaphore,
}

impl Default for Pacer {
    fn default() -> Self {
        Self { next: AtomicUsize::new(0), due: Semaphore::new(0) }
    }
}

impl Pacer {
    /// The number of the first event of the next request, and its intended time.
    async fn next_request(&self, load: &Load, started: Instant) -> io::Result<(usize, Instant)> {
        let next = || self.next.fetch_add(load.events_per_request, Ordering::Relaxed);
        let Some(rate) = load.events_per_second else { return Ok((next(), Instant::now())) };
        self.due.acquire().await.map_err(io::Error::other)?.forget();
        let first = next();
        Ok((first, due_at(started, first, rate)))
    }

    /// Adds a permit at the time of each request, on its own thread: timers of the runtime are late by a millisecond or
    /// two, which would be attributed to the server. At the end each publisher gets one permit without an event, so
    /// that it stops.
    fn start(pacer: Arc<Self>, plan: Arc<PublishPlan>, rate: u32, started: Instant) -> io::Result<()> {
        let run = move || {
            for first in (0..).step_by(plan.load.events_per_request) {
                let at = due_at(started, first, rate);
                if at >= started + plan.load.duration {
                    break;
                }
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                pacer.due.add_permits(1);
            }
            pacer.due.add_permits(plan.load.publishers);
        };
        std::thread::Builder::new().name("bench-pacer".to_owned()).spawn(run).map(drop)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
fn due_at(started: Instant, number: usize, rate: u32) -> Instant {
    started + Duration::from_secs_f64(number as f64 / f64::from(rate))
}

#[expect(clippy::disallowed_methods, reason = "the measured server, on this machine")]
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `data` as its type requires it, up to the field that pads it to the wanted size.
const POST: &str = r#"{"id":"post_1","projectId":"proj_1","status":"published","platform":"web","contentType":"UNKNOWN","title":"","createdAt":"2026-05-15T08:21:00Z","scheduledAt":null,"updatedAt":null,"content":"#;

/// A request whose bytes are rendered once. Only key, project and event numbers are overwritten.
struct RequestTemplate {
    bytes: Vec<u8>,
    key_at: usize,
    projects_at: Vec<usize>,
    numbers_at: Vec<usize>,
}

impl RequestTemplate {
    fn new(plan: &PublishPlan, server: SocketAddr) -> io::Result<Self> {
        let (load, key) = (&plan.load, plan.api_keys.first().map_or("", String::as_str));
        if plan.api_keys.iter().any(|other| other.len() != key.len()) {
            return Err(io::Error::other("the keys of the workspaces differ in length"));
        }
        let number = "0".repeat(NUMBER_DIGITS);
        let project = load.project_id(0).map(|project| format!("\"projectId\":\"{project}\",")).unwrap_or_default();
        // JSON numbers have no leading zeros, so a one precedes the digits.
        let end = format!("\"n\":1{number}}}");
        let content = "x".repeat(load.payload_bytes.saturating_sub(POST.len() + "\"\",".len() + end.len()));
        let event = format!("{{\"type\":\"post.created\",{project}\"data\":{POST}\"{content}\",{end}}}");
        let (path, body) = if load.events_per_request == 1 {
            ("/v1/events", event)
        } else {
            let events = vec![event; load.events_per_request].join(",");
            ("/v1/events/batch", format!("{{\"events\":[{events}]}}"))
        };
        let before_key = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer ", server);
        let after_key = format!("\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        let bytes = [&before_key, key, &after_key, &body].concat().into_bytes();
        Ok(Self {
            key_at: before_key.len(),
            projects_at: ends_of("\"post.created\",\"projectId\":\"", &bytes),
            numbers_at: ends_of("\"n\":1", &bytes),
            bytes,
        })
    }

    fn numbered(&mut self, plan: &PublishPlan, first: usize) -> &[u8] {
        let target = plan.load.target_of(first);
        let key = plan.api_keys[plan.load.workspace_of(target)].as_bytes();
        self.bytes[self.key_at..self.key_at + key.len()].copy_from_slice(key);
        if let Some(project) = plan.load.project_id(target) {
            for at in &self.projects_at {
                self.bytes[*at..at + project.len()].copy_from_slice(project.as_bytes());
            }
        }
        for (offset, at) in self.numbers_at.iter().enumerate() {
            let digits = format!("{:0NUMBER_DIGITS$}", first + offset);
            self.bytes[*at..at + NUMBER_DIGITS].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }
}

/// The end of each occurrence of `mark`.
fn ends_of(mark: &str, bytes: &[u8]) -> Vec<usize> {
    let starts = bytes.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark.as_bytes());
    starts.map(|(at, _)| at + mark.len()).collect()
}
