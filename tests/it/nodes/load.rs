//! The load: publishers that repeat an unacknowledged request at any node, and receivers that fail now and then, answer
//! slowly, or have strict order.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Chance;
use super::fleet::Fleet;
use crate::support::app::text;
use crate::support::caller::{Caller, Reply};
use crate::support::receiver::{Answer, Behaviour, Received, Receiver};
use crate::support::wait::within;

const PUBLISHERS: usize = 6;
const TYPES: [&str; 3] = ["post.created", "post.updated", "note.created"];
/// Types for the strict endpoints. They are rare enough that these endpoints catch up soon after a lease delayed them.
const RARE_TYPES: [&str; 2] = ["source.created", "knowledge.indexed"];
/// One publish in this many is of a rare type.
const RARE: usize = 32;
/// A rare publish has this many events, which would overtake one another without strict order.
const RARE_AT_ONCE: usize = 5;
/// The request timeout, because a frozen node does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause before an unacknowledged request is repeated.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest wait for a few more acknowledged events.
const LONGEST: Duration = Duration::from_secs(60);
/// The answer time of an endpoint with strict order.
pub const STRICT_TAKES: Duration = Duration::from_millis(10);

/// The endpoint that is called up to its concurrency cap, and the event type that only it gets.
pub const CAPPED: &str = "capped";
pub const CAPPED_TYPE: &str = "job.failed";
/// Its answer time. It is so long that few events reach the cap. It is so far below one second that the endpoint counts
/// as quick even on a busy machine, because a slow endpoint gets a lower limit.
pub const CAPPED_TAKES: Duration = Duration::from_millis(600);

/// An endpoint and its receiver.
pub struct Endpoint {
    pub name: &'static str,
    pub events: &'static [&'static str],
    manner: Manner,
    receiver: Receiver,
    /// The times of its calls.
    calls: Arc<Mutex<Vec<Instant>>>,
}

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Usual,
    Slow,
    /// Has strict order: one delivery at a time.
    Strict,
    /// Always after [`CAPPED_TAKES`].
    Capped,
}

impl Endpoint {
    pub async fn start_all(chance: &mut Chance) -> Vec<Self> {
        let given: [(&str, &[&str], Manner); 7] = [
            ("all", &TYPES, Manner::Usual),
            ("created", &["post.created", "note.created"], Manner::Usual),
            ("updated", &["post.updated"], Manner::Usual),
            ("slow", &["post.updated", "note.created"], Manner::Slow),
            ("strict", &["source.created"], Manner::Strict),
            ("also strict", &RARE_TYPES, Manner::Strict),
            (CAPPED, &[CAPPED_TYPE], Manner::Capped),
        ];
        let mut endpoints = Vec::new();
        for (name, events, manner) in given {
            let receiver = Receiver::start().await;
            let (chance, calls) = (Mutex::new(chance.fork()), Arc::new(Mutex::new(Vec::new())));
            let called = Arc::clone(&calls);
            receiver.decide(move |request| {
                called.lock().unwrap().push(request.at);
                answer(request, manner, &mut chance.lock().unwrap())
            });
            endpoints.push(Self { name, events, manner, receiver, calls });
        }
        endpoints
    }

    /// The times of its calls, in order.
    pub fn calls(&self) -> Vec<Instant> {
        let mut calls = self.calls.lock().unwrap().clone();
        calls.sort_unstable();
        calls
    }

    pub fn is_strict(&self) -> bool {
        self.manner == Manner::Strict
    }

    pub fn url(&self) -> String {
        self.receiver.url("/")
    }

    pub fn received(&self) -> Vec<Received> {
        self.receiver.received()
    }
}

/// One first attempt in ten fails, so that retries are always pending too.
fn answer(request: &Received, manner: Manner, chance: &mut Chance) -> Behaviour {
    if manner == Manner::Capped {
        return Behaviour::Late(CAPPED_TAKES, Answer::status(200));
    }
    let is_first = request.header("scripe-delivery-attempt") == Some("1");
    let status = if is_first && chance.below(10) == 0 { 500 } else { 200 };
    match chance.below(20) {
        _ if manner == Manner::Strict => Behaviour::Late(STRICT_TAKES, Answer::status(status)),
        0 => Behaviour::Late(Duration::from_millis(500), Answer::status(status)),
        _ if manner == Manner::Slow => Behaviour::Late(Duration::from_millis(20), Answer::status(status)),
        _ => Behaviour::status(status),
    }
}

/// The result of publishing.
#[derive(Default)]
pub struct Published {
    /// The event's id and type for each acknowledged `externalId`.
    pub acknowledged: BTreeMap<String, (String, &'static str)>,
    pub unanswered: usize,
    pub unavailable: usize,
}

impl Published {
    pub fn append(&mut self, mut other: Self) {
        self.acknowledged.append(&mut other.acknowledged);
        self.unanswered += other.unanswered;
        self.unavailable += other.unavailable;
    }
}

/// The running publishers.
pub struct Load {
    acknowledged: Arc<watch::Sender<usize>>,
    over: CancellationToken,
    publishing: JoinSet<Published>,
}

impl Load {
    pub fn start(fleet: &Fleet, chance: &mut Chance) -> Self {
        let (acknowledged, over) = (Arc::new(watch::Sender::new(0)), CancellationToken::new());
        let mut publishing = JoinSet::new();
        for number in 0..PUBLISHERS {
            let publisher = Publisher {
                number,
                door: Door::to(fleet, chance),
                chance: chance.fork(),
                published: Published::default(),
            };
            publishing.spawn(publisher.run(Arc::clone(&acknowledged), over.clone()));
        }
        Self { acknowledged, over, publishing }
    }

