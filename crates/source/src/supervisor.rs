//! The loop of one source: connect, pull, accept, settle; after any failure the same again.
//!
//! A failure is never the end: the loop waits longer each time, up to [`BACKOFF_MAX`], and with jitter, so that the
//! nodes of a fleet do not come back at once. Only the stop of the server ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use postrider_crypto::Random;
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::source::{SourceMessage, SourceState};
use postrider_domain::time::Clock;
use postrider_metrics::{MessageResult, SourceMetrics};
use postrider_service::{Fate, Service, ServiceError, Source};

use crate::feed::{Connector, Feed, PullLimit, Settlement, SourceError};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const CONNECT_WAIT: Duration = Duration::from_secs(20);
/// How often a source that waits for room looks whether there is some.
const ROOM_WAIT: Duration = Duration::from_secs(2);
/// How often a feed is told that its batch is still worked on.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// Runs one source.
pub struct Supervisor {
    pub service: Arc<Service>,
    pub source: Arc<Source>,
    /// The position of the source among those of the settings, for metrics.
    pub position: usize,
    pub connector: Box<dyn Connector>,
    pub clock: Arc<dyn Clock>,
    pub random: Random,
    pub metrics: SourceMetrics,
    pub stop: CancellationToken,
}

/// Why a session ended without a failure.
enum Ended {
    Stopped,
    Paused,
    /// The feed gave its messages back. It can be pulled again.
    Released,
}

/// Consecutive failures, and the wait that follows.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self, random: &Random) -> Duration {
        let longest = BACKOFF_MIN.saturating_mul(1 << self.0.min(16)).min(BACKOFF_MAX);
        self.0 = self.0.saturating_add(1);
        longest.mul_f64(0.5 + random.unit() / 2.0)
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

