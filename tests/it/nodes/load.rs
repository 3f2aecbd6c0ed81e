//! Who publishes and who receives: publishers that take no answer for none and ask again elsewhere, and receivers that fail now and
//! then, take their time, or want one event after the other.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
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
/// For those who get one at a time: few enough that they have caught up soon after a lease that held them up.
const RARE_TYPES: [&str; 2] = ["source.created", "knowledge.indexed"];
/// One event in so many is of a rare type.
const RARE: usize = 8;
/// A node that stands still keeps whoever asks it waiting.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before the next try of what was not acknowledged.
const PAUSE: Duration = Duration::from_millis(50);
/// For a few more events to be acknowledged, in the worst moments of all.
const LONGEST: Duration = Duration::from_secs(60);
/// How long an answer of an endpoint with a strict order takes.
pub const STRICT_TAKES: Duration = Duration::from_millis(10);

/// An endpoint and who answers there.
pub struct Endpoint {
    pub name: &'static str,
    pub events: &'static [&'static str],
    manner: Manner,
    receiver: Receiver,
}

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Usual,
    Slow,
    /// It asked for one delivery at a time, in order.
    Strict,
}

impl Endpoint {
    pub async fn start_all(chance: &mut Chance) -> Vec<Self> {
        let given: [(&str, &[&str], Manner); 6] = [
            ("all", &TYPES, Manner::Usual),
            ("created", &["post.created", "note.created"], Manner::Usual),
            ("updated", &["post.updated"], Manner::Usual),
            ("slow", &["post.updated", "note.created"], Manner::Slow),
            ("strict", &["source.created"], Manner::Strict),
            ("also strict", &RARE_TYPES, Manner::Strict),
        ];
        let mut endpoints = Vec::new();
        for (name, events, manner) in given {
            let receiver = Receiver::start().await;
            let chance = Mutex::new(chance.fork());
            receiver.decide(move |request| answer(request, manner, &mut chance.lock().unwrap()));
            endpoints.push(Self { name, events, manner, receiver });
        }
        endpoints
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

    pub fn most_under_way(&self) -> usize {
        self.receiver.counts().most_under_way
    }
}

/// First attempts fail now and then, so that there are always retries on their way too.
fn answer(request: &Received, manner: Manner, chance: &mut Chance) -> Behaviour {
    let is_first = request.header("scripe-delivery-attempt") == Some("1");
    let status = if is_first && chance.below(10) == 0 { 500 } else { 200 };
    match chance.below(20) {
        _ if manner == Manner::Strict => Behaviour::Late(STRICT_TAKES, Answer::status(status)),
        0 => Behaviour::Late(Duration::from_millis(500), Answer::status(status)),
        _ if manner == Manner::Slow => Behaviour::Late(Duration::from_millis(20), Answer::status(status)),
        _ => Behaviour::status(status),
    }
}

/// What has been published.
#[derive(Default)]
pub struct Published {
    /// The event's id and type for each `externalId`.
    pub acknowledged: BTreeMap<String, (String, &'static str)>,
    pub unanswered: usize,
    pub unavailable: usize,
}

/// The publishers at work.
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
                caller: fleet.caller(0),
                addresses: Arc::clone(&fleet.addresses),
                chance: chance.fork(),
                avoided: HashSet::new(),
                published: Published::default(),
            };
            publishing.spawn(publisher.run(Arc::clone(&acknowledged), over.clone()));
        }
        Self { acknowledged, over, publishing }
    }

    /// Waits until so many more events have been acknowledged.
    pub async fn wait_for_more(&self, more: usize) {
        let mut counted = self.acknowledged.subscribe();
        let goal = *counted.borrow() + more;
        let explain = || format!("{goal} acknowledged events; there are {}", *self.acknowledged.borrow());
        within(LONGEST, counted.wait_for(|count| *count >= goal), explain).await.expect("it is counted on");
    }

    pub async fn finish(self) -> Published {
        self.over.cancel();
        let mut all = Published::default();
        for mut published in self.publishing.join_all().await {
            all.acknowledged.append(&mut published.acknowledged);
            all.unanswered += published.unanswered;
            all.unavailable += published.unavailable;
        }
        all
    }
}

struct Publisher {
    number: usize,
    caller: Caller,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    chance: Chance,
    /// Where there was no answer: asked now and then only, as a load balancer would.
    avoided: HashSet<SocketAddr>,
    published: Published,
}

impl Publisher {
    async fn run(mut self, acknowledged: Arc<watch::Sender<usize>>, over: CancellationToken) -> Published {
        for sent in 0.. {
            let external_id = format!("{}-{sent}", self.number);
            let types: &[&'static str] = if self.chance.below(RARE) == 0 { &RARE_TYPES } else { &TYPES };
            let event_type = types[self.chance.below(types.len())];
            let body =
                json!({"type": event_type, "data": {"order": external_id}, "externalId": external_id}).to_string();
            while !self.publish(&external_id, event_type, &body).await {
                if over.is_cancelled() {
                    return self.published;
                }
                let _ = tokio::time::timeout(PAUSE, over.cancelled()).await;
            }
            acknowledged.send_modify(|count| *count += 1);
            if over.is_cancelled() {
                break;
            }
        }
        self.published
    }

    fn choose(&mut self) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap();
        let drawn = [(); 8].map(|()| addresses[self.chance.below(addresses.len())]);
        let mut others = drawn.into_iter().filter(|address| !self.avoided.contains(address));
        if self.chance.below(20) == 0 { drawn[0] } else { others.next().unwrap_or(drawn[0]) }
    }

    /// Whether it was acknowledged, by whichever node it came to.
    async fn publish(&mut self, external_id: &str, event_type: &'static str, body: &str) -> bool {
        let address = self.choose();
        let Some(reply) = ask(&self.caller.at(address), body).await else {
            self.avoided.insert(address);
            self.published.unanswered += 1;
            return false;
        };
        self.avoided.remove(&address);
        match reply.status {
            200 | 202 => {
                let event = text(&reply.json()["data"], "id");
                self.published.acknowledged.insert(external_id.to_owned(), (event, event_type));
                true
            }
            503 => {
                assert!(reply.header("retry-after").is_some(), "{}", reply.text());
                self.published.unavailable += 1;
                false
            }
            status => panic!("{external_id}: {status} {}", reply.text()),
        }
    }
}

async fn ask(caller: &Caller, body: &str) -> Option<Reply> {
    let asking = caller.try_send(Method::POST, "/v1/events", Bytes::from(body.to_owned()));
    tokio::time::timeout(PATIENCE, async { asking.await.ok() }).await.ok().flatten()
}
