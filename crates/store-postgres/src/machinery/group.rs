//! Group commit. A writer takes all waiting requests to accept events, writes them in one transaction with statements
//! for many rows, and answers each after the commit. No request waits on purpose: while one writer commits, the other
//! takes the requests that have arrived.
//!
//! When a group fails, each of its requests is written in its own transaction, so that one bad request fails no other.
//! When the database cannot be reached, all requests fail with that reason.
//!
//! Differs from SQLite: there one writer thread groups all writes. Here only accepts are grouped.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_store::StoreError;

use super::column::unexpected;
use super::fault::{PgError, broken, store_error, unavailable};
use super::transaction::{Database, WriteTx};
use crate::publish::event::{self, AcceptRequest, Accepted};

/// One writer commits while the other fills its group.
const WRITERS: usize = 2;
/// Attempts at a single request that loses against other transactions.
const TRIES: u32 = 6;

/// Sends requests to the writers. They end when this is dropped and all requests are written.
pub struct GroupCommit(mpsc::Sender<Job>);

struct Job {
    request: AcceptRequest,
    reply: oneshot::Sender<Result<Accepted, StoreError>>,
}

type Inbox = Arc<Mutex<mpsc::Receiver<Job>>>;

impl GroupCommit {
    pub fn start(database: &Arc<Database>) -> Self {
        let (sender, receiver) = mpsc::channel(limits::WRITES_QUEUED);
        let inbox: Inbox = Arc::new(Mutex::new(receiver));
        for _ in 0..WRITERS {
            tokio::spawn(run_writer(Arc::clone(database), Arc::clone(&inbox)));
        }
        Self(sender)
    }

    pub async fn accept(&self, request: AcceptRequest) -> Result<Accepted, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closing = || unavailable("the store is closing");
        self.0.send(Job { request, reply }).await.map_err(|_| closing())?;
        answer.await.map_err(|_| closing())?
    }
}

async fn run_writer(database: Arc<Database>, inbox: Inbox) {
    loop {
        let group = next_group(&inbox).await;
        if group.is_empty() {
            return;
        }
        write_group(&database, group).await;
    }
}

/// The waiting requests, up to the size of a group. Empty when no more will come.
async fn next_group(inbox: &Inbox) -> Vec<Job> {
    let mut inbox = inbox.lock().await;
    let mut group: Vec<Job> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    while rows < limits::GROUP_ROWS && bytes < limits::GROUP_BYTES {
        let next = if group.is_empty() { inbox.recv().await } else { inbox.try_recv().ok() };
        let Some(job) = next else { break };
        rows += job.request.events.len();
        bytes += job.request.events.iter().map(|event| event.envelope.len()).sum::<usize>();
        group.push(job);
    }
    group
}

async fn write_group(database: &Arc<Database>, group: Vec<Job>) {
    let (requests, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.request, job.reply)).unzip();
    match write(database, &requests).await {
        Ok(answers) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                // The send fails when the caller was cancelled. The write stands all the same.
                let _ = reply.send(Ok(answer));
            }
        }
        Err(error) if error.affects_all() => {
            let error = store_error(error);
            tracing::warn!(requests = replies.len(), error = %Chain(&error), "a group of publishes failed");
            let why = match error {
                StoreError::Unavailable { why, .. } => why,
                StoreError::Broken(_) => "the database failed",
            };
            replies.into_iter().for_each(|reply| drop(reply.send(Err(unavailable(why)))));
        }
        Err(error) => {
            tracing::debug!(requests = requests.len(), error = %Chain(&error), "a group was rolled back; writing its requests one by one");
            for (request, reply) in requests.into_iter().zip(replies) {
                let _ = reply.send(write_alone(database, request).await);
            }
        }
    }
}

async fn write_alone(database: &Arc<Database>, request: AcceptRequest) -> Result<Accepted, StoreError> {
    let requests = [request];
    let mut tries = 1;
    loop {
        match write(database, &requests).await {
            Ok(mut answers) => return answers.pop().ok_or_else(|| broken("a request got no answer")),
            Err(error) if error.is_retryable() && tries < TRIES => tries += 1,
            Err(error) => return Err(store_error(error)),
        }
    }
}

/// Catches a panic, which must not end the writer: other requests wait for it.
async fn write(database: &Arc<Database>, requests: &[AcceptRequest]) -> Result<Vec<Accepted>, PgError> {
    let written = AssertUnwindSafe(try_write(database, requests)).catch_unwind().await;
    written.unwrap_or_else(|_| Err(unexpected("a request that panics")))
}

async fn try_write(database: &Arc<Database>, requests: &[AcceptRequest]) -> Result<Vec<Accepted>, PgError> {
    let mut tx = WriteTx::begin(database).await?;
    tx.jobs = requests.len();
    match event::accept(&mut tx, requests).await {
        Ok(answers) => tx.commit().await.map(|()| answers),
        Err(error) => {
            tx.roll_back().await;
            Err(error)
        }
    }
}
