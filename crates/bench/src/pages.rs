//! The time that the server takes for a page of the dashboard or for a list of the API over a long log.
//!
//! The log has `--backlog` deliveries. What filters look for is rare and oldest, so that a filter that reads the log
//! row by row reads all of it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use postrider_domain::time::Timestamp;
use postrider_local::client::{BearerKey, Client};

use super::error::BenchError;
use super::figures::quantiles;
use super::histogram::Histogram;
use super::neighbours::{closed_url, publish};
use super::options::BenchOptions;
use super::producer::connect;
use super::progress::Progress;
use super::receiver::CountingReceiver;
use super::test_bed::{StoreLocation, TestBed, text};
use super::wire::{consume, header, read_message};

/// The pages over one log.
pub struct Pages {
    deliveries: usize,
    rows: Vec<PageRow>,
}

struct PageRow {
    path: String,
    times: Histogram,
    /// Answers other than 200.
    refused: u64,
}

/// How often each page is asked for. The first answer counts too: it is what a visitor waits for.
const REPEATS: usize = 15;
/// A session of the dashboard may make 600 requests a minute.
const REQUESTS_PER_SESSION: usize = 500;
/// Endpoints that each event of the long log goes to: a full batch reaches the limit of deliveries per request.
const BUSY_ENDPOINTS: usize = 10;
const BATCH: usize = 1_000;
/// Endpoints of one project, each with a few deliveries.
const PROJECT_ENDPOINTS: usize = 300;
const PROJECT: &str = "project_large";

/// Fills a log and measures the pages over it.
///
/// # Errors
/// When the server does not start, or refuses what the log consists of.
pub async fn measure(options: &BenchOptions, store: &StoreLocation, progress: &Progress) -> Result<Pages, BenchError> {
    progress.begin("the pages", options.duration);
    let mut test_bed = TestBed::start(&options.program, store, options.nodes, &[]).await?;
    let Some(workspace) = test_bed.workspaces("pages", 1).await?.pop() else {
        return Err(BenchError::setup("there is no workspace"));
    };
    let sink = CountingReceiver::start(Duration::ZERO).await?;
    let log = Log { client: test_bed.client(&workspace.key)?, sink };
    let (deliveries, paths) = log.fill(options.backlog).await?;
    let mut visitor = Visitor::new(test_bed.server.address, &workspace.key);
    let mut rows: Vec<PageRow> =
        paths.into_iter().map(|path| PageRow { path, times: Histogram::default(), refused: 0 }).collect();
    for row in &mut rows {
        for _ in 0..REPEATS {
            let (status, took) = visitor.visit(&row.path).await?;
            row.times.record(took);
            row.refused += u64::from(status != 200);
        }
    }
    test_bed.stop().await?;
    Ok(Pages { deliveries, rows })
}

impl Pages {
    pub fn is_sound(&self) -> bool {
        self.rows.iter().all(|row| row.refused == 0)
    }

    pub fn table(&self) -> String {
        let mut text =
            format!("{:<95} {:>27}\n", format!("pages over {} deliveries", self.deliveries), "p50/p95/p99/max ms");
        for PageRow { path, times, refused } in &self.rows {
            let fault = if *refused > 0 { format!("  {refused} not answered with 200") } else { String::new() };
            let _ = writeln!(text, "{path:<95} {:>27}{fault}", quantiles(times));
        }
        text
    }

