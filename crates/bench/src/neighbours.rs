//! Who shares the server with the healthy endpoint: endpoints that are slow or dead, in a workspace of their own.
//!
//! What they cost is the difference between two runs of one load: one without them, and one beside them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use postrider_local::client::{ApiFailure, Client};

use super::error::BenchError;
use super::test_bed::{TestBed, Workspace, text};
use super::wire::{pass, read_message};

/// Who moves in.
#[derive(Clone, Copy, Debug)]
pub enum Neighbours {
    /// One endpoint that takes 14 s for each answer.
    Slow,
    /// The same, and an endpoint where nobody listens, with this many deliveries queued.
    Dead { backlog: usize },
    /// 500 endpoints that take 14.9 s for each answer.
    AllSlow,
    /// Ten endpoints that were switched off with this many deliveries queued, which wait.
    Waiting { backlog: usize },
}

/// Nobody who is healthy waits for these: longer than any deadline but the one of 15 s.
const SLOW_ANSWER: Duration = Duration::from_secs(14);
const VERY_SLOW_ANSWER: Duration = Duration::from_millis(14_900);
/// The endpoints of the workspace that is slow as a whole.
const SLOW_ENDPOINTS: usize = 500;
/// Endpoints that were switched off; as many as one request of events may set off deliveries to.
const OFF_ENDPOINTS: usize = 10;
const SLOW_EVENT: &str = "post.scheduled";
const DEAD_EVENT: &str = "post.updated";
/// Events in one request that fills a queue; small ones, since it is their number that counts.
const FILL_BATCH: usize = 1_000;
/// Before a publish is tried again that the server had no room for.
const BREATH: Duration = Duration::from_millis(200);

impl Neighbours {
    /// Returns once their deliveries are under way.
    pub async fn start(self, test_bed: &mut TestBed) -> Result<(), BenchError> {
        let Some(workspace) = test_bed.workspaces("neighbour", 1).await?.pop() else { return Ok(()) };
        let neighbour = NeighbourWorkspace { test_bed, workspace };
        match self {
            Self::Slow => neighbour.slow(1, SLOW_ANSWER).await,
            Self::Dead { backlog } => {
                neighbour.dead(backlog).await?;
                neighbour.slow(1, SLOW_ANSWER).await
            }
            Self::AllSlow => neighbour.slow(SLOW_ENDPOINTS, VERY_SLOW_ANSWER).await,
            Self::Waiting { backlog } => neighbour.waiting(backlog).await,
        }
    }
}

/// Their workspace on the server.
struct NeighbourWorkspace<'s> {
    test_bed: &'s TestBed,
    workspace: Workspace,
}

impl NeighbourWorkspace<'_> {
    async fn slow(&self, endpoints: usize, answer_after: Duration) -> Result<(), BenchError> {
        let slow = SlowReceiver::start(answer_after).await?;
        for number in 0..endpoints {
            self.endpoint(&format!("http://{}/{number}", slow.address), SLOW_EVENT).await?;
        }
        // Each goes to all their slow endpoints, as many as one request may set off.
        self.fill(SLOW_EVENT, 20_000 / endpoints.max(20)).await?;
        slow.until_called().await;
        Ok(())
    }

    async fn dead(&self, backlog: usize) -> Result<(), BenchError> {
        self.endpoint(&closed().await?, DEAD_EVENT).await?;
        self.fill(DEAD_EVENT, backlog).await
    }

    /// An endpoint that is off when an event comes is skipped, so they are switched off with full queues.
    async fn waiting(&self, backlog: usize) -> Result<(), BenchError> {
        let mut endpoints = Vec::new();
        for _ in 0..OFF_ENDPOINTS {
            endpoints.push(self.endpoint(&closed().await?, DEAD_EVENT).await?);
        }
        self.fill(DEAD_EVENT, backlog / OFF_ENDPOINTS).await?;
        let mut client = self.test_bed.client(&self.workspace.key)?;
        for endpoint in endpoints {
            let path = format!("/v1/webhook-endpoints/{endpoint}");
            client.patch(&path, &json!({ "isActive": false })).await.map_err(BenchError::setup)?;
        }
        Ok(())
    }

    /// Answers with its id.
    async fn endpoint(&self, url: &str, event: &str) -> Result<String, BenchError> {
        let endpoint = json!({ "name": "neighbour", "url": url, "events": [event] });
        let mut client = self.test_bed.client(&self.workspace.key)?;
        let made = client.post("/v1/webhook-endpoints", &endpoint).await.map_err(BenchError::setup)?;
        text(&made, "id")
    }

    /// Publishes so many events, several requests at a time.
    async fn fill(&self, event_type: &str, events: usize) -> Result<(), BenchError> {
        let event = json!({ "type": event_type, "data": {} });
        let per_request = if event_type == DEAD_EVENT { FILL_BATCH } else { 1 };
        let body: Value = json!({ "events": vec![event; per_request] });
        let left = Arc::new(AtomicUsize::new(events.div_ceil(per_request)));
        let mut fillers = Vec::new();
        for _ in 0..8 {
            let (mut client, left, body) =
                (self.test_bed.client(&self.workspace.key)?, Arc::clone(&left), body.clone());
            fillers.push(tokio::spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    publish(&mut client, &body).await?;
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

/// Again for as long as the server asks for time to write down what it has.
async fn publish(client: &mut Client, body: &Value) -> Result<(), BenchError> {
    loop {
        match client.post("/v1/events/batch", body).await {
            Ok(_) => return Ok(()),
            Err(ApiFailure::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => {
                tokio::time::sleep(BREATH).await;
            }
            Err(failure) => return Err(BenchError::setup(failure)),
        }
    }
}

/// Where nobody listens: any more, once the listener is gone.
async fn closed() -> io::Result<String> {
    Ok(format!("http://{}/", TcpListener::bind("127.0.0.1:0").await?.local_addr()?))
}

/// A receiver that takes its time.
struct SlowReceiver {
    address: SocketAddr,
    called: Arc<Notify>,
}

impl SlowReceiver {
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
