//! The tour of `postrider dev`: what it shows, what it saves for the next start, and how it handles missing deliveries.

use std::io::{self, Write};
use std::sync::Arc;

use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::secret::WebhookSecret;
use postrider_domain::time::Clock;
use postrider_local::client::BearerKey;
use postrider_local::dev::{SignIn, Tour, TourError, TourReport, start_receiver};
use postrider_local::receiver::{INBOX_PATH, Receiver};
use postrider_local::screen::Screen;
use postrider_local::state::{DevState, Registration};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::{Api, TRANSIT};
use super::{NOON, Outgoing};
use crate::support::clock::ManualClock;
use crate::support::receiver::{Receiver as Occupant, ReservedPort};
use crate::support::wait::{bounded, bounded_or};

const KEY: &str = "scripe_sk_live_abc";
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const COMPLETE: TourReport = TourReport { published: 9, verified: 9 };

/// A data directory, an API and a clock that several starts share.
struct Machine {
    api: Api,
    clock: ManualClock,
    folder: TempDir,
    /// See [`Machine::with_a_port`].
    port: Option<ReservedPort>,
}

/// A running tour.
struct Start {
    shown: Shown,
    stop: CancellationToken,
    running: JoinHandle<Result<TourReport, TourError>>,
    port: u16,
}

