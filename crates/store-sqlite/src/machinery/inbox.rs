//! The jobs that wait for the writer, and whether the group before is still being flushed.
//!
//! Both are behind one lock, because the writer waits for either: for more jobs, or until it may commit. It is woken as
//! seldom as possible: waking a thread costs about as much as writing a row.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::writer::Job;

pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// As `changed`, for a writer that is a task.
    changed_for_task: Notify,
    /// One permit for each job that still fits. A caller waits for one.
    free: Semaphore,
}

/// Nothing can be committed during a flush. The writer is woken then for no fewer jobs than this.
const WORTH_WAKING: usize = 8;

/// Under load a group gets this time to grow. Each commit writes the last page of every table and index again, so that
/// one more job in it costs next to nothing. A group that follows one of fewer than `LARGE_GROUP` jobs is committed at
/// once: no others would join.
const GROUP_SPACING: Duration = Duration::from_millis(1);
const LARGE_GROUP: usize = 16;

/// A job that can wait is written with the next job that cannot, and alone after this time. So under a light load an
/// event costs one commit, not a second one for its outcome. For this time after a group of `BUSY_GROUP` jobs nothing
/// waits: waiting would only make the next group longer.
const SHARED_COMMIT_WAIT: Duration = Duration::from_millis(10);
const BUSY_GROUP: usize = 4;

#[derive(Default)]
struct State {
    jobs: VecDeque<Queued>,
    /// How many of the jobs do not wait.
    urgent: usize,
    /// When the first job that waits has waited long enough.
    wait_ends: Option<Instant>,
    /// Set while the writer sleeps: the number of jobs that wakes it.
    wake_at: Option<usize>,
    closed: bool,
    /// A committed group is being flushed.
    syncing: bool,
    /// Before this instant no job waits.
    busy_until: Option<Instant>,
    /// The next group is not committed before this instant, unless it is full.
    commit_at: Option<Instant>,
}

struct Queued {
    job: Box<dyn Job>,
    waits: bool,
}

/// The inbox accepts no more jobs.
pub struct Closed;

