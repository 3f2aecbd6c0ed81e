//! Observes the claims while the nodes work: no process ever has more claims of one endpoint than its limit.
//!
//! A claim exists until its outcome is recorded, so claims do not show the number of concurrent calls. `cap.rs` counts
//! those at the receiver.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::limits;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use crate::support::cluster::Cluster;

const LOOK_EVERY: Duration = Duration::from_millis(30);
/// The most claims of one endpoint in one process: in flight, waiting for a permit, or with an outcome being recorded.
const CAP_OF_PROCESS: i64 = limits::CLAIMS_PER_ENDPOINT as i64;

/// The largest numbers observed.
#[derive(Debug, Default)]
pub struct Claims {
    pub looks: usize,
    pub most_of_endpoint: i64,
    pub most_of_process: i64,
}

pub struct Watching {
    over: CancellationToken,
    watching: JoinHandle<Claims>,
}

impl Watching {
    /// # Panics
    /// When a process had more claims of one endpoint than its limit.
    pub async fn finish(self) -> Claims {
        self.over.cancel();
        self.watching.await.unwrap()
    }
}

pub fn watch(cluster: &Arc<Cluster>) -> Watching {
    let over = CancellationToken::new();
    Watching { watching: tokio::spawn(look_on(Arc::clone(cluster), over.clone())), over }
}

async fn look_on(cluster: Arc<Cluster>, over: CancellationToken) -> Claims {
    let (mut client, mut claims) = (None, Claims::default());
    let mut pace = tokio::time::interval(LOOK_EVERY);
    while over.run_until_cancelled(pace.tick()).await.is_some() {
        // While the database restarts, no query works.
        client = match client {
            Some(client) => look(&client, &mut claims).await.ok().map(|()| client),
            None => cluster.try_client().await.ok(),
        };
    }
    claims
}

async fn look(client: &Client, claims: &mut Claims) -> Result<(), Error> {
    // Claims from before the last database start do not count. After a crash in the middle of a commit, perhaps no node
    // knows of the claims in it until their lease expires.
    let sql = "SELECT lane_key, (claim_token >> 12) & 511, COUNT(*) FROM due
               WHERE claim_token IS NOT NULL AND due_at > extract(epoch FROM clock_timestamp()) * 1000
                     AND claim_token >> 21 > extract(epoch FROM pg_postmaster_start_time()) * 1000
               GROUP BY 1, 2 ORDER BY 1";
    let (mut lane, mut of_endpoint) = (0, 0);
    for row in client.query(sql, &[]).await? {
        let (lane_key, of_process): (i64, i64) = (row.get(0), row.get(2));
        assert!(of_process <= CAP_OF_PROCESS, "{of_process} claims of one endpoint in one process");
        of_endpoint = if lane_key == lane { of_endpoint + of_process } else { of_process };
        lane = lane_key;
        claims.most_of_process = claims.most_of_process.max(of_process);
        claims.most_of_endpoint = claims.most_of_endpoint.max(of_endpoint);
    }
    claims.looks += 1;
    Ok(())
}