/// The text on the screen. Clones share it.
#[derive(Clone)]
struct Shown(Arc<watch::Sender<String>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|text| text.push_str(std::str::from_utf8(bytes).unwrap()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shown {
    fn text(&self) -> String {
        self.0.borrow().clone()
    }

    async fn until(&self, wanted: &str) {
        let mut changes = self.0.subscribe();
        let found = async { changes.wait_for(|text| text.contains(wanted)).await.map(drop).unwrap() };
        bounded_or(found, || format!("{wanted:?} on the screen, which shows:\n{}", self.text())).await;
    }
}

impl Machine {
    async fn new() -> Self {
        let clock = ManualClock::new(NOON);
        Self { api: Api::start(KEY, &clock).await, clock, folder: tempfile::tempdir().unwrap(), port: None }
    }

    /// A machine whose first start already knows a port, and an endpoint that the API has forgotten. The system gives
    /// the port to nobody else between two starts, as it may give a port that a start chose and closed.
    async fn with_a_port() -> Self {
        let port = ReservedPort::reserve();
        let registration = Registration {
            endpoint_id: "whe_forgotten0000000".parse().unwrap(),
            secret: WebhookSecret::parse(SECRET).unwrap(),
            receiver_port: port.number(),
        };
        let machine = Self { port: Some(port), ..Self::new().await };
        let state = DevState { registration: Some(registration), ..DevState::new(BearerKey::parse(KEY).unwrap()) };
        state.save(machine.folder.path()).unwrap();
        machine
    }

    /// Listens where the receiver of the last start did.
    async fn occupied(&self) -> Occupant {
        Occupant::start_on(self.port.as_ref().expect("a machine with a port").address()).await
    }

    fn state(&self) -> Option<DevState> {
        DevState::load(self.folder.path()).unwrap()
    }

    /// Starts as the command does, with the state that the last start saved.
    async fn start(&self) -> Start {
        self.start_with(self.state()).await
    }

    async fn start_with(&self, state: Option<DevState>) -> Start {
        let catalogue = Catalogue::built_in().unwrap();
        let mut receiver = start_receiver(state.as_ref(), &catalogue, Arc::new(self.clock.clone())).await.unwrap();
        let port = receiver.address().port();
        let mut state = state.unwrap_or_else(|| DevState::new(BearerKey::parse(KEY).unwrap()));
        let shown = Shown(Arc::new(watch::Sender::new(String::new())));
        let stop = CancellationToken::new();
        let running = {
            let (shown, stop, clock) = (shown.clone(), stop.clone(), Arc::new(self.clock.clone()));
            let (base_url, folder) = (self.api.url(), self.folder.path().to_owned());
            tokio::spawn(async move {
                let sign_in =
                    SignIn { link: format!("{base_url}/dashboard/login?code=c"), note: "works once".to_owned() };
                let tour = Tour {
                    base_url: &base_url,
                    sign_in: Some(sign_in),
                    data_dir: &folder,
                    catalogue: &catalogue,
                    clock,
                    stop,
                };
                let report = tour.run(&mut state, &mut receiver, &mut Screen::new(shown, false)).await;
                Receiver::stop(receiver).await;
                report
            })
        };
        Start { shown, stop, running, port }
    }

    /// Runs a tour from its first line to the stop.
    async fn run(&self) -> (String, u16) {
        let start = self.start().await;
        start.shown.until("Press Ctrl-C to stop.").await;
        let (text, port) = (start.shown.text(), start.port);
        assert_eq!(start.stop().await.unwrap(), COMPLETE);
        (text, port)
    }
}

impl Start {
    async fn stop(self) -> Result<TourReport, TourError> {
        self.stop.cancel();
        self.end().await
    }

    async fn end(self) -> Result<TourReport, TourError> {
        bounded("the end of the tour", self.running).await.unwrap()
    }
}

#[tokio::test]
async fn the_tour_shows_nine_verified_deliveries_and_what_to_try_next() {
    let machine = Machine::new().await;
    let (text, port) = machine.run().await;
    let text = text.replace(&machine.api.url(), "http://API").replace(&format!("127.0.0.1:{port}"), "RECEIVER");
    let (tour, next) = text.split_once("\nTry next").unwrap();
    insta::assert_snapshot!(tour, @"
    API       http://API
    Dashboard http://API/dashboard/login?code=c
              works once
    Receiver  http://RECEIVER/inbox (endpoint whe_0000000000000001)

    event              attempt  signature      publish to arrival
    note.created             1  ✓ verified                   7 ms
    post.created             1  ✓ verified                   7 ms
    post.updated             1  ✓ verified                   7 ms
    post.scheduled           1  ✓ verified                   7 ms
    post.unscheduled         1  ✓ verified                   7 ms
    source.created           1  ✓ verified                   7 ms
    job.completed            1  ✓ verified                   7 ms
    job.failed               1  ✓ verified                   7 ms
    knowledge.indexed        1  ✓ verified                   7 ms

    9 of 9 events arrived with a valid signature; from publish to arrival: fastest 7 ms, median 7 ms, slowest 7 ms.
    ");
    assert_eq!(next.matches("curl -sS").count(), 6);
    assert_eq!(next.matches(KEY).count(), 6);

    let registered = machine.api.endpoint(&machine.api.endpoints()[0]);
    assert_eq!(registered["name"], "Local receiver");
    assert_eq!(registered["url"], format!("http://127.0.0.1:{port}{INBOX_PATH}"));
    assert_eq!(registered["events"], json!(Catalogue::built_in().unwrap().names().collect::<Vec<_>>()));
}

#[tokio::test]
async fn a_second_start_reuses_the_endpoint_and_the_port() {
    let machine = Machine::with_a_port().await;
    let (_, first_port) = machine.run().await;
    let (_, second_port) = machine.run().await;
    assert_eq!(first_port, second_port);
    assert_eq!(machine.api.endpoints(), ["whe_0000000000000001"]);
}

#[tokio::test]
async fn when_the_port_is_in_use_a_new_endpoint_replaces_the_old() {
    let machine = Machine::with_a_port().await;
    let (_, port) = machine.run().await;
    let _occupant = machine.occupied().await;
    let (_, other_port) = machine.run().await;
    assert_ne!(port, other_port);
    assert_eq!(machine.api.endpoints(), ["whe_0000000000000002"]);
}

#[tokio::test]
async fn an_old_endpoint_that_cannot_be_removed_is_named() {
    let machine = Machine::with_a_port().await;
    machine.run().await;
    let _occupant = machine.occupied().await;
    machine.api.keep_endpoints();
    let (text, _) = machine.run().await;
    assert!(text.contains("cannot delete the outdated endpoint whe_0000000000000001 of the last start: "), "{text}");
    assert_eq!(machine.api.endpoints().len(), 2);
}

#[tokio::test]
async fn an_endpoint_unknown_to_the_server_is_registered_again() {
    let machine = Machine::new().await;
    machine.run().await;
    machine.api.forget_endpoints();
    machine.run().await;
    assert_eq!(machine.api.endpoints(), ["whe_0000000000000002"]);
    assert_eq!(machine.state().unwrap().registration.unwrap().endpoint_id.to_string(), "whe_0000000000000002");
}

#[tokio::test]
async fn a_refused_key_is_reported_and_a_new_key_keeps_the_endpoint() {
    let machine = Machine::with_a_port().await;
    machine.run().await;
    machine.api.change_key("scripe_sk_live_new");
    let refusal = machine.start().await.end().await.unwrap_err();
    assert!(matches!(refusal, TourError::KeyRefused(_)), "{refusal:?}");

    let mut state = machine.state().unwrap();
    state.api_key = BearerKey::parse("scripe_sk_live_new").unwrap();
    let start = machine.start_with(Some(state)).await;
    start.shown.until("9 of 9").await;
    assert_eq!(start.stop().await.unwrap(), COMPLETE);
    assert_eq!(machine.api.endpoints(), ["whe_0000000000000001"]);
}

#[tokio::test]
async fn events_missing_after_10_s_are_named_and_the_tour_continues() {
    let machine = Machine::new().await;
    machine.api.lose("post.updated");
    machine.api.lose("job.failed");
    let start = machine.start().await;
    let deadline = machine.clock.until_someone_waits().await;
    assert_eq!(deadline, NOON.plus(TRANSIT * 9).plus(limits::TOUR_WAIT));
    machine.clock.set(deadline);
    start.shown.until("Missing after 10 s: post.updated, job.failed.").await;
    start.shown.until("Press Ctrl-C to stop.").await;
    assert!(start.shown.text().contains("\n7 of 9 events arrived"));
    assert_eq!(start.stop().await.unwrap(), TourReport { published: 9, verified: 7 });
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_missing_events() {
    let machine = Machine::new().await;
    machine.api.lose("job.failed");
    let start = machine.start().await;
    machine.clock.until_someone_waits().await;
    assert_eq!(start.stop().await.unwrap(), TourReport { published: 9, verified: 8 });
}

#[tokio::test]
async fn after_the_tour_every_arrival_is_still_shown() {
    let machine = Machine::new().await;
    let start = machine.start().await;
    start.shown.until("Press Ctrl-C to stop.").await;
    let webhook = Outgoing::signed(SECRET, "evt_x", machine.clock.now(), b"{}");
    let inbox = ([127, 0, 0, 1], start.port).into();
    assert_eq!(webhook.clone().post(inbox, INBOX_PATH).await.0, 401);
    start.shown.until("✗ refused").await;
    assert_eq!(webhook.post(inbox, "/mine").await.0, 204);
    start.shown.until("– not checked").await;
    assert_eq!(start.stop().await.unwrap(), COMPLETE);
}