impl Inbox {
    pub fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            changed_for_task: Notify::new(),
            free: Semaphore::new(capacity),
        }
    }

    /// Adds a job. Waits while the inbox is full.
    pub async fn put(&self, job: Box<dyn Job>) -> Result<(), Closed> {
        let permit = self.free.acquire().await.map_err(|_| Closed)?;
        let mut state = self.state();
        if state.closed {
            return Err(Closed);
        }
        permit.forget();
        let must_wake = state.push(job);
        let jobs = state.jobs.len();
        // Waking a thread costs a syscall. The writer is usually running already, and needs waking once.
        let wakes = state.wake_at.take_if(|enough| jobs >= *enough && (must_wake || *enough > 1)).is_some();
        drop(state);
        if wakes {
            self.wake_writer();
        }
        Ok(())
    }

    /// Accepts no more jobs. Those that are in are still written.
    pub fn close(&self) {
        self.state().closed = true;
        self.free.close();
        self.wake_writer();
    }

    fn wake_writer(&self) {
        self.changed.notify_one();
        self.changed_for_task.notify_one();
    }

    /// Drops all jobs. Their callers get the answer that the store is closing.
    pub fn abandon(&self) {
        self.close();
        let mut state = self.state();
        while state.pop().is_some() {}
    }

    /// The first job of a group. Waits for a job that cannot wait, or for one that has waited long enough. `None` once
    /// the inbox is closed and empty.
    pub fn first(&self) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        loop {
            let left = state.wait_left();
            if left.is_none_or(|left| left.is_zero())
                && let Some(job) = state.pop()
            {
                self.free.add_permits(1);
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.wait(state, 1, left);
        }
    }

    /// As [`Self::first`], for a writer that is a task.
    pub async fn first_for_task(&self) -> Option<Box<dyn Job>> {
        loop {
            let left = {
                let mut state = self.state();
                state.wake_at = None;
                let left = state.wait_left();
                if left.is_none_or(|left| left.is_zero())
                    && let Some(job) = state.pop()
                {
                    self.free.add_permits(1);
                    return Some(job);
                }
                if state.closed {
                    return None;
                }
                state.wake_at = Some(1);
                left
            };
            let changed = self.changed_for_task.notified();
            match left {
                // Either end of the wait looks again.
                Some(left) => drop(tokio::time::timeout(left, changed).await),
                None => changed.await,
            }
        }
    }

    /// The next job of an open group. `None` when it is time to commit. Waits for more jobs during a flush, when the
    /// group could not be committed anyway, and for a moment after a large group.
    pub fn next(&self, group_is_full: bool) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        loop {
            if !group_is_full && let Some(job) = state.pop() {
                self.free.add_permits(1);
                return Some(job);
            }
            let enough = if group_is_full { usize::MAX } else { WORTH_WAKING };
            if state.syncing {
                state = self.wait(state, enough, None);
                continue;
            }
            let left = state.commit_at.map(|at| at.saturating_duration_since(Instant::now()));
            match left.filter(|left| !left.is_zero() && !group_is_full && !state.closed) {
                Some(left) => state = self.wait(state, enough, Some(left)),
                None => return None,
            }
        }
    }

    /// Waits for this many jobs, for the end of a flush or for the close, and no longer than `at_most`.
    fn wait<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        jobs: usize,
        at_most: Option<Duration>,
    ) -> MutexGuard<'s, State> {
        state.wake_at = Some(jobs);
        let mut state = match at_most {
            Some(time) => self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.wake_at = None;
        state
    }

    /// A group of this many jobs is committed and about to be flushed.
    pub fn sync_begins(&self, jobs: usize) {
        let mut state = self.state();
        state.syncing = true;
        if jobs >= BUSY_GROUP {
            state.busy_until = Some(Instant::now() + SHARED_COMMIT_WAIT);
        }
        state.commit_at = (jobs >= LARGE_GROUP).then(|| Instant::now() + GROUP_SPACING);
    }

    pub fn sync_ended(&self) {
        self.state().syncing = false;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns whether the job must wake a writer that has nothing to do. A second job that can wait need not.
    fn push(&mut self, job: Box<dyn Job>) -> bool {
        let waits = job.can_wait() && self.busy_until.is_none_or(|until| until <= Instant::now());
        self.jobs.push_back(Queued { job, waits });
        if !waits {
            self.urgent += 1;
            return true;
        }
        let is_first = self.wait_ends.is_none();
        if is_first {
            self.wait_ends = Some(Instant::now() + SHARED_COMMIT_WAIT);
        }
        is_first
    }

    fn pop(&mut self) -> Option<Box<dyn Job>> {
        let Queued { job, waits } = self.jobs.pop_front()?;
        self.urgent -= usize::from(!waits);
        if self.jobs.is_empty() {
            self.wait_ends = None;
        }
        Some(job)
    }

    /// How long the jobs can still wait. `None` if there is none, or if one cannot wait.
    fn wait_left(&self) -> Option<Duration> {
        let ends = self.wait_ends.filter(|_| self.urgent == 0 && !self.closed)?;
        Some(ends.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::writer::{JobSize, WriteTx};
    use postrider_store::StoreError;

    struct Nothing {
        can_wait: bool,
    }

    impl Job for Nothing {
        fn size(&self) -> JobSize {
            JobSize::ONE_ROW
        }

        fn can_wait(&self) -> bool {
            self.can_wait
        }

        fn run(&mut self, _tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error> {
            Ok(())
        }

        fn settle(self: Box<Self>, _committed: Result<(), StoreError>) {}
    }

    async fn put(inbox: &Inbox, can_wait: bool) {
        inbox.put(Box::new(Nothing { can_wait })).await.unwrap_or_else(|_| panic!("the inbox is open"));
    }

    #[tokio::test]
    async fn a_group_after_a_large_one_waits_for_more_jobs() {
        let inbox = Inbox::new(1);
        inbox.sync_begins(LARGE_GROUP - 1);
        inbox.sync_ended();
        assert!(inbox.state().commit_at.is_none(), "after a small group the next is committed at once");
        let began = Instant::now();
        inbox.sync_begins(LARGE_GROUP);
        inbox.sync_ended();
        assert!(inbox.next(true).is_none() && inbox.state().commit_at.is_some(), "a full group is committed");
        assert!(inbox.next(false).is_none());
        assert!(began.elapsed() >= GROUP_SPACING);
        inbox.sync_begins(LARGE_GROUP);
        inbox.sync_ended();
        put(&inbox, false).await;
        assert!(inbox.next(false).is_some(), "a job that comes meanwhile joins");
        inbox.close();
        assert!(inbox.next(false).is_none());
    }

    #[test]
    fn a_flush_or_enough_jobs_wake_the_waiting_writer() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let inbox = Inbox::new(WORTH_WAKING);
        inbox.sync_begins(1);
        std::thread::scope(|scope| {
            let asleep = scope.spawn(|| inbox.next(false).is_some());
            while inbox.state().wake_at.is_none() {
                std::thread::yield_now();
            }
            for _ in 0..WORTH_WAKING {
                runtime.block_on(put(&inbox, false));
            }
            assert!(asleep.join().unwrap());
            let until_flushed = scope.spawn(|| while inbox.next(false).is_some() {});
            while inbox.state().wake_at.is_none() {
                std::thread::yield_now();
            }
            inbox.sync_ended();
            until_flushed.join().unwrap();
        });
    }

    #[tokio::test]
    async fn a_job_that_can_wait_is_written_with_the_next_or_alone() {
        let inbox = Inbox::new(9);
        let put = async |can_wait| put(&inbox, can_wait).await;
        let began = Instant::now();
        put(true).await;
        assert!(inbox.first().is_some_and(|job| job.can_wait()) && began.elapsed() >= SHARED_COMMIT_WAIT);
        put(true).await;
        put(false).await;
        assert!(inbox.state().wait_left().is_none(), "one job cannot wait");
        assert!(inbox.first().is_some_and(|job| job.can_wait()), "in the order in which they came");
        assert!(inbox.next(false).is_some_and(|job| !job.can_wait()) && inbox.next(false).is_none());
        inbox.sync_begins(BUSY_GROUP);
        inbox.sync_ended();
        assert!(inbox.state().busy_until.take().is_some_and(|until| until >= began + 2 * SHARED_COMMIT_WAIT));
        inbox.state().busy_until = Some(Instant::now() + Duration::from_secs(3600));
        put(true).await;
        assert!(inbox.state().wait_left().is_none(), "under load no job waits");
        assert!(inbox.first().is_some());
        inbox.state().busy_until = Some(Instant::now());
        inbox.sync_begins(BUSY_GROUP - 1);
        inbox.sync_ended();
        put(true).await;
        assert!(inbox.state().wait_left().is_some());
        inbox.close();
        assert!(inbox.state().wait_left().is_none(), "a closed inbox gets no more jobs");
        assert!(inbox.first().is_some() && inbox.first().is_none());
    }

    #[tokio::test]
    async fn a_writer_that_is_a_task_waits_as_a_thread_does() {
        let inbox = Inbox::new(9);
        let began = Instant::now();
        put(&inbox, true).await;
        let first = inbox.first_for_task().await;
        assert!(first.is_some_and(|job| job.can_wait()) && began.elapsed() >= SHARED_COMMIT_WAIT);
        put(&inbox, true).await;
        let (first, ()) = tokio::join!(inbox.first_for_task(), put(&inbox, false));
        assert!(first.is_some_and(|job| job.can_wait()), "an urgent job ends the wait");
        assert!(inbox.first_for_task().await.is_some_and(|job| !job.can_wait()));
        let (none, ()) = tokio::join!(inbox.first_for_task(), async { inbox.close() });
        assert!(none.is_none());
    }

    #[tokio::test]
    async fn a_writer_is_woken_by_the_first_job_and_by_urgent_ones() {
        let inbox = Inbox::new(9);
        let put = async |can_wait| put(&inbox, can_wait).await;
        let asleep = || inbox.state().wake_at = Some(1);
        let is_woken = || inbox.state().wake_at.is_none();
        asleep();
        put(true).await;
        assert!(is_woken(), "the writer must know until when to wait");
        asleep();
        put(true).await;
        assert!(!is_woken());
        put(false).await;
        assert!(is_woken());
    }
}
