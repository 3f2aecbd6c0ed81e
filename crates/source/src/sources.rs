//! All sources of a server: starts a loop for each, and stops them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use postrider_crypto::Random;
use postrider_domain::time::Clock;
use postrider_metrics::SourceMetrics;
use postrider_service::Service;

use crate::feed::Connector;
use crate::outbox::OutboxConnector;
use crate::settings::{Connection, SourceSettings};
use crate::supervisor::Supervisor;

/// How often the parked messages of each source are counted for the metrics.
const COUNTED_EVERY: Duration = Duration::from_secs(10);

/// The running sources.
pub struct Sources {
    loops: Vec<JoinHandle<()>>,
    /// Runs until it is aborted.
    background: JoinHandle<()>,
    stop: CancellationToken,
}

impl Sources {
    /// Starts the sources that the service was given with the same settings, in the same order.
    pub fn start(
        settings: &[SourceSettings],
        service: &Arc<Service>,
        clock: &Arc<dyn Clock>,
        random: &Random,
        metrics: &SourceMetrics,
    ) -> Self {
        let stop = CancellationToken::new();
        let loops = service.sources().iter().zip(settings).enumerate().map(|(position, (source, settings))| {
            let supervisor = Supervisor {
                service: Arc::clone(service),
                source: Arc::clone(source),
                position,
                connector: connector_of(settings),
                clock: Arc::clone(clock),
                random: random.clone(),
                metrics: metrics.clone(),
                stop: stop.clone(),
            };
            tokio::spawn(keep_running(supervisor))
        });
        let loops = loops.collect();
        let (service, metrics) = (Arc::clone(service), metrics.clone());
        let background = tokio::spawn(async move {
            tokio::join!(service.keep_reading_pauses(), keep_counting(&service, &metrics));
        });
        Self { loops, background, stop }
    }

    /// Stops pulling, and waits until what was pulled is accepted and settled, or given back.
    pub async fn stop(self) {
        self.stop.cancel();
        self.background.abort();
        join_all(self.loops).await;
        // It holds the store until it has ended.
        let _ = self.background.await;
    }
}

/// A panic must not end a source either.
async fn keep_running(supervisor: Supervisor) {
    let supervisor = Arc::new(supervisor);
    while !supervisor.stop.is_cancelled() {
        let run = Arc::clone(&supervisor);
        if tokio::spawn(async move { run.run().await }).await.is_err() {
            tracing::error!(source = %supervisor.source.terms.name, "a source of events panicked; it starts again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn keep_counting(service: &Service, metrics: &SourceMetrics) {
    loop {
        for (position, source) in service.sources().iter().enumerate() {
            if let Ok(parked) = service.count_parked(source).await {
                metrics.parked_messages.set_count(position, parked);
            }
        }
        tokio::time::sleep(COUNTED_EVERY).await;
    }
}

fn connector_of(settings: &SourceSettings) -> Box<dyn Connector> {
    match &settings.connection {
        Connection::Outbox(outbox) => Box::new(OutboxConnector(outbox.clone())),
        #[cfg(feature = "brokers")]
        Connection::Nats(nats) => Box::new(crate::nats::NatsConnector(nats.clone())),
        #[cfg(feature = "brokers")]
        Connection::Rabbitmq(rabbitmq) => Box::new(crate::rabbitmq::RabbitmqConnector(rabbitmq.clone())),
    }
}
