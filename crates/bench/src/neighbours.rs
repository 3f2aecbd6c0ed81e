//! Slow or dead endpoints in another workspace, which share the server with the measured endpoint.
//!
//! Two runs of the same load, without and with them, show their cost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use postrider_local::client::{ApiFailure, Client};

use super::error::BenchError;
use super::receiver::CountingReceiver;
use super::test_bed::{TestBed, Workspace, text};
use super::trial::retention_flags;

/// The kinds of neighbours.
#[derive(Clone, Copy, Debug)]
pub enum Neighbours {
    /// One endpoint that answers after 14 s.
    Slow,
    /// The same, and an endpoint without a listener that has this many queued deliveries.
    Dead { backlog: usize },
    /// 500 endpoints that answer after 14.9 s.
    AllSlow,
    /// Ten inactive endpoints with this many waiting deliveries.
    Waiting { backlog: usize },
    /// A log of this many deliveries, half of which retention takes as soon as the neighbours have started.
    Aged { deliveries: usize },
}

/// Longer than any deadline except the default of 15 s.
const SLOW_ANSWER: Duration = Duration::from_secs(14);
const VERY_SLOW_ANSWER: Duration = Duration::from_millis(14_900);
/// Endpoints of the workspace in which all are slow.
const SLOW_ENDPOINTS: usize = 500;
/// Inactive endpoints: a full batch to all of them reaches the limit of deliveries per request.
const INACTIVE_ENDPOINTS: usize = 10;
/// Endpoints that each event of a long log goes to.
const AGED_ENDPOINTS: usize = 10;
/// The shortest retention that a server accepts.
const RETENTION_MIN: Duration = Duration::from_secs(60);
const SLOW_EVENT: &str = "post.scheduled";
const DEAD_EVENT: &str = "post.updated";
/// Events per request when a queue is filled. They are small, because only their number matters.
const FILL_BATCH: usize = 1_000;
/// Wait before a publish is retried that the server refused with 503.
const RETRY_WAIT: Duration = Duration::from_millis(200);

impl Neighbours {
    /// Creates the neighbours. Returns when their deliveries are running.
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
            Self::Aged { deliveries } => {
                let age = neighbour.aged(deliveries).await?;
                test_bed.restart_with(&retention_flags(age)).await
            }
        }
    }
}

/// The workspace of the neighbours.
struct NeighbourWorkspace<'s> {
    test_bed: &'s TestBed,
    workspace: Workspace,
}

impl NeighbourWorkspace<'_> {
    async fn slow(&self, endpoints: usize, answer_after: Duration) -> Result<(), BenchError> {
        let slow = CountingReceiver::start(answer_after).await?;
        for number in 0..endpoints {
            self.endpoint(&slow.url(number), SLOW_EVENT).await?;
        }
        // Each event goes to all slow endpoints, up to 20,000 deliveries in all.
        self.fill(SLOW_EVENT, 20_000 / endpoints.max(20)).await?;
        slow.wait_for(1).await
    }

    async fn dead(&self, backlog: usize) -> Result<(), BenchError> {
        self.endpoint(&closed_url().await?, DEAD_EVENT).await?;
        self.fill(DEAD_EVENT, backlog).await
    }

    /// An event skips an inactive endpoint, so the endpoints are switched off after their queues are filled.
    async fn waiting(&self, backlog: usize) -> Result<(), BenchError> {
        let mut endpoints = Vec::new();
        for _ in 0..INACTIVE_ENDPOINTS {
            endpoints.push(self.endpoint(&closed_url().await?, DEAD_EVENT).await?);
        }
        self.fill(DEAD_EVENT, backlog / INACTIVE_ENDPOINTS).await?;
        let mut client = self.test_bed.client(&self.workspace.key)?;
        for endpoint in endpoints {
            let path = format!("/v1/webhook-endpoints/{endpoint}");
            client.patch(&path, &json!({ "isActive": false })).await.map_err(BenchError::setup)?;
        }
        Ok(())
    }

    /// Fills the log in two halves. Returns the age of the older half, which is at least the shortest retention.
    async fn aged(&self, deliveries: usize) -> Result<Duration, BenchError> {
        let receiver = CountingReceiver::start(Duration::ZERO).await?;
        for number in 0..AGED_ENDPOINTS {
            self.endpoint(&receiver.url(number), DEAD_EVENT).await?;
        }
        let half = deliveries / AGED_ENDPOINTS / 2;
        self.fill(DEAD_EVENT, half).await?;
        let middle = Instant::now();
        self.fill(DEAD_EVENT, half).await?;
        receiver.wait_for((half.next_multiple_of(FILL_BATCH) * AGED_ENDPOINTS * 2) as u64).await?;
        tokio::time::sleep(RETENTION_MIN.saturating_sub(middle.elapsed())).await;
        Ok(middle.elapsed())
    }

    /// Creates an endpoint and returns its id.
    async fn endpoint(&self, url: &str, event: &str) -> Result<String, BenchError> {
        let endpoint = json!({ "name": "neighbour", "url": url, "events": [event] });
        let mut client = self.test_bed.client(&self.workspace.key)?;
        let made = client.post("/v1/webhook-endpoints", &endpoint).await.map_err(BenchError::setup)?;
        text(&made, "id")
    }

    /// Publishes this many events with concurrent requests.
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

/// Publishes a batch. Retries while the server answers 503.
pub async fn publish(client: &mut Client, body: &Value) -> Result<(), BenchError> {
    loop {
        match client.post("/v1/events/batch", body).await {
            Ok(_) => return Ok(()),
            Err(ApiFailure::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => {
                tokio::time::sleep(RETRY_WAIT).await;
            }
            Err(failure) => return Err(BenchError::setup(failure)),
        }
    }
}

/// A URL without a listener: its port was free a moment ago.
pub async fn closed_url() -> io::Result<String> {
    Ok(format!("http://{}/", TcpListener::bind("127.0.0.1:0").await?.local_addr()?))
}
