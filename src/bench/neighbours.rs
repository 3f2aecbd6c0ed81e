//! What neighbours cost: the same light load to one healthy endpoint, first alone and then beside endpoints that are slow or dead,
//! each time on a server of its own, in one run.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::process::{Cost, ServerProcess, directory_bytes};
use super::producer::{Plan, publish};
use super::report::Row;
use super::run::{BenchError, Directory, Measured, PATIENCE, Side, make_key, register, row};
use super::sink::{self, Arrivals};
use super::wire::{pass, read_message};
use super::{BenchOptions, Scenario};
use crate::local::client::{BearerKey, Client};

/// Events a second to the healthy endpoint, whatever the answers: a load that leaves the machine idle, so that what neighbours
/// cost can be seen.
const HEALTHY_RATE: u32 = 200;
/// Nobody who is healthy waits for these: longer than any deadline but the one of 15 s.
const SLOW_ANSWER: Duration = Duration::from_secs(14);
const VERY_SLOW_ANSWER: Duration = Duration::from_millis(14_900);
/// The endpoints of the workspace that is slow as a whole.
const SLOW_ENDPOINTS: usize = 500;
/// What the neighbours' endpoints subscribe to.
const THEIR_EVENT: &str = "post.updated";
/// Events in one request that fills a queue; small ones, since it is their number that counts.
const FILL_BATCH: usize = 1_000;
const EVENTS_MAX: usize = 400_000;

/// Measures the healthy endpoint alone, then beside its neighbours.
pub async fn measure(options: &BenchOptions, scenario: Scenario) -> Result<[Row; 2], BenchError> {
    Ok([phase(options, scenario, Side::Alone).await?, phase(options, scenario, Side::Beside).await?])
}

async fn phase(options: &BenchOptions, scenario: Scenario, side: Side) -> Result<Row, BenchError> {
    let directory = Directory::make()?;
    let api_key = make_key(&options.program, &directory.0, "bench").await?;
    let their_key = make_key(&options.program, &directory.0, "neighbour").await?;
    let server = ServerProcess::start(&options.program, &directory.0, &["--stop-grace", "1s"]).await?;
    let arrivals = Arrivals::new(EVENTS_MAX);
    let sink = sink::start(Arc::clone(&arrivals)).await?;
    register(&server, &api_key, sink, 1, &arrivals).await?;
    if side == Side::Beside {
        Neighbour { server: &server, api_key: &their_key }.move_in(scenario, options.backlog).await?;
    }
    let plan = Arc::new(Plan {
        server: server.address,
        api_key,
        arrivals: Arc::clone(&arrivals),
        events_per_request: 1,
        payload_bytes: options.payload_bytes,
        publishers: options.publishers,
        duration: options.duration,
        events_per_second: Some(HEALTHY_RATE),
        events_max: EVENTS_MAX,
    });
    let (server_before, own_before) = (server.cost(), Cost::of_this_process());
    let published = publish(plan).await?;
    arrivals.wait_for(published.events as u64, PATIENCE).await;
    let (server_after, own_after) = (server.cost(), Cost::of_this_process());
    let stop_took = server.stop().await?;
    let measured = Measured {
        published,
        times_each: 1,
        kept_bytes: directory_bytes(&directory.0),
        stop_took,
        costs: [server_before, server_after, own_before, own_after],
    };
    Ok(row(scenario, side, &arrivals, &measured))
}

/// Whoever shares the server with the healthy endpoint, in a workspace of their own.
struct Neighbour<'n> {
    server: &'n ServerProcess,
    api_key: &'n str,
}

impl Neighbour<'_> {
    /// Returns once their deliveries are under way.
    async fn move_in(&self, scenario: Scenario, backlog: usize) -> Result<(), BenchError> {
        let answer = if scenario == Scenario::Isolation { VERY_SLOW_ANSWER } else { SLOW_ANSWER };
        let slow = Slow::start(answer).await?;
        let endpoints = if scenario == Scenario::Isolation { SLOW_ENDPOINTS } else { 1 };
        for number in 0..endpoints {
            self.endpoint(&format!("http://{}/{number}", slow.address), "post.scheduled").await?;
        }
        if scenario == Scenario::DeadNeighbour {
            // Nobody listens there any more once the listener is gone.
            let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
            self.endpoint(&format!("http://{closed}/"), THEIR_EVENT).await?;
            self.fill(THEIR_EVENT, backlog).await?;
        }
        // Each goes to all their slow endpoints, as many as one request may set off.
        self.fill("post.scheduled", 20_000 / endpoints.max(20)).await?;
        slow.until_called().await;
        Ok(())
    }

    fn client(&self) -> Result<Client, BenchError> {
        let setup = |error: &dyn std::fmt::Display| BenchError::Setup(error.to_string());
        let key = BearerKey::parse(self.api_key).map_err(|error| setup(&error))?;
        Client::new(&format!("http://{}", self.server.address), &key).map_err(|error| setup(&error))
    }

    async fn endpoint(&self, url: &str, event: &str) -> Result<(), BenchError> {
        let endpoint = json!({ "name": "neighbour", "url": url, "events": [event] });
        let made = self.client()?.post("/v1/webhook-endpoints", &endpoint).await;
        made.map(|_| ()).map_err(|error| BenchError::Setup(error.to_string()))
    }

    /// Publishes so many events, several requests at a time.
    async fn fill(&self, event_type: &str, events: usize) -> Result<(), BenchError> {
        let event = json!({ "type": event_type, "data": {} });
        let per_request = if event_type == THEIR_EVENT { FILL_BATCH } else { 1 };
        let body: Value = json!({ "events": vec![event; per_request] });
        let left = Arc::new(AtomicUsize::new(events.div_ceil(per_request)));
        let mut fillers = Vec::new();
        for _ in 0..8 {
            let (mut client, left, body) = (self.client()?, Arc::clone(&left), body.clone());
            fillers.push(tokio::spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    client
                        .post("/v1/events/batch", &body)
                        .await
                        .map_err(|error| BenchError::Setup(error.to_string()))?;
                }
                Ok::<_, BenchError>(())
            }));
        }
        for filler in fillers {
            filler.await.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

/// A receiver that takes its time.
struct Slow {
    address: SocketAddr,
    called: Arc<Notify>,
}

impl Slow {
    async fn start(answer_after: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let called = Arc::new(Notify::new());
        let notify = Arc::clone(&called);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer_after, Arc::clone(&notify)));
            }
        });
        Ok(Self { address, called })
    }

    async fn until_called(&self) {
        self.called.notified().await;
    }
}

async fn serve(mut stream: TcpStream, answer_after: Duration, called: Arc<Notify>) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(head)) = read_message(&mut stream, &mut buffer).await {
        called.notify_one();
        pass(&mut buffer, &head);
        tokio::time::sleep(answer_after).await;
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
            break;
        }
    }
}
