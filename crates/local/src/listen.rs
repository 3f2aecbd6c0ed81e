//! Consumes a listener on the developer's machine: leases deliveries, checks their signatures, passes each on to a
//! local server, and settles it with the local answer.
//!
//! The queue is on the server, so nothing is lost here: what is not settled goes out again. A local server that refuses
//! connections is no attempt. Its deliveries are released, and the next lease waits until somebody listens there.
//!
//! One loop owns everything. Three calls to the server may be under way beside the deliveries: a lease that waits, a
//! renewal, and a settlement. Each has a connection of its own.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use postrider_crypto::{MacKey, Random};
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

use super::client::{ApiFailure, Client, StatusCode};
use super::forward::{ForwardFault, ForwardTarget, LocalAnswer};
use super::reconnect::{Backoff, is_passing};
use super::verify::verify;

/// How to consume.
pub struct ListenParts {
    pub client: Client,
    pub listener_id: String,
    /// Checks signatures. `None` when the secret is not known.
    pub key: Option<MacKey>,
    pub target: ForwardTarget,
    /// Headers that the user adds.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For one answer of the local server.
    pub timeout: Duration,
    pub max_in_flight: usize,
    /// Ends after so many deliveries.
    pub exit_after: Option<u64>,
    /// Ends when the server was away for so long.
    pub max_offline: Option<Duration>,
    pub random: Random,
    pub now: fn() -> Timestamp,
}

/// A leased delivery.
#[derive(Clone, Debug)]
pub struct Leased {
    pub delivery_id: String,
    pub token: String,
    pub attempt: u64,
    pub headers: Arc<HeaderMap>,
    pub body: Bytes,
}

