//! What the tests of sources share: settings of a source, and questions to the server about its events.

use std::collections::BTreeMap;

use postrider_domain::mode::Mode;
use postrider_domain::source::{FieldRule, ParkedFull, SourceKind, SourceName, SourceRules, SourceTerms};
use postrider_domain::{limits, source};
use serde_json::Value;

use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::wait::eventually;

/// The name of the source under test.
pub const NAME: &str = "orders";

/// The terms of a source of the workspace `Acme`, whose ids stand in this place.
pub fn terms(kind: SourceKind, id: FieldRule) -> SourceTerms {
    SourceTerms {
        name: SourceName::parse(NAME).unwrap(),
        kind,
        workspace: "Acme".to_owned(),
        mode: Mode::Live,
        rules: SourceRules::with_id(id),
        max_in_flight: limits::SOURCE_IN_FLIGHT,
        max_bytes_in_flight: limits::SOURCE_BYTES_IN_FLIGHT,
        parked_max: limits::PARKED_MAX,
        parked_full: ParkedFull::Stop,
    }
}

/// How often each event was accepted, by its data's member `n`.
pub async fn accepted(caller: &Caller) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let reply = caller.get(&format!("/v1/events?limit=200{cursor}")).await;
        let page: Value = reply.json();
        for event in page["data"].as_array().unwrap() {
            let id = text(event, "externalId");
            *found.entry(id).or_default() += 1;
        }
        match page["pagination"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Waits until so many events are accepted. Returns them, each with how often it is there.
pub async fn accepted_when(caller: &Caller, count: usize) -> BTreeMap<String, usize> {
    eventually(&format!("{count} accepted events"), || async {
        let found = accepted(caller).await;
        (found.len() >= count).then_some(found)
    })
    .await
}

pub async fn source(caller: &Caller) -> Value {
    caller.get(&format!("/v1/sources/{NAME}")).await.json()["data"].clone()
}

/// Waits until the source is in this state. Returns it.
pub async fn source_when(caller: &Caller, state: source::SourceState) -> Value {
    eventually(&format!("a source that is {}", state.as_str()), || async {
        let found = source(caller).await;
        (found["state"] == state.as_str()).then_some(found)
    })
    .await
}

/// Waits until so many messages are parked. Returns them, newest first.
pub async fn parked_when(caller: &Caller, count: usize) -> Vec<Value> {
    eventually(&format!("{count} parked messages"), || async {
        let page: Value = caller.get("/v1/parked-messages?limit=200").await.json();
        let found = page["data"].as_array().unwrap().clone();
        (found.len() == count).then_some(found)
    })
    .await
}
