//! What waits for the writer: jobs, and whether the disk is still at work on the group before.
//!
//! The two stand behind one lock because the writer waits for either: for more to do, or for its turn to commit. It is woken as seldom as
//! that allows, because to wake a thread costs about as much as to write a row.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::writer::Job;

pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Room for more; a caller waits for it.
    room: Semaphore,
}

/// While the disk is at work nothing can be committed: the writer is not woken for less than this.
const WORTH_WAKING: usize = 8;

/// Under load a group is given this time to grow: each commit writes the last page of every table and index anew, and more that share
/// it cost next to nothing. A group follows on one of fewer than `LARGE` at once, for then nobody would come to share it.
const SPACING: Duration = Duration::from_millis(1);
const LARGE: usize = 16;

/// What can wait is written with whatever else comes, and by itself after this: so under a light load an event costs one commit of its
/// own and not a second one for its outcome. For as long after a group of `BUSY` nothing waits: it would only make the next one longer.
const PATIENCE: Duration = Duration::from_millis(10);
const BUSY: usize = 4;

#[derive(Default)]
struct State {
    jobs: VecDeque<Queued>,
    /// Of these, those that do not wait.
    urgent: usize,
    /// When the others will have waited long enough.
    patience_ends: Option<Instant>,
    /// The writer waits for so many jobs.
    wake_at: Option<usize>,
    /// Nothing comes in any more.
    closed: bool,
    /// A group that is committed is on its way to the disk.
    syncing: bool,
    /// Until then nothing waits.
    busy_until: Option<Instant>,
    /// The next group is not committed before this instant, unless it is full.
    commit_at: Option<Instant>,
}

struct Queued {
    job: Box<dyn Job>,
    waits: bool,
}

/// Nothing is taken in any more.
pub struct Closed;