impl Leased {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The name of the event, as the envelope has it.
    pub fn event_type(&self) -> String {
        #[derive(Deserialize)]
        struct Envelope {
            r#type: String,
        }
        serde_json::from_slice::<Envelope>(&self.body).map(|envelope| envelope.r#type).unwrap_or_default()
    }
}

/// What happens while a listener is consumed.
#[derive(Debug)]
pub enum ListenEvent<'e> {
    /// A delivery is passed on.
    Forwarding(&'e Leased),
    /// The local server has answered, or has not.
    Answered(&'e Leased, Result<&'e LocalAnswer, &'e ForwardFault>),
    /// The signature does not verify. The delivery was not passed on.
    NotGenuine(&'e Leased, String),
    /// Nobody listens at the target. What was leased is given back.
    LocalDown(&'e ForwardFault),
    LocalUp {
        after: Duration,
    },
    /// The server is away.
    Reconnecting(&'e ApiFailure),
    Reconnected {
        after: Duration,
        waited: usize,
    },
    /// The lease had ended: the delivery goes out again.
    LeaseLost(&'e str),
}

/// Who is told. An answer of `false` means that nobody listens any more.
pub trait Audience {
    type Fault;

    /// # Errors
    /// When it cannot be shown.
    fn show(&mut self, event: ListenEvent<'_>) -> Result<bool, Self::Fault>;
}

/// Why listening ended without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenEnd {
    /// So many deliveries as were asked for.
    Enough,
    /// Nobody reads what is shown.
    Unread,
    Stopped,
}

#[derive(Debug)]
pub enum ListenFault<F> {
    Api(ApiFailure),
    /// The server was away for longer than the user wants to wait.
    Offline(ApiFailure),
    Show(F),
}

type Call<T> = Pin<Box<dyn Future<Output = (Client, T, Result<Value, ApiFailure>)> + Send>>;

/// A result to report.
#[derive(Clone, Debug)]
struct Report {
    delivery_id: String,
    body: Value,
}

pub struct Listening {
    parts: ListenParts,
    path: String,
    leasing: Option<Call<()>>,
    renewing: Option<Call<()>>,
    settling: Option<Call<Vec<Report>>>,
    /// The connections that are not in use.
    clients: Vec<Client>,
    /// By delivery: the token of each lease that is held.
    held: BTreeMap<String, String>,
    reports: Vec<Report>,
    forwards: JoinSet<(Leased, Result<LocalAnswer, ForwardFault>)>,
    backoff: Backoff,
    ask_at: Instant,
    settle_at: Instant,
    renew_at: Instant,
    lost_since: Option<Instant>,
    down_since: Option<Instant>,
    handled: u64,
    is_stopping: bool,
}

impl Listening {
    pub fn new(parts: ListenParts) -> Self {
        let now = Instant::now();
        let clients = (0..3).map(|_| parts.client.another()).collect();
        let path = format!("/v1/listeners/{}", parts.listener_id);
        Self {
            parts,
            path,
            leasing: None,
            renewing: None,
            settling: None,
            clients,
            held: BTreeMap::new(),
            reports: Vec::new(),
            forwards: JoinSet::new(),
            backoff: Backoff::default(),
            ask_at: now,
            settle_at: now,
            renew_at: now + limits::LISTEN_RENEWS_EVERY,
            lost_since: None,
            down_since: None,
            handled: 0,
            is_stopping: false,
        }
    }

    /// Deliveries that were answered and recorded.
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// Consumes until enough was handled, nobody reads, or `stop` completes. Then waits shortly for the local server,
    /// and gives back what it has not answered.
    ///
    /// # Errors
    /// When the server refuses, or is away for too long.
    pub async fn run<A: Audience>(
        &mut self,
        audience: &mut A,
        stop: impl Future<Output = ()>,
    ) -> Result<ListenEnd, ListenFault<A::Fault>> {
        let mut stop = std::pin::pin!(stop);
        let mut drained_at: Option<Instant> = None;
        let mut end = ListenEnd::Stopped;
        loop {
            self.start_calls();
            if self.is_stopping {
                let is_over = drained_at.is_some_and(|at| Instant::now() >= at);
                if is_over && !self.forwards.is_empty() {
                    self.give_up_forwards();
                    continue;
                }
                if self.forwards.is_empty() && self.settling.is_none() && (self.reports.is_empty() || is_over) {
                    return Ok(end);
                }
            }
            let tick = self.next_tick(drained_at);
            let going_on = tokio::select! {
                (client, (), leased) = called(&mut self.leasing) => {
                    self.leasing = None;
                    self.clients.push(client);
                    self.took(audience, leased)?
                }
                (client, (), renewed) = called(&mut self.renewing) => {
                    self.renewing = None;
                    self.clients.push(client);
                    self.renewed(audience, renewed)?
                }
                (client, reports, settled) = called(&mut self.settling) => {
                    self.settling = None;
                    self.clients.push(client);
                    self.settled(audience, reports, settled)?
                }
                Some(done) = self.forwards.join_next() => match done {
                    Ok((leased, answer)) => self.answered(audience, &leased, answer)?,
                    Err(_) => true,
                },
                () = sleep_until(tick) => self.look_at_local(audience).await?,
                () = &mut stop, if !self.is_stopping => {
                    self.stop(&mut drained_at);
                    true
                }
            };
            let is_enough = self.parts.exit_after.is_some_and(|enough| self.handled >= enough);
            if (!going_on || is_enough) && !self.is_stopping {
                end = if going_on { ListenEnd::Enough } else { ListenEnd::Unread };
                self.stop(&mut drained_at);
            }
        }
    }

    fn stop(&mut self, drained_at: &mut Option<Instant>) {
        self.is_stopping = true;
        // What this call would still lease goes out again when the lease lapses, or with the listener.
        self.leasing = None;
        *drained_at = Some(Instant::now() + limits::LISTEN_DRAIN);
    }

    fn give_up_forwards(&mut self) {
        self.forwards.abort_all();
        self.forwards = JoinSet::new();
        let reported: Vec<&String> = self.reports.iter().map(|report| &report.delivery_id).collect();
        let open: Vec<Report> = self
            .held
            .iter()
            .filter(|(delivery_id, _)| !reported.contains(delivery_id))
            .map(|(delivery_id, token)| report(delivery_id, token, json!({ "release": true })))
            .collect();
        self.reports.extend(open);
        self.settle_at = Instant::now();
    }

    /// Starts what is due and has a connection.
    fn start_calls(&mut self) {
        let now = Instant::now();
        let room = self.room();
        if self.settling.is_none() && !self.reports.is_empty() && now >= self.settle_at {
            let most = usize::try_from(limits::LEASES_PER_REQUEST).unwrap_or(usize::MAX);
            let reports: Vec<Report> = self.reports.drain(..self.reports.len().min(most)).collect();
            let results: Vec<&Value> = reports.iter().map(|report| &report.body).collect();
            self.settling = self.call("settle", json!({ "results": results }), reports);
        }
        if self.renewing.is_none() && !self.held.is_empty() && now >= self.renew_at {
            self.renew_at = now + limits::LISTEN_RENEWS_EVERY;
            let held = self.held.iter().take(100);
            let lease = |(id, token)| json!({ "deliveryId": id, "leaseToken": token });
            let leases: Vec<Value> = held.map(lease).collect();
            self.renewing = self.call("renew", json!({ "leases": leases }), ());
        }
        let may_ask = !self.is_stopping && self.down_since.is_none() && room > 0 && now >= self.ask_at;
        if self.leasing.is_none() && may_ask {
            // A server that was lost is asked without a wait, so that its return shows at once.
            let wait = if self.lost_since.is_some() { 0 } else { limits::LISTEN_WAIT.as_secs() };
            self.leasing = self.call("lease", json!({ "max": room.min(100), "waitSeconds": wait }), ());
        }
    }

    /// How many more deliveries may be leased.
    fn room(&self) -> usize {
        let held = self.held.len();
        let wanted = self
            .parts
            .exit_after
            .map(|enough| usize::try_from(enough.saturating_sub(self.handled)).unwrap_or(usize::MAX));
        self.parts.max_in_flight.min(wanted.unwrap_or(usize::MAX)).saturating_sub(held)
    }

    fn call<T: Send + 'static>(&mut self, verb: &str, body: Value, with: T) -> Option<Call<T>> {
        let (mut client, path) = (self.clients.pop()?, format!("{}/{verb}", self.path));
        Some(Box::pin(async move {
            let answer = client.post(&path, &body).await;
            (client, with, answer)
        }))
    }

    /// When to look again without an event.
    fn next_tick(&self, drained_at: Option<Instant>) -> Instant {
        let now = Instant::now();
        let mut tick = now + Duration::from_secs(1);
        if self.down_since.is_some() {
            tick = now + LOCAL_PROBE_WAIT;
        }
        for at in [Some(self.ask_at), Some(self.settle_at), drained_at].into_iter().flatten() {
            if at > now {
                tick = tick.min(at);
            }
        }
        tick
    }

    fn took<A: Audience>(
        &mut self,
        audience: &mut A,
        leased: Result<Value, ApiFailure>,
    ) -> Result<bool, ListenFault<A::Fault>> {
        let answer = match leased {
            Ok(answer) => answer,
            Err(failure) => return self.lost(audience, failure),
        };
        let items = answer["data"].as_array().cloned().unwrap_or_default();
        self.backoff = Backoff::default();
        let mut going_on = true;
        if let Some(since) = self.lost_since.take() {
            let event = ListenEvent::Reconnected { after: since.elapsed(), waited: items.len() };
            going_on &= audience.show(event).map_err(ListenFault::Show)?;
        }
        for item in &items {
            let Some(leased) = read_lease(item) else { continue };
            self.held.insert(leased.delivery_id.clone(), leased.token.clone());
            if self.down_since.is_some() {
                // This was asked for while the local server was still there.
                self.reports.push(report(&leased.delivery_id, &leased.token, json!({ "release": true })));
            } else {
                going_on &= self.forward(audience, leased)?;
            }
        }
        Ok(going_on)
    }

    /// Passes one delivery on.
    fn forward<A: Audience>(&mut self, audience: &mut A, leased: Leased) -> Result<bool, ListenFault<A::Fault>> {
        if let Some(key) = &self.parts.key
            && let Err(fault) = verify(key, &leased.headers, &leased.body, (self.parts.now)())
        {
            let fault = fault.to_string();
            let error = format!("postrider listen: {fault}");
            self.reports.push(report(&leased.delivery_id, &leased.token, json!({ "error": error })));
            return audience.show(ListenEvent::NotGenuine(&leased, fault)).map_err(ListenFault::Show);
        }
        let going_on = audience.show(ListenEvent::Forwarding(&leased)).map_err(ListenFault::Show)?;
        let (target, headers) = (self.parts.target.clone(), self.parts.headers.clone());
        let timeout = self.parts.timeout;
        self.forwards.spawn(async move {
            let answer = target.send(&leased.headers, &headers, leased.body.clone(), timeout).await;
            (leased, answer)
        });
        Ok(going_on)
    }

    fn answered<A: Audience>(
        &mut self,
        audience: &mut A,
        leased: &Leased,
        answer: Result<LocalAnswer, ForwardFault>,
    ) -> Result<bool, ListenFault<A::Fault>> {
        let (result, event) = match &answer {
            Err(fault @ ForwardFault::Unreachable { .. }) => {
                let released = report(&leased.delivery_id, &leased.token, json!({ "release": true }));
                self.reports.push(released);
                if self.down_since.is_some() {
                    return Ok(true);
                }
                self.down_since = Some(Instant::now());
                return audience.show(ListenEvent::LocalDown(fault)).map_err(ListenFault::Show);
            }
            Err(fault) => {
                let text: String = Chain(fault).to_string().chars().take(limits::SETTLED_ERROR_CHARS).collect();
                (json!({ "error": text }), ListenEvent::Answered(leased, Err(fault)))
            }
            Ok(local) => {
                let result = json!({
                    "status": local.status.clamp(100, 599),
                    "durationMs": u32::try_from(local.took.as_millis()).unwrap_or(u32::MAX),
                });
                (result, ListenEvent::Answered(leased, Ok(local)))
            }
        };
        self.reports.push(report(&leased.delivery_id, &leased.token, result));
        audience.show(event).map_err(ListenFault::Show)
    }

    fn settled<A: Audience>(
        &mut self,
        audience: &mut A,
        reports: Vec<Report>,
        settled: Result<Value, ApiFailure>,
    ) -> Result<bool, ListenFault<A::Fault>> {
        let mut going_on = true;
        match settled {
            Err(failure @ ApiFailure::Refused { status: StatusCode::CONFLICT, .. }) => {
                drop(failure);
                for report in &reports {
                    self.held.remove(&report.delivery_id);
                    going_on &= self.lost_lease(audience, report)?;
                }
            }
            Err(failure) => {
                self.reports.splice(0..0, reports);
                self.settle_at = Instant::now() + SETTLE_AGAIN;
                return self.lost(audience, failure);
            }
            Ok(answer) => {
                for (report, result) in reports.iter().zip(answer["data"].as_array().into_iter().flatten()) {
                    self.held.remove(&report.delivery_id);
                    match result["result"].as_str() {
                        Some("recorded") => self.handled += 1,
                        Some("lease_lost") => going_on &= self.lost_lease(audience, report)?,
                        _ => {}
                    }
                }
            }
        }
        Ok(going_on)
    }

    fn lost_lease<A: Audience>(&mut self, audience: &mut A, report: &Report) -> Result<bool, ListenFault<A::Fault>> {
        // What was never passed on has not arrived twice.
        if report.body.get("release").is_some() {
            return Ok(true);
        }
        audience.show(ListenEvent::LeaseLost(&report.delivery_id)).map_err(ListenFault::Show)
    }

    /// A renewal that fails changes nothing here: a settlement tells which leases were lost.
    fn renewed<A: Audience>(
        &mut self,
        audience: &mut A,
        renewed: Result<Value, ApiFailure>,
    ) -> Result<bool, ListenFault<A::Fault>> {
        match renewed {
            Ok(_) | Err(ApiFailure::Refused { status: StatusCode::CONFLICT, .. }) => Ok(true),
            Err(failure) => self.lost(audience, failure),
        }
    }

    /// The server is away, or refuses for good.
    fn lost<A: Audience>(&mut self, audience: &mut A, failure: ApiFailure) -> Result<bool, ListenFault<A::Fault>> {
        if !is_passing(&failure) {
            return Err(ListenFault::Api(failure));
        }
        self.ask_at = Instant::now() + self.backoff.wait_after(&failure, &self.parts.random);
        match self.lost_since {
            Some(since) if self.parts.max_offline.is_some_and(|most| since.elapsed() >= most) => {
                Err(ListenFault::Offline(failure))
            }
            Some(_) => Ok(true),
            None => {
                self.lost_since = Some(Instant::now());
                audience.show(ListenEvent::Reconnecting(&failure)).map_err(ListenFault::Show)
            }
        }
    }

    /// Whether the local server is there again.
    async fn look_at_local<A: Audience>(&mut self, audience: &mut A) -> Result<bool, ListenFault<A::Fault>> {
        let Some(since) = self.down_since else { return Ok(true) };
        if self.is_stopping || !self.parts.target.is_up().await {
            return Ok(true);
        }
        self.down_since = None;
        audience.show(ListenEvent::LocalUp { after: since.elapsed() }).map_err(ListenFault::Show)
    }
}

/// Between two looks at a local server that is down.
const LOCAL_PROBE_WAIT: Duration = Duration::from_millis(500);
/// Before a settlement that failed is sent again. The lease lasts far longer.
const SETTLE_AGAIN: Duration = Duration::from_secs(1);

async fn called<T>(call: &mut Option<Call<T>>) -> (Client, T, Result<Value, ApiFailure>) {
    match call {
        Some(call) => call.as_mut().await,
        None => pending().await,
    }
}

fn report(delivery_id: &str, token: &str, mut result: Value) -> Report {
    result["deliveryId"] = delivery_id.into();
    result["leaseToken"] = token.into();
    Report { delivery_id: delivery_id.to_owned(), body: result }
}

/// `None` when a later server says it in words that are not known here. The lease lapses.
fn read_lease(item: &Value) -> Option<Leased> {
    let mut headers = HeaderMap::new();
    for header in item["headers"].as_array()? {
        let name = HeaderName::from_bytes(header["name"].as_str()?.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(header["value"].as_str()?).ok()?);
    }
    Some(Leased {
        delivery_id: item["deliveryId"].as_str()?.to_owned(),
        token: item["leaseToken"].as_str()?.to_owned(),
        attempt: item["attempt"].as_u64().unwrap_or_default(),
        headers: Arc::new(headers),
        body: BASE64_STANDARD.decode(item["body"].as_str()?).ok()?.into(),
    })
}
