//! What callers do while the power may fail: publish, and change what the registry holds. Each notes in the ledger what
//! was acknowledged.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::ledger::{Ledger, data_of};
use crate::server::Shared;
use crate::support::app::text;
use crate::support::caller::{Caller, Reply};

const PUBLISHERS: usize = 3;
/// Refusals in a row after which a publisher gives up, as when a flush has failed.
const REFUSALS_MAX: usize = 10;
/// Events of a batch when they are large.
const BATCH: usize = 12;

/// One caller's view of a running server.
#[derive(Clone)]
pub struct Client {
    pub caller: Caller,
    pub ledger: Shared<Ledger>,
    /// Answers 503 are no violation.
    pub may_refuse: bool,
}

/// How a request ended.
enum Answer {
    Done(Reply),
    Refused,
    /// The server is gone. The effect may hold.
    Gone,
}

impl Client {
    pub fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        change(&mut self.ledger.lock().expect("no holder panics"))
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Answer, String> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        match self.caller.try_send(method.clone(), path, body).await {
            Err(_) => Ok(Answer::Gone),
            Ok(reply) if matches!(reply.status, 200 | 202 | 204) => Ok(Answer::Done(reply)),
            Ok(reply) if reply.status == 503 && self.may_refuse => Ok(Answer::Refused),
            // The server may lose its power between the commit and the answer, and answers nothing then.
            Ok(reply) => Err(format!("{method} {path} was answered {} {}", reply.status, reply.text())),
        }
    }

    /// Creates the endpoint, or gets the answer that an earlier life gave. Returns whether it is there.
    pub async fn ensure_endpoint(&self, url: &str) -> Result<bool, String> {
        if self.change(|ledger| ledger.endpoint.is_some()) {
            return Ok(true);
        }
        let body = json!({"name": "first", "url": url, "events": ["post.created"]});
        let once = Self { caller: self.caller.keyed("endpoint"), ..self.clone() };
        let Answer::Done(reply) = once.send(Method::POST, "/v1/webhook-endpoints", &body).await? else {
            return Ok(false);
        };
        let made = reply.json()["data"].take();
        self.change(|ledger| {
            ledger.endpoint = Some(text(&made, "id"));
            ledger.secrets.push(text(&made, "secret"));
            ledger.name = "first".to_owned();
        });
        Ok(true)
    }

    /// Publishes until so many events are acknowledged in all, or the server is gone.
    pub async fn publish_until(self, goal: usize) -> Result<(), String> {
        let mut refusals = 0;
        while refusals < REFUSALS_MAX && self.change(|ledger| ledger.events.len()) < goal {
            let large = self.change(|ledger| ledger.large);
            let ids = self.change(|ledger| ledger.next_events(if large { BATCH } else { 1 }));
            let event = |id: &String| json!({"type": "post.created", "data": data_of(id, large), "externalId": id});
            let (path, body) = match &ids[..] {
                [only] => ("/v1/events", event(only)),
                all => ("/v1/events/batch", json!({"events": all.iter().map(event).collect::<Vec<_>>()})),
            };
            let answer = self.send(Method::POST, path, &body).await?;
            let Answer::Done(reply) = answer else {
                self.change(|ledger| ledger.unanswered.extend(ids));
                if matches!(answer, Answer::Gone) {
                    return Ok(());
                }
                refusals += 1;
                continue;
            };
            refusals = 0;
            let data = reply.json()["data"].take();
            let receipts = data.as_array().cloned().unwrap_or_else(|| vec![data]);
            for (id, receipt) in ids.iter().zip(&receipts) {
                self.change(|ledger| ledger.acknowledge(id, text(receipt, "id")))?;
            }
        }
        Ok(())
    }

    /// Changes the registry at random, `count` times or until the server is gone.
    pub async fn operate(self, mut chance: Chance, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let alive = match chance.below(5) {
                0 => self.rename(&mut chance).await?,
                1 => self.rotate().await?,
                2 => self.create_key().await?,
                3 => self.revoke_key().await?,
                _ => self.replay().await?,
            };
            if !alive {
                break;
            }
        }
        Ok(())
    }

    fn endpoint_path(&self) -> String {
        let id = self.change(|ledger| ledger.endpoint.clone()).expect("an endpoint");
        format!("/v1/webhook-endpoints/{id}")
    }

    async fn rename(&self, chance: &mut Chance) -> Result<bool, String> {
        let name = format!("name-{}", chance.next());
        self.change(|ledger| ledger.names_unanswered.push(name.clone()));
        let answer = self.send(Method::PATCH, &self.endpoint_path(), &json!({ "name": name })).await?;
        if let Answer::Done(_) = answer {
            self.change(|ledger| {
                ledger.name = name;
                ledger.names_unanswered.clear();
            });
        }
        Ok(!matches!(answer, Answer::Gone))
    }

    async fn rotate(&self) -> Result<bool, String> {
        let path = format!("{}/rotate-secret", self.endpoint_path());
        let answer = self.send(Method::POST, &path, &json!({"overlapSeconds": 3600})).await?;
        self.change(|ledger| match &answer {
            Answer::Done(reply) => {
                ledger.secrets.push(text(&reply.json()["data"], "secret"));
                ledger.rotation_unanswered = false;
            }
            Answer::Refused | Answer::Gone => {
                ledger.rotation_unanswered = true;
                ledger.rotations_unanswered += 1;
            }
        });
        Ok(!matches!(answer, Answer::Gone))
    }

    async fn create_key(&self) -> Result<bool, String> {
        let answer = self.send(Method::POST, "/v1/api-keys", &json!({"scopes": ["events:read"]})).await?;
        if let Answer::Done(reply) = &answer {
            let made = &reply.json()["data"];
            self.change(|ledger| ledger.keys.insert(text(made, "id"), (text(made, "key"), Some(false))));
        }
        Ok(!matches!(answer, Answer::Gone))
    }

    async fn revoke_key(&self) -> Result<bool, String> {
        let live =
            |ledger: &mut Ledger| ledger.keys.iter().find(|(_, key)| key.1 == Some(false)).map(|(id, _)| id.clone());
        let Some(id) = self.change(live) else { return Ok(true) };
        let mark = |revoked| self.change(|ledger| ledger.keys.get_mut(&id).expect("a key").1 = revoked);
        mark(None);
        let answer = self.send(Method::DELETE, &format!("/v1/api-keys/{id}"), &Value::Null).await?;
        if let Answer::Done(_) = answer {
            mark(Some(true));
        }
        Ok(!matches!(answer, Answer::Gone))
    }

    async fn replay(&self) -> Result<bool, String> {
        let path = format!("{}/replay", self.endpoint_path());
        let body = json!({"since": "2020-01-01T00:00:00Z", "statuses": ["failed", "skipped"]});
        let answer = self.send(Method::POST, &path, &body).await?;
        if let Answer::Done(reply) = &answer {
            self.change(|ledger| ledger.replays.insert(text(&reply.json()["data"], "id")));
        }
        Ok(!matches!(answer, Answer::Gone))
    }
}

/// Runs publishers and an operator until so many events are acknowledged, or the server is gone.
pub async fn run(client: &Client, goal: usize, chance: &mut Chance) -> Result<(), String> {
    let mut tasks = JoinSet::new();
    for _ in 0..PUBLISHERS {
        tasks.spawn(client.clone().publish_until(goal));
    }
    tasks.spawn(client.clone().operate(chance.fork(), 12));
    tasks.join_all().await.into_iter().collect()
}