impl Inbox {
    pub fn new(room: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), room: Semaphore::new(room) }
    }

    /// Puts a job in, once there is room for it.
    pub async fn put(&self, job: Box<dyn Job>) -> Result<(), Closed> {
        let permit = self.room.acquire().await.map_err(|_| Closed)?;
        let mut state = self.state();
        if state.closed {
            return Err(Closed);
        }
        permit.forget();
        let is_news = state.push(job);
        let jobs = state.jobs.len();
        // Waking is dear, most often the writer is at work, and once is enough.
        let is_awaited = state.wake_at.take_if(|enough| jobs >= *enough && (is_news || *enough > 1)).is_some();
        drop(state);
        if is_awaited {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// What is in stays to be taken.
    pub fn close(&self) {
        self.state().closed = true;
        self.room.close();
        self.changed.notify_one();
    }

    /// Lets go of all that is in: whoever waits for it is told that the store is closing.
    pub fn abandon(&self) {
        self.close();
        let mut state = self.state();
        while state.pop().is_some() {}
    }

    /// The first job of a group. Waits for one that cannot wait, or has waited; `None` once it is closed and empty.
    pub fn first(&self) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        loop {
            let left = state.patience_left();
            if left.is_none_or(|left| left.is_zero())
                && let Some(job) = state.pop()
            {
                self.room.add_permits(1);
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.wait(state, 1, left);
        }
    }

    /// The next job of a group that is being gathered, as long as there is one or the disk is at work, for then the group could not
    /// be committed anyway, or the last large group was just committed. `None` when it is time to commit.
    pub fn next(&self, group_is_full: bool) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        loop {
            if !group_is_full && let Some(job) = state.pop() {
                self.room.add_permits(1);
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

    /// Waits for so many jobs, for the disk or for the end, and no longer than that, if it is given.
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

    /// So many jobs are on their way to the disk.
    pub fn sync_begins(&self, jobs: usize) {
        let mut state = self.state();
        state.syncing = true;
        if jobs >= BUSY {
            state.busy_until = Some(Instant::now() + PATIENCE);
        }
        state.commit_at = (jobs >= LARGE).then(|| Instant::now() + SPACING);
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
    /// Returns whether a writer that has nothing to do must know: with more of what can wait it can be left alone.
    fn push(&mut self, job: Box<dyn Job>) -> bool {
        let waits = job.can_wait() && self.busy_until.is_none_or(|until| until <= Instant::now());
        self.jobs.push_back(Queued { job, waits });
        if !waits {
            self.urgent += 1;
            return true;
        }
        let is_first = self.patience_ends.is_none();
        if is_first {
            self.patience_ends = Some(Instant::now() + PATIENCE);
        }
        is_first
    }

    fn pop(&mut self) -> Option<Box<dyn Job>> {
        let Queued { job, waits } = self.jobs.pop_front()?;
        self.urgent -= usize::from(!waits);
        if self.jobs.is_empty() {
            self.patience_ends = None;
        }
        Some(job)
    }

    /// How long the jobs that are in can wait; `None` if there is none, or one that cannot.
    fn patience_left(&self) -> Option<Duration> {
        let ends = self.patience_ends.filter(|_| self.urgent == 0 && !self.closed)?;
        Some(ends.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::{JobSize, WriteTx};
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
        inbox.put(Box::new(Nothing { can_wait })).await.unwrap_or_else(|_| panic!("it is open"));
    }

    #[tokio::test]
    async fn a_group_that_follows_on_a_large_one_waits_for_more_unless_it_is_full_or_nothing_comes() {
        let inbox = Inbox::new(1);
        inbox.sync_begins(LARGE - 1);
        inbox.sync_ended();
        assert!(inbox.state().commit_at.is_none(), "a small group is followed at once");
        let began = Instant::now();
        inbox.sync_begins(LARGE);
        inbox.sync_ended();
        assert!(inbox.next(true).is_none() && inbox.state().commit_at.is_some(), "what is full is committed");
        assert!(inbox.next(false).is_none());
        assert!(began.elapsed() >= SPACING);
        inbox.sync_begins(LARGE);
        inbox.sync_ended();
        put(&inbox, false).await;
        assert!(inbox.next(false).is_some(), "what comes meanwhile joins");
        inbox.close();
        assert!(inbox.next(false).is_none());
    }

    #[test]
    fn a_writer_that_waits_while_the_disk_is_at_work_is_woken_by_enough_or_by_the_disk() {
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
            let until_disk = scope.spawn(|| while inbox.next(false).is_some() {});
            while inbox.state().wake_at.is_none() {
                std::thread::yield_now();
            }
            inbox.sync_ended();
            until_disk.join().unwrap();
        });
    }

    #[tokio::test]
    async fn what_can_wait_is_taken_with_what_cannot_or_when_it_has_waited_or_at_the_end() {
        let inbox = Inbox::new(9);
        let put = async |can_wait| put(&inbox, can_wait).await;
        let began = Instant::now();
        put(true).await;
        assert!(inbox.first().is_some_and(|job| job.can_wait()) && began.elapsed() >= PATIENCE);
        put(true).await;
        put(false).await;
        assert!(inbox.state().patience_left().is_none(), "one that cannot wait is there");
        assert!(inbox.first().is_some_and(|job| job.can_wait()), "in their order");
        assert!(inbox.next(false).is_some_and(|job| !job.can_wait()) && inbox.next(false).is_none());
        inbox.sync_begins(BUSY);
        inbox.sync_ended();
        assert!(inbox.state().busy_until.take().is_some_and(|until| until >= began + 2 * PATIENCE));
        inbox.state().busy_until = Some(Instant::now() + Duration::from_secs(3600));
        put(true).await;
        assert!(inbox.state().patience_left().is_none(), "under load nothing waits");
        assert!(inbox.first().is_some());
        inbox.state().busy_until = Some(Instant::now());
        inbox.sync_begins(BUSY - 1);
        inbox.sync_ended();
        put(true).await;
        assert!(inbox.state().patience_left().is_some());
        inbox.close();
        assert!(inbox.state().patience_left().is_none(), "nothing more comes");
        assert!(inbox.first().is_some() && inbox.first().is_none());
    }

    #[tokio::test]
    async fn a_writer_is_woken_by_the_first_that_can_wait_and_then_by_what_cannot() {
        let inbox = Inbox::new(9);
        let put = async |can_wait| put(&inbox, can_wait).await;
        let asleep = || inbox.state().wake_at = Some(1);
        let is_woken = || inbox.state().wake_at.is_none();
        asleep();
        put(true).await;
        assert!(is_woken(), "it has to know until when");
        asleep();
        put(true).await;
        assert!(!is_woken());
        put(false).await;
        assert!(is_woken());
    }
}