    /// Waits until `more` further events have been acknowledged.
    pub async fn wait_for_more(&self, more: usize) {
        let mut counted = self.acknowledged.subscribe();
        let goal = *counted.borrow() + more;
        let explain = || format!("{goal} acknowledged events; there are {}", *self.acknowledged.borrow());
        within(LONGEST, counted.wait_for(|count| *count >= goal), explain).await.expect("it is counted on");
    }

    pub async fn finish(self) -> Published {
        self.over.cancel();
        let mut all = Published::default();
        self.publishing.join_all().await.into_iter().for_each(|published| all.append(published));
        all
    }
}

struct Publisher {
    number: usize,
    door: Door,
    chance: Chance,
    published: Published,
}

impl Publisher {
    async fn run(mut self, acknowledged: Arc<watch::Sender<usize>>, over: CancellationToken) -> Published {
        let mut sent = 0;
        while !over.is_cancelled() {
            let is_rare = self.chance.below(RARE) == 0;
            let (types, count): (&[&'static str], _) = if is_rare { (&RARE_TYPES, RARE_AT_ONCE) } else { (&TYPES, 1) };
            let ids = (sent..sent + count).map(|sent| format!("{}-{sent}", self.number));
            let new: Vec<_> = ids.map(|id| (id, types[self.chance.below(types.len())])).collect();
            sent += count;
            let event = |(id, event_type): &(String, &str)| json!({"type": event_type, "data": {"order": id}, "externalId": id});
            let events: Vec<Value> = new.iter().map(event).collect();
            let (path, body) = match &events[..] {
                [only] => ("/v1/events", only.to_string()),
                several => ("/v1/events/batch", json!({ "events": several }).to_string()),
            };
            let receipts = loop {
                match self.door.post(path, &body).await {
                    Some(Value::Array(receipts)) => break receipts,
                    Some(receipt) => break vec![receipt],
                    None if over.is_cancelled() => return self.finish(),
                    None => pause(&over).await,
                }
            };
            for ((id, event_type), receipt) in new.into_iter().zip(&receipts) {
                self.published.acknowledged.insert(id, (text(receipt, "id"), event_type));
            }
            acknowledged.send_modify(|acknowledged| *acknowledged += count);
        }
        self.finish()
    }

    fn finish(mut self) -> Published {
        self.published.unanswered += self.door.unanswered;
        self.published.unavailable += self.door.unavailable;
        self.published
    }
}

/// A client of all nodes.
pub struct Door {
    caller: Caller,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    chance: Chance,
    /// The nodes that did not answer. They are tried only now and then, as a load balancer would.
    avoided: HashSet<SocketAddr>,
    unanswered: usize,
    unavailable: usize,
}

impl Door {
    pub fn to(fleet: &Fleet, chance: &mut Chance) -> Self {
        let (caller, addresses) = (fleet.caller(0), Arc::clone(&fleet.addresses));
        Self { caller, addresses, chance: chance.fork(), avoided: HashSet::new(), unanswered: 0, unavailable: 0 }
    }

    /// Posts to one of the nodes. Returns the answer if the node acknowledged the request.
    pub async fn post(&mut self, path: &str, body: &str) -> Option<Value> {
        let address = self.choose();
        let Some(reply) = ask(&self.caller.at(address), path, body).await else {
            self.avoided.insert(address);
            self.unanswered += 1;
            return None;
        };
        self.avoided.remove(&address);
        match reply.status {
            200 | 202 => Some(reply.data(reply.status)),
            503 => {
                assert!(reply.header("retry-after").is_some(), "{}", reply.text());
                self.unavailable += 1;
                None
            }
            status => panic!("{body}: {status} {}", reply.text()),
        }
    }

    fn choose(&mut self) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap();
        let drawn = [(); 8].map(|()| addresses[self.chance.below(addresses.len())]);
        let mut others = drawn.into_iter().filter(|address| !self.avoided.contains(address));
        if self.chance.below(20) == 0 { drawn[0] } else { others.next().unwrap_or(drawn[0]) }
    }
}

/// Waits for [`PAUSE`], or until the test is over.
pub async fn pause(over: &CancellationToken) {
    let _ = tokio::time::timeout(PAUSE, over.cancelled()).await;
}

async fn ask(caller: &Caller, path: &str, body: &str) -> Option<Reply> {
    let asking = caller.try_send(Method::POST, path, Bytes::from(body.to_owned()));
    tokio::time::timeout(PATIENCE, async { asking.await.ok() }).await.ok().flatten()
}
