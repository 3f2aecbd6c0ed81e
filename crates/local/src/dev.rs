//! The tour of `postrider dev`: registers the local receiver, publishes one event of each type and shows its delivery,
//! all through the public API.
//!
//! It starts no server and creates no key; the caller has done both. A second tour on the same data reuses the endpoint
//! of the first.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use postrider_domain::event_type::{Catalogue, EventType, EventTypeName};
use postrider_domain::id::{DeliveryId, EndpointId, EventId};
use postrider_domain::limits;
use postrider_domain::secret::WebhookSecret;
use postrider_domain::time::{Clock, Timestamp};

use super::client::{ApiFailure, Client, InvalidBaseUrl};
use super::curl::{CurlContext, next_steps};
use super::receiver::{Arrival, Receiver, Signature};
use super::screen::{Screen, Table};
use super::state::{DevState, Registration, StateError};

const ENDPOINT_NAME: &str = "Local receiver";
const ENDPOINTS: &str = "/v1/webhook-endpoints";
const EVENTS: &str = "/v1/events";
/// A path of the receiver that accepts any request, for endpoints that the user creates.
const OPEN_PATH: &str = "/mine";

/// The parameters of a tour.
pub struct Tour<'t> {
    /// `http://host:port` of the running server.
    pub base_url: &'t str,
    /// How to sign in to the dashboard, if that is possible.
    pub sign_in: Option<SignIn>,
    /// The directory of the saved state.
    pub data_dir: &'t Path,
    pub catalogue: &'t Catalogue,
    pub clock: Arc<dyn Clock>,
    pub stop: CancellationToken,
}

/// How to sign in to the dashboard.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// A link that works once.
    pub link: String,
    /// Says until when, and how to get another link.
    pub note: String,
}

