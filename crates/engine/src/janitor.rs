//! Removes what has aged: waiting deliveries, remembered answers, sessions of the dashboard, entries of the audit log,
//! replaced secrets, payloads, old log rows, counts, and rows that ended. Adds counts up to those of longer buckets,
//! and gives free space back to the file system.
//!
//! It works in small bounded steps, so that it never delays deliveries for long.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::id::RowKey;
use postrider_domain::limits::{self, AGEING_ROWS_PER_STEP, PAYLOADS_PER_STEP};
use postrider_domain::time::Clock;
use postrider_metrics::{Counters, RemovedKind};
use postrider_store::{AgedStep, EndedCursor, EndedKind, EndedStep, LogPart, PayloadStep, Removed, StoreError, Upkeep};

/// The wait between two rounds.
const ROUND_WAIT: Duration = Duration::from_secs(60);
/// The wait between two steps through the log. Deliveries have priority, and this leaves the writer to them.
const STEP_WAIT: Duration = Duration::from_millis(20);

/// Listeners removed in one step. Each may have a queue to cancel.
const LISTENERS_PER_STEP: usize = 20;

/// Giving space back takes one part in so many of the writer's time.
const GIVING_BACK_PART: u32 = 20;

/// How long rows are kept after they ended.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub log: Duration,
    /// At most as long as the log.
    pub payloads: Duration,
    pub audit: Duration,
    pub parked: Duration,
}

impl Retention {
    /// A key can be looked up for as long as the audit log may name it.
    const fn of_ended(self, kind: EndedKind) -> Duration {
        match kind {
            EndedKind::Replays | EndedKind::Erasures | EndedKind::Endpoints | EndedKind::Workspaces => self.log,
            EndedKind::ApiKeys => self.audit,
            EndedKind::PortalSessions => limits::PORTAL_SESSION_KEPT,
            EndedKind::ParkedMessages => self.parked,
        }
    }
}

/// The background work on what has aged.
pub struct Janitor {
    pub store: Arc<dyn Upkeep>,
    pub clock: Arc<dyn Clock>,
    pub retention: Retention,
    /// Rows and payloads removed, by kind.
    pub removed: Counters,
    pub stop: CancellationToken,
}

impl Janitor {
    pub async fn run(self) {
        let (store, clock, stop) = (self.store.as_ref(), self.clock.as_ref(), &self.stop);
        let counting = count_stored_bytes(store, clock, stop);
        tokio::join!(self.run_rounds(), counting, give_space_back(store, clock, stop));
    }

    async fn run_rounds(&self) {
        while !self.stop.is_cancelled() {
            if let Err(error) = self.round().await {
                tracing::warn!(error = %Chain(&error), "cannot remove aged rows; the next round tries again");
            }
            wait_for_next_round(self.clock.as_ref(), &self.stop).await;
        }
    }

    async fn round(&self) -> Result<(), StoreError> {
        let (store, retention, stop) = (self.store.as_ref(), self.retention, &self.stop);
        let mut expired = 0;
        loop {
            let step = store.expire_waiting(AGEING_ROWS_PER_STEP).await?;
            expired += step;
            let forgotten = store.forget_answers(AGEING_ROWS_PER_STEP).await?;
            self.removed.add(RemovedKind::Answers, forgotten as u64);
            let sessions = store.remove_ended_sessions(AGEING_ROWS_PER_STEP).await?;
            let refusals = store.forget_refusals(retention.log, AGEING_ROWS_PER_STEP).await?;
            self.removed.add(RemovedKind::Audit, refusals as u64);
            let erased = store.erase_unused_secrets(AGEING_ROWS_PER_STEP).await?;
            let unseen = store.remove_unseen_listeners(limits::LISTENER_KEPT, LISTENERS_PER_STEP).await?;
            if unseen > 0 {
                tracing::info!(listeners = unseen, "listeners were removed that nobody had used for a day");
            }
            if unseen == LISTENERS_PER_STEP && !stop.is_cancelled() {
                continue;
            }
            if [step, forgotten, sessions, refusals, erased].iter().all(|rows| *rows < AGEING_ROWS_PER_STEP)
                || stop.is_cancelled()
            {
                break;
            }
        }
        if expired > 0 {
            tracing::info!(deliveries = expired, "deliveries expired while their endpoints were inactive or paused");
        }
        self.expire_payloads().await?;
        for part in [LogPart::Deliveries, LogPart::Events] {
            self.remove_aged(part).await?;
        }
        loop {
            let removed = store.remove_aged_audit(retention.audit, AGEING_ROWS_PER_STEP).await?;
            self.removed.add(RemovedKind::Audit, removed as u64);
            if removed < AGEING_ROWS_PER_STEP || stop.is_cancelled() {
                break;
            }
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

    /// Takes the payloads that are old enough, and those that had to stay at their age.
    async fn expire_payloads(&self) -> Result<(), StoreError> {
        let step = PayloadStep { age: self.retention.payloads, limit: PAYLOADS_PER_STEP };
        // Kept as long as the log, they go with their rows.
        let mut is_over = self.retention.payloads >= self.retention.log;
        while !is_over && !self.stop.is_cancelled() {
            let Removed { rows, next } = self.store.expire_payloads(step).await?;
            self.removed.add(RemovedKind::Payloads, rows);
            is_over = next.is_none();
            tokio::time::sleep(STEP_WAIT).await;
        }
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after
            && !self.stop.is_cancelled()
        {
            let Removed { rows, next } = self.store.expire_late_payloads(step, from).await?;
            self.removed.add(RemovedKind::Payloads, rows);
            after = next;
            tokio::time::sleep(STEP_WAIT).await;
        }
        Ok(())
    }

    async fn remove_aged(&self, part: LogPart) -> Result<(), StoreError> {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after
            && !self.stop.is_cancelled()
        {
            let step = AgedStep { part, age: self.retention.log, after: from, limit: AGEING_ROWS_PER_STEP };
            let Removed { rows, next } = self.store.remove_aged(step).await?;
            self.removed.add(kind_of(part), rows);
            after = next;
            tokio::time::sleep(STEP_WAIT).await;
        }
        Ok(())
    }
}

pub const fn kind_of(part: LogPart) -> RemovedKind {
    match part {
        LogPart::Deliveries => RemovedKind::Deliveries,
        LogPart::Events => RemovedKind::Events,
    }
}

async fn wait_for_next_round(clock: &dyn Clock, stop: &CancellationToken) {
    tokio::select! {
        () = clock.sleep_until(clock.now().plus(ROUND_WAIT)) => {}
        () = stop.cancelled() => {}
    }
}

/// Gives free space back in small steps, which leave the writer to the deliveries most of the time.
async fn give_space_back(store: &dyn Upkeep, clock: &dyn Clock, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match store.give_space_back().await {
            Ok(Some(took)) => tokio::time::sleep((took * (GIVING_BACK_PART - 1)).max(STEP_WAIT)).await,
            Ok(None) => wait_for_next_round(clock, stop).await,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot give space back to the file system; trying again");
                wait_for_next_round(clock, stop).await;
            }
        }
    }
}

/// Counts once what was stored before the budget. It can take long, so the rounds go on beside it.
async fn count_stored_bytes(store: &dyn Upkeep, clock: &dyn Clock, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match store.count_stored_bytes(AGEING_ROWS_PER_STEP).await {
            Ok(false) => return,
            Ok(true) => tokio::time::sleep(STEP_WAIT).await,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot count what the workspaces store; trying again");
                wait_for_next_round(clock, stop).await;
            }
        }
    }
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