impl Supervisor {
    pub async fn run(&self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            if self.source.is_paused() {
                self.enter(SourceState::Paused, None);
                self.wait(ROOM_WAIT).await;
                backoff.reset();
                continue;
            }
            match self.session(&mut backoff).await {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Paused | Ended::Released) => {}
                Err(error) => {
                    self.report_failure(&error);
                    self.metrics.restarts.increment(self.position);
                    self.wait(backoff.next(&self.random)).await;
                }
            }
        }
    }

    /// From connecting to a failure, a pause or the stop.
    async fn session(&self, backoff: &mut Backoff) -> Result<Ended, SourceError> {
        self.find_owner().await?;
        if self.source.is_paused() {
            return Ok(Ended::Paused);
        }
        let connecting = tokio::time::timeout(CONNECT_WAIT, self.connector.connect());
        let mut feed = tokio::select! {
            () = self.stop.cancelled() => return Ok(Ended::Stopped),
            connected = connecting => {
                connected.map_err(|_| SourceError::ConnectTimeout { seconds: CONNECT_WAIT.as_secs() })??
            }
        };
        let limit = PullLimit {
            messages: self.source.terms.max_in_flight.min(limits::SOURCE_BATCH),
            bytes: self.source.terms.max_bytes_in_flight,
        };
        loop {
            let messages = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(Ended::Stopped),
                () = self.paused() => return Ok(Ended::Paused),
                pulled = feed.pull(limit) => pulled?,
            };
            if messages.is_empty() {
                self.enter(SourceState::Running, None);
                backoff.reset();
                continue;
            }
            let began = Instant::now();
            let fates = match self.accept(feed.as_mut(), messages, backoff).await? {
                Ok(fates) => fates,
                Err(ended) => return Ok(ended),
            };
            let settlements: Vec<Settlement> = fates.iter().map(|fate| settlement_of(*fate)).collect();
            feed.settle(&settlements).await?;
            self.measure(&fates, began.elapsed());
            backoff.reset();
            if fates.contains(&Fate::Kept)
                && let Some(ended) = self.wait_for_room().await?
            {
                return Ok(ended);
            }
            self.enter(SourceState::Running, None);
        }
    }

    async fn find_owner(&self) -> Result<(), SourceError> {
        let found = match self.service.find_owner(&self.source).await {
            Ok(()) => self.service.read_pauses().await,
            Err(ServiceError::NotFound) => {
                return Err(SourceError::NoWorkspace(self.source.terms.workspace.clone()));
            }
            Err(error) => Err(error),
        };
        found.map_err(SourceError::Accept)
    }

    /// Accepts a batch, however often the store fails meanwhile, as long as the feed keeps it.
    async fn accept(
        &self,
        feed: &mut dyn Feed,
        messages: Vec<SourceMessage>,
        backoff: &mut Backoff,
    ) -> Result<Result<Vec<Fate>, Ended>, SourceError> {
        let messages: Arc<[SourceMessage]> = messages.into();
        loop {
            let accepting = self.service.accept_messages(&self.source, Arc::clone(&messages));
            let accepted = keeping(feed, accepting).await?;
            let error = match accepted {
                Ok(fates) => return Ok(Ok(fates)),
                Err(error) => SourceError::Accept(error),
            };
            self.report_failure(&error);
            if !feed.keeps_over_failures() {
                feed.settle(&vec![Settlement::Release; messages.len()]).await?;
                return Err(error);
            }
            keeping(feed, self.wait(backoff.next(&self.random))).await?;
            if self.stop.is_cancelled() {
                return Ok(Err(Ended::Stopped));
            }
            if self.source.is_paused() {
                return Ok(Err(Ended::Paused));
            }
        }
    }

    /// Waits until a message can be parked again.
    async fn wait_for_room(&self) -> Result<Option<Ended>, SourceError> {
        let max = self.source.terms.parked_max;
        let error = format!("{max} messages are parked, the most that may be (parked_max): retry or discard some");
        self.enter(SourceState::ParkedFull, Some(error));
        loop {
            self.wait(ROOM_WAIT).await;
            if self.stop.is_cancelled() {
                return Ok(Some(Ended::Stopped));
            }
            if self.source.is_paused() {
                return Ok(Some(Ended::Paused));
            }
            if self.service.may_park(&self.source).await.map_err(SourceError::Accept)? {
                // What was released is pulled again from the start.
                return Ok(Some(Ended::Released));
            }
        }
    }

    async fn paused(&self) {
        loop {
            let changed = self.source.changed.notified();
            if self.source.is_paused() {
                return;
            }
            changed.await;
        }
    }

    /// Waits, at most until the server stops or somebody pauses or resumes the source.
    async fn wait(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.source.changed.notified() => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn enter(&self, state: SourceState, error: Option<String>) {
        let is_up = !matches!(state, SourceState::Starting | SourceState::Retrying | SourceState::ParkedFull);
        self.metrics.up.set_count(self.position, u64::from(is_up));
        if self.source.enter(state, error, self.clock.now()) {
            tracing::info!(source = %self.source.terms.name, state = state.as_str(), "a source of events changed its state");
        }
    }

    fn report_failure(&self, error: &SourceError) {
        let text = Chain(error).to_string();
        let is_new = self.source.state() != SourceState::Retrying;
        self.enter(SourceState::Retrying, Some(text.clone()));
        if is_new {
            tracing::warn!(source = %self.source.terms.name, error = text, "a source of events failed; it tries again");
        } else {
            tracing::debug!(source = %self.source.terms.name, error = text, "a source of events failed again");
        }
    }

    fn measure(&self, fates: &[Fate], took: Duration) {
        for (result, fate) in [
            (MessageResult::Accepted, Fate::Accepted),
            (MessageResult::Repeated, Fate::Repeated),
            (MessageResult::Parked, Fate::Parked),
        ] {
            let count = fates.iter().filter(|found| **found == fate).count() as u64;
            self.metrics.messages.add(self.position * MessageResult::VALUES.len() + result as usize, count);
        }
        self.metrics.batch_seconds.observe(postrider_metrics::Only, took);
        let now = self.clock.now();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds are below 2^53 for 280,000 years")]
        self.metrics.last_message.set(self.position, now.millis() as f64 / 1_000.0);
        let parked = fates.iter().filter(|fate| **fate == Fate::Parked).count();
        if parked > 0 {
            tracing::warn!(
                source = %self.source.terms.name,
                messages = parked,
                "messages of a source cannot become events and are parked; `postrider parked list` shows them"
            );
        }
    }
}

fn settlement_of(fate: Fate) -> Settlement {
    match fate {
        Fate::Accepted | Fate::Repeated | Fate::Parked => Settlement::Done,
        Fate::Kept => Settlement::Release,
    }
}

/// Waits for `work`, and tells the feed every few seconds that its batch is still worked on.
async fn keeping<T>(feed: &mut dyn Feed, work: impl Future<Output = T>) -> Result<T, SourceError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(KEEP_EVERY) => feed.keep().await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_never_end() {
        let (random, mut backoff) = (Random::default(), Backoff::default());
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next(&random)).collect();
        assert!(waits[0] <= BACKOFF_MIN && waits[0] >= BACKOFF_MIN / 2);
        assert!(waits[20..].iter().all(|wait| *wait <= BACKOFF_MAX && *wait >= BACKOFF_MAX / 2));
        assert!(waits[20..].iter().any(|wait| *wait != waits[20]), "with jitter");
        backoff.reset();
        assert!(backoff.next(&random) <= BACKOFF_MIN);
    }

    #[test]
    fn only_a_message_without_a_place_is_released() {
        for fate in [Fate::Accepted, Fate::Repeated, Fate::Parked] {
            assert_eq!(settlement_of(fate), Settlement::Done);
        }
        assert_eq!(settlement_of(Fate::Kept), Settlement::Release);
    }
}