/// The result of the published events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TourReport {
    pub published: usize,
    /// Published events that arrived with a valid signature, at any time.
    pub verified: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum TourError {
    #[error("the base URL of the API is invalid")]
    BaseUrl(#[from] InvalidBaseUrl),
    /// The caller may save a new key and start again.
    #[error("the API refused the saved key of the last start")]
    KeyRefused(#[source] ApiFailure),
    #[error("cannot register the local receiver as an endpoint")]
    Register(#[source] ApiFailure),
    #[error("cannot publish {0}")]
    Publish(EventTypeName, #[source] ApiFailure),
    #[error("the API's answer lacks a field of the contract: is the server of another version?")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot save the state for the next start")]
    State(#[from] StateError),
    #[error("cannot write to the screen")]
    Screen(#[from] io::Error),
}

/// Starts the receiver of the tour on 127.0.0.1. It uses the port and the secret of the last start, so that deliveries
/// left over from then reach it. It uses a free port if there was no last start or its port is taken.
///
/// # Errors
/// When no port can be bound.
pub async fn start_receiver(
    state: Option<&DevState>,
    catalogue: &Catalogue,
    clock: Arc<dyn Clock>,
) -> io::Result<Receiver> {
    let on = |port| Receiver::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), catalogue, Arc::clone(&clock));
    let Some(known) = state.and_then(|state| state.registration.as_ref()) else { return on(0).await };
    let Ok(receiver) = on(known.receiver_port).await else { return on(0).await };
    receiver.set_secret(&known.secret);
    Ok(receiver)
}

impl Tour<'_> {
    /// Registers, publishes, waits for the deliveries, shows the next steps, and then shows arrivals until it is
    /// stopped. Missing deliveries are reported on the screen and in the report; they are not an error.
    ///
    /// # Errors
    /// When the API refuses a call, the state cannot be saved or the screen cannot be written. Failures after a stop
    /// are not errors: the server may have stopped first.
    pub async fn run<W: Write>(
        &self,
        state: &mut DevState,
        receiver: &mut Receiver,
        screen: &mut Screen<W>,
    ) -> Result<TourReport, TourError> {
        let mut progress = TourProgress::default();
        match self.conduct(&mut progress, state, receiver, screen).await {
            Err(TourError::Register(_) | TourError::KeyRefused(_) | TourError::Publish(..))
                if self.stop.is_cancelled() => {}
            finished => finished?,
        }
        Ok(TourReport { published: progress.published.len(), verified: progress.took().len() })
    }

    async fn conduct<W: Write>(
        &self,
        progress: &mut TourProgress,
        state: &mut DevState,
        receiver: &mut Receiver,
        screen: &mut Screen<W>,
    ) -> Result<(), TourError> {
        let mut client = Client::new(self.base_url, &state.api_key)?;
        let endpoint_id = self.register(&mut client, state, receiver, screen).await?;
        screen.line(&format!("API       {}", self.base_url))?;
        if let Some(SignIn { link, note }) = &self.sign_in {
            screen.line(&format!("Dashboard {link}\n          {note}"))?;
        }
        screen.line(&format!("Receiver  {} (endpoint {endpoint_id})\n", receiver.inbox_url()))?;

        let table = screen.table(self.catalogue)?;
        for event in self.catalogue.types().iter().filter(|event| !event.retired) {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            self.publish(&mut client, event, progress).await?;
            while let Some(arrival) = receiver.try_next() {
                progress.show(&arrival, table, screen)?;
            }
        }
        let deadline = self.clock.now().plus(limits::TOUR_WAIT);
        while !progress.is_complete() {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                arrival = receiver.next() => progress.show(&arrival, table, screen)?,
                () = self.clock.sleep_until(deadline) => break,
            }
        }
        screen.line("")?;
        screen.summary(&progress.took(), &progress.missing(), limits::TOUR_WAIT)?;
        screen.line("")?;
        self.show_next_steps(state, receiver, progress.delivery_id, screen)?;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                arrival = receiver.next() => progress.show(&arrival, table, screen)?,
            }
        }
    }

    /// Reuses the endpoint of the last start if it still points at this receiver. Otherwise creates one and deletes the
    /// old one, so that endpoints do not accumulate.
    async fn register<W: Write>(
        &self,
        client: &mut Client,
        state: &mut DevState,
        receiver: &Receiver,
        screen: &mut Screen<W>,
    ) -> Result<EndpointId, TourError> {
        let mut outdated = None;
        if let Some(known) = &state.registration {
            match client.get(&path_of(known.endpoint_id)).await {
                Ok(answer) if self.still_fits(&answer, receiver) => {
                    receiver.set_secret(&known.secret);
                    return Ok(known.endpoint_id);
                }
                Ok(_) => outdated = Some(known.endpoint_id),
                Err(ApiFailure::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
                Err(failure) => return Err(refused(failure)),
            }
        }
        let registration = self.create_endpoint(client, receiver).await?;
        let endpoint_id = registration.endpoint_id;
        receiver.set_secret(&registration.secret);
        state.registration = Some(registration);
        state.save(self.data_dir)?;
        if let Some(outdated) = outdated
            && let Err(failure) = client.delete(&path_of(outdated)).await
        {
            screen.line(&format!("cannot delete the outdated endpoint {outdated} of the last start: {failure}"))?;
        }
        Ok(endpoint_id)
    }

    fn still_fits(&self, answer: &Value, receiver: &Receiver) -> bool {
        let endpoint = &answer["data"];
        let has = |name: &EventTypeName| endpoint["events"].as_array().is_some_and(|all| all.contains(&json!(name)));
        endpoint["isActive"] == true
            && endpoint["url"] == receiver.inbox_url().as_str()
            && self.catalogue.names().all(has)
    }

    async fn create_endpoint(&self, client: &mut Client, receiver: &Receiver) -> Result<Registration, TourError> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
            secret: String,
        }
        let events: Vec<&EventTypeName> = self.catalogue.names().collect();
        let body = json!({ "name": ENDPOINT_NAME, "url": receiver.inbox_url(), "events": events });
        let answer = client.post(ENDPOINTS, &body).await.map_err(refused)?;
        let Created { id, secret } = data_of(answer)?;
        Ok(Registration {
            endpoint_id: id.parse().map_err(lacking)?,
            secret: WebhookSecret::parse(&secret).map_err(lacking)?,
            receiver_port: receiver.address().port(),
        })
    }

    async fn publish(
        &self,
        client: &mut Client,
        event: &EventType,
        progress: &mut TourProgress,
    ) -> Result<(), TourError> {
        #[derive(Serialize)]
        struct Publish<'e> {
            r#type: &'e EventTypeName,
            data: &'e RawValue,
        }
        #[derive(Deserialize)]
        struct Accepted {
            id: String,
        }
        let sent_at = self.clock.now();
        let answer = client.post(EVENTS, &Publish { r#type: &event.name, data: &event.example }).await;
        let answer = answer.map_err(|failure| TourError::Publish(event.name.clone(), failure))?;
        let Accepted { id } = data_of(answer)?;
        progress.add(id.parse().map_err(lacking)?, event.name.clone(), sent_at);
        Ok(())
    }

    fn show_next_steps<W: Write>(
        &self,
        state: &DevState,
        receiver: &Receiver,
        delivery_id: Option<DeliveryId>,
        screen: &mut Screen<W>,
    ) -> Result<(), TourError> {
        let usable = self.catalogue.types().iter().filter(|event| !event.retired);
        if let Some(event) = usable.min_by_key(|event| event.example.get().len()) {
            let (base_url, api_key, open_url) = (self.base_url, &state.api_key, &receiver.url(OPEN_PATH));
            screen.steps(&next_steps(CurlContext { base_url, api_key, open_url, event, delivery_id }))?;
        }
        screen.line("\nWith a key in POSTRIDER_API_KEY: postrider listen, trigger, tail and verify help you to write a handler.")?;
        screen.line("\nFurther arrivals are shown here. Press Ctrl-C to stop.\n")?;
        Ok(())
    }
}

