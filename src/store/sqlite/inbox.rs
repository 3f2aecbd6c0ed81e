//! What waits for the writer: jobs, and whether the disk is still at work on the group before.
//!
//! The two stand behind one lock because the writer waits for either: for more to do, or for its turn to commit.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::writer::Job;

pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Room for more; a caller waits for it.
    room: Semaphore,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn Job>>,
    /// Nothing comes in any more.
    closed: bool,
    /// A group that is committed is on its way to the disk.
    syncing: bool,
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
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
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
        self.state().jobs.clear();
    }

    /// The first job of a group. Waits for one; `None` once it is closed and empty.
    pub fn first(&self) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                self.room.add_permits(1);
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next job of a group that is being gathered, as long as there is one or the disk is at work, for then the group could not
    /// be committed anyway. `None` when it is time to commit.
    pub fn next(&self, group_is_full: bool) -> Option<Box<dyn Job>> {
        let mut state = self.state();
        loop {
            if !group_is_full && let Some(job) = state.jobs.pop_front() {
                self.room.add_permits(1);
                return Some(job);
            }
            if !state.syncing {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn sync_begins(&self) {
        self.state().syncing = true;
    }

    pub fn sync_ended(&self) {
        self.state().syncing = false;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
