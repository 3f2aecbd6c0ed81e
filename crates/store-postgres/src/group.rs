//! Group commit: the requests to accept events that wait when a writer comes round are written in one transaction, with statements
//! for many rows, and answered after its commit. Nothing waits on purpose; while one writer commits, the next takes what has come.
//!
//! When a group fails, each of its requests is written in a transaction of its own, so that a bad one costs no other its commit. When
//! the database cannot be reached, all are told so.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use postrider_domain::limits;
use postrider_store::StoreError;

use super::event::{self, AcceptRequest, Accepted};
use super::fault::{PgError, store_error};
use super::transaction::{Shared, WriteTx};
use super::{broken, unavailable, unexpected_value};

/// One commits while another fills its group.
const WRITERS: usize = 2;
/// How often a request alone that lost against another transaction is tried.
const TRIES: u32 = 6;

/// Sends requests to the writers, which end when this is dropped and everything was written.
pub struct Groups(mpsc::Sender<Job>);

struct Job {
    request: AcceptRequest,
    reply: oneshot::Sender<Result<Accepted, StoreError>>,
}

type Inbox = Arc<Mutex<mpsc::Receiver<Job>>>;

impl Groups {
    pub fn start(shared: &Arc<Shared>) -> Self {
        let (sender, receiver) = mpsc::channel(limits::WRITES_QUEUED);
        let inbox: Inbox = Arc::new(Mutex::new(receiver));
        for _ in 0..WRITERS {
            tokio::spawn(run_writer(Arc::clone(shared), Arc::clone(&inbox)));
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

async fn run_writer(shared: Arc<Shared>, inbox: Inbox) {
    loop {
        let group = next_group(&inbox).await;
        if group.is_empty() {
            return;
        }
        write_group(&shared, group).await;
    }
}

/// What waits, up to a group's worth. Empty when no more will come.
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

async fn write_group(shared: &Arc<Shared>, group: Vec<Job>) {
    let (requests, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.request, job.reply)).unzip();
    match write(shared, &requests).await {
        Ok(answers) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                // Nobody waits any more when the caller was cancelled; the write stands all the same.
                let _ = reply.send(Ok(answer));
            }
        }
        Err(error) if error.is_everybodys() => {
            let why = match store_error(error) {
                StoreError::Unavailable { why, source } => {
                    tracing::warn!(requests = replies.len(), why, ?source, "a group of publishes was not accepted");
                    why
                }
                StoreError::Broken(_) => "the database failed",
            };
            replies.into_iter().for_each(|reply| drop(reply.send(Err(unavailable(why)))));
        }
        Err(error) => {
            tracing::debug!(requests = requests.len(), %error, "a group was rolled back; its requests are written one by one");
            for (request, reply) in requests.into_iter().zip(replies) {
                let _ = reply.send(write_alone(shared, request).await);
            }
        }
    }
}

async fn write_alone(shared: &Arc<Shared>, request: AcceptRequest) -> Result<Accepted, StoreError> {
    let requests = [request];
    let mut tries = 1;
    loop {
        match write(shared, &requests).await {
            Ok(mut answers) => return answers.pop().ok_or_else(|| broken("a request that was not answered")),
            Err(error) if error.is_worth_another_try() && tries < TRIES => tries += 1,
            Err(error) => return Err(store_error(error)),
        }
    }
}

/// What panics must not end the writer, on which others wait.
async fn write(shared: &Arc<Shared>, requests: &[AcceptRequest]) -> Result<Vec<Accepted>, PgError> {
    let written = AssertUnwindSafe(try_write(shared, requests)).catch_unwind().await;
    written.unwrap_or_else(|_| Err(unexpected_value("a request that panics")))
}

async fn try_write(shared: &Arc<Shared>, requests: &[AcceptRequest]) -> Result<Vec<Accepted>, PgError> {
    let mut tx = WriteTx::begin(shared).await?;
    match event::accept(&mut tx, requests).await {
        Ok(answers) => tx.commit().await.map(|()| answers),
        Err(error) => {
            tx.roll_back().await;
            Err(error)
        }
    }
}