/// The published events of one tour and their arrivals.
#[derive(Debug, Default)]
struct TourProgress {
    /// In the order of publishing.
    published: Vec<PublishedEvent>,
    index: HashMap<EventId, usize>,
    /// The delivery of the newest verified arrival.
    delivery_id: Option<DeliveryId>,
}

#[derive(Debug)]
struct PublishedEvent {
    name: EventTypeName,
    sent_at: Timestamp,
    /// Time from the publish to the first arrival with a valid signature.
    took: Option<Duration>,
}

impl TourProgress {
    fn add(&mut self, id: EventId, name: EventTypeName, sent_at: Timestamp) {
        self.index.insert(id, self.published.len());
        self.published.push(PublishedEvent { name, sent_at, took: None });
    }

    fn show<W: Write>(&mut self, arrival: &Arrival, table: Table, screen: &mut Screen<W>) -> io::Result<()> {
        let took = self.note(arrival);
        screen.arrival(table, arrival, took)
    }

    /// Records an arrival and returns the time since its publish. For an event that the tour did not publish, the time
    /// counts from its acceptance, which is part of its id.
    fn note(&mut self, arrival: &Arrival) -> Option<Duration> {
        let id = arrival.event_id?;
        let own = self.index.get(&id).map(|&at| &mut self.published[at]);
        let since = own.as_ref().map_or_else(|| id.created_at(), |own| own.sent_at);
        let took = arrival.at.since(since);
        if arrival.signature == Signature::Verified {
            self.delivery_id = arrival.delivery_id.or(self.delivery_id);
            if let Some(own) = own {
                own.took.get_or_insert(took);
            }
        }
        Some(took)
    }

    fn took(&self) -> Vec<Duration> {
        self.published.iter().filter_map(|event| event.took).collect()
    }

    fn missing(&self) -> Vec<EventTypeName> {
        self.published.iter().filter(|event| event.took.is_none()).map(|event| event.name.clone()).collect()
    }

    fn is_complete(&self) -> bool {
        self.published.iter().all(|event| event.took.is_some())
    }
}

fn path_of(endpoint_id: EndpointId) -> String {
    format!("{ENDPOINTS}/{endpoint_id}")
}

fn refused(failure: ApiFailure) -> TourError {
    match failure {
        ApiFailure::Refused { status: StatusCode::UNAUTHORIZED, .. } => TourError::KeyRefused(failure),
        _ => TourError::Register(failure),
    }
}

/// The resource in an answer of the form `{"data": …}`.
fn data_of<T: for<'d> Deserialize<'d>>(mut answer: Value) -> Result<T, TourError> {
    serde_json::from_value(answer.get_mut("data").map(Value::take).unwrap_or_default()).map_err(lacking)
}

fn lacking(error: impl std::error::Error + Send + Sync + 'static) -> TourError {
    TourError::Answer(Box::new(error))
}