    pub fn json(&self) -> Value {
        let millis = |row: &PageRow, fraction| row.times.quantile(fraction).as_secs_f64() * 1000.0;
        let row = |row: &PageRow| {
            let (p50, max) = (millis(row, 0.5), millis(row, 1.0));
            json!({ "path": row.path, "p50Millis": p50, "maxMillis": max, "refused": row.refused })
        };
        json!({ "deliveries": self.deliveries, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}

/// The log to fill.
struct Log {
    client: Client,
    sink: CountingReceiver,
}

impl Log {
    /// Returns the number of deliveries, and the pages to ask for.
    async fn fill(mut self, deliveries: usize) -> Result<(usize, Vec<String>), BenchError> {
        let url = self.sink.url(0);
        let rare = self.endpoint("rare", &url, "knowledge.indexed", None).await?;
        self.publish("knowledge.indexed", 3).await?;
        let gone = self.endpoint("gone", &closed_url().await?, "source.created", None).await?;
        self.publish("source.created", 5).await?;
        self.client.delete(&format!("/v1/webhook-endpoints/{gone}")).await.map_err(BenchError::setup)?;
        let off = self.endpoint("off", &url, "note.created", None).await?;
        let change = json!({ "isActive": false });
        self.client.patch(&format!("/v1/webhook-endpoints/{off}"), &change).await.map_err(BenchError::setup)?;
        self.publish("note.created", 5).await?;
        self.publish("job.completed", 5).await?;
        let mut busy = String::new();
        for number in 0..BUSY_ENDPOINTS {
            busy = self.endpoint(&format!("busy {number}"), &url, "post.updated", None).await?;
        }
        let batches = deliveries.div_ceil(BUSY_ENDPOINTS * BATCH);
        let mut expected = 3;
        for _ in 0..batches {
            self.publish("post.updated", BATCH).await?;
            expected += (BUSY_ENDPOINTS * BATCH) as u64;
            // Some batches ahead of the deliveries, so that neither waits for the other and the queue stays small.
            self.sink.wait_for(expected.saturating_sub(5 * (BUSY_ENDPOINTS * BATCH) as u64)).await?;
        }
        for number in 0..PROJECT_ENDPOINTS {
            self.endpoint(&format!("of a project {number}"), &url, "post.scheduled", Some(PROJECT)).await?;
        }
        self.publish_of(Some(PROJECT), "post.scheduled", 10).await?;
        expected += 10 * PROJECT_ENDPOINTS as u64;
        self.sink.wait_for(expected).await?;
        self.endpoint("failing", &closed_url().await?, "job.failed", None).await?;
        self.publish("job.failed", 2 * BATCH).await?;
        let paths = self.paths(&rare, &busy).await?;
        Ok((batches * BUSY_ENDPOINTS * BATCH, paths))
    }

    async fn endpoint(
        &mut self,
        name: &str,
        url: &str,
        event: &str,
        project: Option<&str>,
    ) -> Result<String, BenchError> {
        let body = json!({ "name": name, "url": url, "events": [event], "projectId": project });
        text(&self.client.post("/v1/webhook-endpoints", &body).await.map_err(BenchError::setup)?, "id")
    }

    async fn publish(&mut self, event: &str, count: usize) -> Result<(), BenchError> {
        self.publish_of(None, event, count).await
    }

    async fn publish_of(&mut self, project: Option<&str>, event: &str, count: usize) -> Result<(), BenchError> {
        let event = json!({ "type": event, "projectId": project, "data": {} });
        for _ in 0..count.div_ceil(BATCH) {
            publish(&mut self.client, &json!({ "events": vec![event.clone(); count.min(BATCH)] })).await?;
        }
        Ok(())
    }

    async fn paths(&mut self, rare: &str, busy: &str) -> Result<Vec<String>, BenchError> {
        let newest =
            self.client.get("/v1/webhook-deliveries?eventType=post.updated").await.map_err(BenchError::setup)?;
        let of_newest = |field: &str| newest["data"][0][field].as_str().unwrap_or_default().to_owned();
        let (delivery, event) = (of_newest("id"), of_newest("eventId"));
        let cursor = newest["pagination"]["next_cursor"].as_str().unwrap_or_default();
        let deliveries = [
            "",
            "?status=pending",
            "?status=failed",
            "?status=delivered",
            "?status=skipped",
            "?status=cancelled",
            "?status=simulated",
            "?eventType=knowledge.indexed",
            "?eventType=knowledge.indexed&status=failed",
            "?eventType=job.failed",
            "?outcome=timeout",
            "?outcome=connect_failed",
            "?responseStatus=5xx",
            "?responseStatus=204",
            "?cause=replay",
            "?projectId=project_large",
            "?projectId=project_none",
            "?period=1h",
            "?period=30d&status=cancelled",
        ];
        let mut paths = Vec::new();
        paths.extend(["1h", "24h", "7d", "30d"].map(|period| format!("/dashboard?period={period}")));
        paths.extend(deliveries.map(|filter| format!("/dashboard/deliveries{filter}")));
        paths.push(format!("/dashboard/deliveries?endpointId={rare}"));
        paths.push(format!("/dashboard/deliveries?endpointId={busy}&status=failed"));
        paths.push(format!("/dashboard/deliveries?cursor={cursor}"));
        paths.push(format!("/dashboard/deliveries/{delivery}"));
        let events = [
            "",
            "?deliveries=none",
            "?eventType=knowledge.indexed",
            "?eventType=post.unscheduled",
            "?projectId=project_large",
        ];
        paths.extend(events.map(|filter| format!("/dashboard/events{filter}")));
        paths.push(format!("/dashboard/events/{event}"));
        paths.extend(
            ["", "?event=knowledge.indexed", "?projectId=project_large"]
                .map(|filter| format!("/dashboard/endpoints{filter}")),
        );
        paths.extend([rare, busy].map(|endpoint| format!("/dashboard/endpoints/{endpoint}")));
        paths.extend(
            ["event-types", "event-types/post.updated", "keys", "audit", "settings"]
                .map(|page| format!("/dashboard/{page}")),
        );
        paths.push(format!("/dashboard/search?q={}", "127.0.0.1"));
        let now = Timestamp::parse(&of_newest("createdAt")).map_err(BenchError::setup)?;
        let ago = |hours: u64| now.minus(Duration::from_secs(hours * 3_600));
        for (hours, bucket) in [(24, "minute"), (24, "hour"), (24 * 30, "day")] {
            for scope in ["".to_owned(), format!("&endpointId={busy}"), format!("&projectId={PROJECT}")] {
                paths.push(format!("/v1/stats?since={}&bucket={bucket}{scope}", ago(hours)));
            }
        }
        paths.extend(
            ["", "?status=cancelled", "?eventType=knowledge.indexed"]
                .map(|filter| format!("/v1/webhook-deliveries{filter}")),
        );
        Ok(paths)
    }
}

/// Asks for pages with a cookie, and for the API's lists with the key.
struct Visitor<'k> {
    server: SocketAddr,
    key: &'k BearerKey,
    session: Option<Session>,
}

struct Session {
    stream: TcpStream,
    buffer: BytesMut,
    cookie: String,
    requests_left: usize,
}

impl<'k> Visitor<'k> {
    const fn new(server: SocketAddr, key: &'k BearerKey) -> Self {
        Self { server, key, session: None }
    }

    /// The status, and the time from the request to the end of the answer.
    async fn visit(&mut self, path: &str) -> Result<(u16, Duration), BenchError> {
        let mut session = match self.session.take().filter(|session| session.requests_left > 0) {
            Some(session) => session,
            None => Session::sign_in(self.server, self.key).await?,
        };
        session.requests_left -= 1;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            self.server,
            session.cookie,
            self.key.reveal()
        );
        let asked = Instant::now();
        session.stream.write_all(head.as_bytes()).await?;
        let answer = read_message(&mut session.stream, &mut session.buffer).await?;
        let took = asked.elapsed();
        let answer = answer.ok_or_else(|| BenchError::setup("the server closed the connection"))?;
        let status = status(&session.buffer);
        consume(&mut session.buffer, &answer);
        self.session = Some(session);
        Ok((status, took))
    }
}

impl Session {
    async fn sign_in(server: SocketAddr, key: &BearerKey) -> Result<Self, BenchError> {
        let body = format!("key={}", key.reveal());
        let request = format!(
            "POST /dashboard/login HTTP/1.1\r\nHost: {server}\r\nOrigin: http://{server}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (mut stream, mut buffer) = (connect(server).await?, BytesMut::new());
        stream.write_all(request.as_bytes()).await?;
        let refused = || BenchError::setup("the dashboard refused the sign-in");
        let answer = read_message(&mut stream, &mut buffer).await?.ok_or_else(refused)?;
        let cookie = header(&buffer[..answer.length], b"set-cookie").ok_or_else(refused)?;
        let cookie =
            String::from_utf8_lossy(cookie.split(|byte| *byte == b';').next().unwrap_or_default()).into_owned();
        consume(&mut buffer, &answer);
        Ok(Self { stream, buffer, cookie, requests_left: REQUESTS_PER_SESSION })
    }
}

/// The status in the head of an answer. 0 if there is none.
fn status(answer: &[u8]) -> u16 {
    let text = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    text.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
