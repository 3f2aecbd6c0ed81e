//! A stand-in for the server with the few routes that the tour calls. It keeps its state in memory. It delivers an
//! event before it answers the publish, so that every run looks the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use postrider_domain::id::{EndpointId, EventId, KeySequence, StoreTag};
use postrider_domain::time::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::Outgoing;
use crate::support::clock::ManualClock;

/// The time between a publish and its delivery on the clock.
pub const TRANSIT: Duration = Duration::from_millis(7);

/// Clones share one state.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    clock: ManualClock,
}

struct Shared {
    key: String,
    endpoints: BTreeMap<String, Value>,
    created: u8,
    events: KeySequence,
    undelivered: Vec<&'static str>,
    removes_endpoints: bool,
}

impl Api {
    pub async fn start(key: &str, clock: &ManualClock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Shared {
            key: key.to_owned(),
            endpoints: BTreeMap::new(),
            created: 0,
            events: KeySequence::new(1),
            undelivered: Vec::new(),
            removes_endpoints: true,
        };
        let address = listener.local_addr().unwrap();
        let api = Self { address, shared: Arc::new(Mutex::new(shared)), clock: clock.clone() };
        let router = Router::new()
            .route("/v1/webhook-endpoints", post(create_endpoint))
            .route("/v1/webhook-endpoints/{id}", get(read_endpoint).delete(delete_endpoint))
            .route("/v1/events", post(publish))
            .with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Accepts only this key from now on.
    pub fn change_key(&self, key: &str) {
        self.shared().key = key.to_owned();
    }

    /// Accepts events of this name and never delivers them.
    pub fn lose(&self, event: &'static str) {
        self.shared().undelivered.push(event);
    }

    /// Refuses DELETE, like a server without that route.
    pub fn keep_endpoints(&self) {
        self.shared().removes_endpoints = false;
    }

    pub fn forget_endpoints(&self) {
        self.shared().endpoints.clear();
    }

    /// The ids of all endpoints. The last digit of an id counts the endpoints created so far.
    pub fn endpoints(&self) -> Vec<String> {
        self.shared().endpoints.keys().cloned().collect()
    }

    pub fn endpoint(&self, id: &str) -> Value {
        self.shared().endpoints[id].clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// The error answer, if the request has another key.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let expected = format!("Bearer {}", self.shared().key);
        let is_right = headers.get("authorization").is_some_and(|value| value.as_bytes() == expected.as_bytes());
        (!is_right).then(|| error(StatusCode::UNAUTHORIZED, "key_revoked"))
    }
}

async fn create_endpoint(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = api.refusal(&headers) {
        return refusal;
    }
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    let mut shared = api.shared();
    shared.created += 1;
    let mut letters = [b'0'; 16];
    letters[15] += shared.created;
    let id = EndpointId::from_letters(letters).to_string();
    body["id"] = json!(id);
    body["isActive"] = json!(true);
    body["secret"] = json!(format!("whsec_{}", format!("{:02x}", shared.created).repeat(32)));
    shared.endpoints.insert(id, body.clone());
    answer(StatusCode::OK, &json!({ "data": body }))
}

async fn read_endpoint(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Some(refusal) = api.refusal(&headers) {
        return refusal;
    }
    let Some(mut endpoint) = api.shared().endpoints.get(&id).cloned() else {
        return error(StatusCode::NOT_FOUND, "not_found");
    };
    endpoint.as_object_mut().unwrap().remove("secret");
    answer(StatusCode::OK, &json!({ "data": endpoint }))
}

async fn delete_endpoint(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let mut shared = api.shared();
    if !shared.removes_endpoints {
        return error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    }
    shared.endpoints.remove(&id);
    StatusCode::NO_CONTENT.into_response()
}

async fn publish(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = api.refusal(&headers) {
        return refusal;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let key = api.shared().events.next(api.clock.now());
    let id = EventId::new(key, StoreTag::from_u32(7));
    api.clock.advance(TRANSIT);
    let is_lost = api.shared().undelivered.iter().any(|lost| body["type"] == *lost);
    let subscribers: Vec<Value> = api.shared().endpoints.values().cloned().collect();
    for endpoint in subscribers.into_iter().filter(|_| !is_lost) {
        deliver(&api, &id.to_string(), &body, &endpoint).await;
    }
    let receipt = json!({ "data": { "id": id, "externalId": null, "type": body["type"], "projectId": null } });
    answer(StatusCode::ACCEPTED, &receipt)
}

async fn deliver(api: &Api, event_id: &str, body: &Value, endpoint: &Value) {
    let envelope = json!({ "id": event_id, "type": body["type"], "data": body["data"] }).to_string();
    let webhook =
        Outgoing::signed(endpoint["secret"].as_str().unwrap(), event_id, api.clock.now(), envelope.as_bytes())
            .header("scripe-delivery-id", &event_id.replace("evt_", "dlv_"))
            .header("scripe-delivery-attempt", "1");
    let url: Url = endpoint["url"].as_str().unwrap().parse().unwrap();
    webhook.post(url.authority().parse().unwrap(), url.path()).await;
}

fn error(status: StatusCode, code: &str) -> Response {
    let message = format!("No: {code}.");
    answer(status, &json!({ "error": { "code": code, "message": message, "request_id": "req_x" } }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
