//! The ceiling of this machine, measured in the same run:
//!
//! - a bare client that signs and posts to the same kind of sink,
//! - SQLite writing rows of the size of an event, each group on disk before the next begins.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use postrider_crypto::MacKey;
use postrider_domain::signing::signature_header;
use postrider_store_sqlite::ceiling::rows_per_second;

use super::arrivals::Arrivals;
use super::directory::Directory;
use super::error::BenchError;
use super::options::BenchOptions;
use super::process::Cost;
use super::producer::connect;
use super::sink::Sink;
use super::trial::Trial;

/// An upper bound for any server on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    pub posts_per_second: f64,
    /// CPU-seconds of client and sink together per 1,000 posts.
    pub cpu_seconds_per_1000: f64,
    pub rows_per_second: f64,
}

/// Long enough for both measurements.
const DURATION_MAX: Duration = Duration::from_secs(5);
/// Rounds of the bare client, each on new connections; the best counts. Depending on which threads run its tasks and
/// those of the sink, a round is up to a quarter faster or slower.
const ROUNDS: u32 = 5;

pub async fn measure(options: &BenchOptions) -> Result<Ceiling, BenchError> {
    let Trial { load, receiver, .. } = Trial::single(options);
    let sink = Sink::start(receiver, &Arrivals::new(&load)).await?;
    let sink: SocketAddr = sink.base_urls[0].trim_start_matches("http://").parse().map_err(io::Error::other)?;
    let duration = options.duration.min(DURATION_MAX);
    let mut best = Posts { per_second: 0.0, cpu_seconds_per_1000: 0.0 };
    for _ in 0..ROUNDS {
        let posts = post(options, sink, duration / ROUNDS).await?;
        if posts.per_second > best.per_second {
            best = posts;
        }
    }
    let directory = Directory::create()?;
    let rows = tokio::task::spawn_blocking(move || rows_per_second(&directory.0, duration));
    let rows_per_second = rows.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let Posts { per_second: posts_per_second, cpu_seconds_per_1000 } = best;
    Ok(Ceiling { posts_per_second, cpu_seconds_per_1000, rows_per_second })
}

struct Posts {
    per_second: f64,
    cpu_seconds_per_1000: f64,
}

async fn post(options: &BenchOptions, sink: SocketAddr, duration: Duration) -> Result<Posts, BenchError> {
    let body = Bytes::from(vec![b'x'; options.payload_bytes + 200]);
    let (before, started) = (Cost::of_this_process(), Instant::now());
    let clients: Vec<_> =
        (0..options.publishers).map(|_| tokio::spawn(client(sink, body.clone(), started + duration))).collect();
    let mut posted = 0;
    for client in clients {
        posted += client.await.map_err(io::Error::other)??;
    }
    let cpu = Cost::of_this_process().cpu.saturating_sub(before.cpu);
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let posted = posted as f64;
    Ok(Posts {
        per_second: posted / started.elapsed().as_secs_f64(),
        cpu_seconds_per_1000: cpu.as_secs_f64() * 1000.0 / posted,
    })
}

async fn client(sink: SocketAddr, body: Bytes, until: Instant) -> io::Result<u64> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connect(sink).await?)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let key = MacKey::new(b"the secret of the ceiling's client");
    let mut posted = 0;
    while Instant::now() < until {
        let id = format!("evt_{posted:020}");
        let signature = signature_header([&key], &id, 1_700_000_000, &body);
        let mut request = Request::post("/").body(Full::new(body.clone())).map_err(io::Error::other)?;
        *request.headers_mut() = signed_headers(&id, 1_700_000_000, &signature)
            .ok_or_else(|| io::Error::other("cannot build the headers of the request"))?;
        request.headers_mut().insert(http::header::HOST, HeaderValue::from_static("127.0.0.1"));
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        response.into_body().collect().await.map_err(io::Error::other)?;
        posted += 1;
    }
    Ok(posted)
}

fn signed_headers(id: &str, timestamp: i64, signature: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("webhook-id"), HeaderValue::from_str(id).ok()?);
    headers.insert(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp));
    headers.insert(HeaderName::from_static("webhook-signature"), HeaderValue::from_str(signature).ok()?);
    Some(headers)
}
