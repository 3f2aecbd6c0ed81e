//! Watches how full the disk is: sets the state that the store acts upon, keeps the reserve, and removes the oldest
//! payloads and rows before their time while the disk is tight.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::disk::{DiskSpace, DiskState};
use postrider_domain::error_chain::Chain;
use postrider_domain::id::RowKey;
use postrider_domain::limits::{self, AGEING_ROWS_PER_STEP, PAYLOADS_PER_STEP};
use postrider_domain::operational_event::DiskReport;
use postrider_domain::time::Clock;
use postrider_metrics::{Counters, DiskMetrics, Only, RemovedKind};
use postrider_store::disk::DiskUse;
use postrider_store::{AgedStep, LogPart, PayloadStep, StoreError, Upkeep};

use crate::janitor::{Retention, kind_of};

/// The wait between two looks at files of this machine.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// The wait between two looks at a database server, which adds up the sizes of its files.
const REMOTE_LOOK_WAIT: Duration = Duration::from_secs(30);
/// Steps of removal between two looks.
const STEPS_PER_LOOK: usize = 20;
/// The wait between two steps of removal, as the janitor's.
const STEP_WAIT: Duration = Duration::from_millis(20);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub struct DiskWatch {
    pub store: Arc<dyn Upkeep>,
    pub clock: Arc<dyn Clock>,
    /// What the store may take. `None`: as much as the file system has.
    pub max: Option<u64>,
    pub retention: Retention,
    pub metrics: DiskMetrics,
    pub removed: Counters,
    pub stop: CancellationToken,
}

/// Where the watch stands.
struct Watch {
    state: DiskState,
    /// Where the removal of rows goes on: deliveries, events.
    after: [RowKey; 2],
    /// Days by which the log was shortened where only dropped days make room.
    days: u32,
    has_failed: bool,
    /// The last change, until the operator's event of it is written. A full disk may not take it yet.
    unreported: Option<DiskReport>,
}

