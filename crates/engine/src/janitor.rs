//! Removes what has aged: waiting deliveries, remembered answers, sessions of the dashboard, entries of the audit log,
//! replaced secrets, old log rows, counts, and rows that ended. Adds counts up to those of longer buckets.
//!
//! It works in small bounded steps, so that it never delays deliveries for long.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::id::RowKey;
use postrider_domain::limits::{self, AGEING_ROWS_PER_STEP};
use postrider_domain::time::Clock;
use postrider_store::{AgedStep, EndedCursor, EndedKind, EndedStep, LogPart, StoreError, Upkeep};

/// The wait between two rounds.
const ROUND_WAIT: Duration = Duration::from_secs(60);
/// The wait between two steps through the log. Deliveries have priority, and this leaves the writer to them.
const STEP_WAIT: Duration = Duration::from_millis(20);

/// How long rows are kept after they ended.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub log: Duration,
    pub audit: Duration,
}

impl Retention {
    /// A key can be looked up for as long as the audit log may name it.
    const fn of_ended(self, kind: EndedKind) -> Duration {
        match kind {
            EndedKind::Replays | EndedKind::Endpoints | EndedKind::Workspaces => self.log,
            EndedKind::ApiKeys => self.audit,
            EndedKind::PortalSessions => limits::PORTAL_SESSION_KEPT,
        }
    }
}

pub async fn run(store: Arc<dyn Upkeep>, clock: Arc<dyn Clock>, retention: Retention, stop: CancellationToken) {
    let counting = count_stored_bytes(store.as_ref(), clock.as_ref(), &stop);
    tokio::join!(run_rounds(store.as_ref(), clock.as_ref(), retention, &stop), counting);
}

/// Counts once what was stored before the budget. It can take long, so the rounds go on beside it.
async fn count_stored_bytes(store: &dyn Upkeep, clock: &dyn Clock, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match store.count_stored_bytes(AGEING_ROWS_PER_STEP).await {
            Ok(false) => return,
            Ok(true) => tokio::time::sleep(STEP_WAIT).await,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot count what the workspaces store; trying again");
                tokio::select! {
                    () = clock.sleep_until(clock.now().plus(ROUND_WAIT)) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

async fn run_rounds(store: &dyn Upkeep, clock: &dyn Clock, retention: Retention, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = round(store, retention, stop).await {
            tracing::warn!(error = %Chain(&error), "cannot remove aged rows; the next round tries again");
        }
        tokio::select! {
            () = clock.sleep_until(clock.now().plus(ROUND_WAIT)) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn round(store: &dyn Upkeep, retention: Retention, stop: &CancellationToken) -> Result<(), StoreError> {
    let mut expired = 0;
    loop {
        let step = store.expire_waiting(AGEING_ROWS_PER_STEP).await?;
        expired += step;
        let forgotten = store.forget_answers(AGEING_ROWS_PER_STEP).await?;
        let sessions = store.remove_ended_sessions(AGEING_ROWS_PER_STEP).await?;
        let refusals = store.forget_refusals(retention.log, AGEING_ROWS_PER_STEP).await?;
        let erased = store.erase_unused_secrets(AGEING_ROWS_PER_STEP).await?;
        if [step, forgotten, sessions, refusals, erased].iter().all(|rows| *rows < AGEING_ROWS_PER_STEP)
            || stop.is_cancelled()
        {
            break;
        }
    }
    if expired > 0 {
        tracing::info!(deliveries = expired, "deliveries expired while their endpoints were inactive or paused");
    }
    for part in [LogPart::Deliveries, LogPart::Events] {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after
            && !stop.is_cancelled()
        {
            let step = AgedStep { part, age: retention.log, after: from, limit: AGEING_ROWS_PER_STEP };
            after = store.remove_aged(step).await?;
            tokio::time::sleep(STEP_WAIT).await;
        }
    }
    while store.remove_aged_audit(retention.audit, AGEING_ROWS_PER_STEP).await? == AGEING_ROWS_PER_STEP
        && !stop.is_cancelled()
    {
        tokio::time::sleep(STEP_WAIT).await;
    }
    for kind in EndedKind::ALL {
        let age = retention.of_ended(kind);
        let mut after = Some(EndedCursor::START);
        while let Some(from) = after
            && !stop.is_cancelled()
        {
            after = store.remove_ended(EndedStep { kind, age, after: from, limit: AGEING_ROWS_PER_STEP }).await?;
            tokio::time::sleep(STEP_WAIT).await;
        }
    }
    store.remove_empty_counters(retention.log, AGEING_ROWS_PER_STEP).await?;
    add_up_rollups(store, retention, stop).await
}

/// Adds the counts of closed minutes and hours up, and removes old ones.
async fn add_up_rollups(store: &dyn Upkeep, retention: Retention, stop: &CancellationToken) -> Result<(), StoreError> {
    while store.fold_rollups(AGEING_ROWS_PER_STEP).await? && !stop.is_cancelled() {
        tokio::time::sleep(STEP_WAIT).await;
    }
    while store.remove_aged_rollups(retention.log, AGEING_ROWS_PER_STEP).await? && !stop.is_cancelled() {
        tokio::time::sleep(STEP_WAIT).await;
    }
    Ok(())
}