impl DiskWatch {
    pub async fn run(self) {
        let start = RowKey::from_i64(0);
        let mut watch =
            Watch { state: DiskState::Ok, after: [start, start], days: 0, has_failed: false, unreported: None };
        while !self.stop.is_cancelled() {
            let wait = match self.look(&mut watch).await {
                Ok(wait) => {
                    watch.has_failed = false;
                    wait
                }
                Err(error) => {
                    // Once: on a full disk it may fail each second.
                    if !std::mem::replace(&mut watch.has_failed, true) {
                        tracing::warn!(error = %Chain(&error), "cannot look after the disk; trying again");
                    }
                    Some(LOOK_WAIT)
                }
            };
            // Neither a budget nor a file system to look at.
            let Some(wait) = wait else { return };
            tokio::select! {
                () = self.clock.sleep_until(self.clock.now().plus(wait)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// One look, and what follows from it. Returns the wait until the next one.
    async fn look(&self, watch: &mut Watch) -> Result<Option<Duration>, StoreError> {
        let taken = self.store.disk_use().await?;
        let reserve = self.reserve(&taken);
        let of_file_system = taken.free.map(|free| taken.held + free);
        let Some(limit) = [self.max, of_file_system].into_iter().flatten().min() else { return Ok(None) };
        let space = DiskSpace { used: taken.used, reserve, limit };
        let state = watch.state.next(space);
        self.show(state, space);
        if state != watch.state {
            log_change(watch.state, state, space);
            watch.unreported = Some(DiskReport {
                state: state.as_str(),
                state_before: watch.state.as_str(),
                used_bytes: space.used + space.reserve,
                limit_bytes: space.limit,
            });
            watch.state = state;
            self.store.set_disk_state(state);
        }
        self.keep_reserve(&taken, space, state).await?;
        if state == DiskState::Ok {
            watch.days = 0;
        } else {
            self.make_room(watch, taken.rows_make_room).await?;
        }
        if let Some(report) = watch.unreported {
            self.store.report_disk(report).await?;
            watch.unreported = None;
        }
        Ok(Some(if taken.free.is_some() { LOOK_WAIT } else { REMOTE_LOOK_WAIT }))
    }

    /// At most a tenth of a small budget or file system, so that there is room for something else.
    fn reserve(&self, taken: &DiskUse) -> u64 {
        let Some(size) = taken.size else { return 0 };
        let tenth = self.max.map_or(size, |max| max.min(size)) / 10;
        limits::DISK_RESERVE_BYTES.min(tenth)
    }

    fn show(&self, state: DiskState, space: DiskSpace) {
        self.metrics.budget_bytes.set_count(Only, space.limit);
        self.metrics.budget_used_bytes.set_count(Only, space.used + space.reserve);
        for (position, each) in DiskState::ALL.into_iter().enumerate() {
            self.metrics.state.set_count(position, u64::from(each == state));
        }
    }

    /// Deletes the reserve when the disk is full, and holds it again when there is room for it.
    async fn keep_reserve(&self, taken: &DiskUse, space: DiskSpace, state: DiskState) -> Result<(), StoreError> {
        let Some(free) = taken.free else { return Ok(()) };
        let is_needed = state >= DiskState::Full && space.left() < limits::DISK_RESERVE_NEEDED_BELOW;
        if taken.reserve > 0 && is_needed {
            tracing::warn!(free_bytes = free, "the disk is full: the reserve is given up, so that removals can go on");
            self.store.hold_reserve(0).await
        } else if taken.reserve != space.reserve && state == DiskState::Ok && free > 2 * space.reserve {
            self.store.hold_reserve(space.reserve).await
        } else {
            Ok(())
        }
    }

    /// Removes what is oldest: first payloads, then rows of the log.
    async fn make_room(&self, watch: &mut Watch, rows_make_room: bool) -> Result<(), StoreError> {
        if !rows_make_room {
            return self.drop_a_day(watch).await;
        }
        let step = PayloadStep { age: self.retention.payloads.min(limits::TIGHT_RETENTION), limit: PAYLOADS_PER_STEP };
        for _ in 0..STEPS_PER_LOOK {
            let removed = self.store.expire_payloads(step).await?;
            self.removed.add(RemovedKind::Payloads, removed.rows);
            tokio::time::sleep(STEP_WAIT).await;
            if removed.next.is_none() {
                return self.remove_oldest(watch).await;
            }
        }
        Ok(())
    }

    async fn remove_oldest(&self, watch: &mut Watch) -> Result<(), StoreError> {
        let age = self.retention.log.min(limits::TIGHT_RETENTION);
        for _ in 0..STEPS_PER_LOOK {
            for (part, after) in [LogPart::Deliveries, LogPart::Events].into_iter().zip(&mut watch.after) {
                let step = AgedStep { part, age, after: *after, limit: AGEING_ROWS_PER_STEP };
                let removed = self.store.remove_aged(step).await?;
                self.removed.add(kind_of(part), removed.rows);
                *after = removed.next.unwrap_or(RowKey::from_i64(0));
                tokio::time::sleep(STEP_WAIT).await;
            }
            if watch.after == [RowKey::from_i64(0); 2] {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Shortens the log by another day. Only whole days make room on PostgreSQL.
    async fn drop_a_day(&self, watch: &mut Watch) -> Result<(), StoreError> {
        watch.days = watch.days.saturating_add(1);
        let age = self.retention.log.saturating_sub(DAY.saturating_mul(watch.days)).max(DAY.min(self.retention.log));
        for part in [LogPart::Deliveries, LogPart::Events] {
            let mut after = Some(RowKey::from_i64(0));
            while let Some(from) = after
                && !self.stop.is_cancelled()
            {
                let step = AgedStep { part, age, after: from, limit: AGEING_ROWS_PER_STEP };
                let removed = self.store.remove_aged(step).await?;
                self.removed.add(kind_of(part), removed.rows);
                after = removed.next;
                tokio::time::sleep(STEP_WAIT).await;
            }
        }
        Ok(())
    }
}

fn log_change(before: DiskState, state: DiskState, space: DiskSpace) {
    let (used_bytes, limit_bytes) = (space.used + space.reserve, space.limit);
    let before = before.as_str();
    match state {
        DiskState::Ok => tracing::info!(used_bytes, limit_bytes, before, "the disk has room again"),
        DiskState::Tight => tracing::warn!(
            used_bytes,
            limit_bytes,
            before,
            "the disk gets full: the oldest payloads and rows of the log are removed before their retention. Give it more \
             room, raise --max-disk, or shorten --retention"
        ),
        DiskState::Full => tracing::error!(
            used_bytes,
            limit_bytes,
            before,
            "the disk is full: publishes are refused, deliveries go on. Give it more room, or raise --max-disk"
        ),
        DiskState::Stopped => tracing::error!(
            used_bytes,
            limit_bytes,
            before,
            "the disk is full: nothing is written and no delivery is claimed until it has room again"
        ),
    }
}
