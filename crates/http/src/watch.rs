//! Which deadline a connection has at the moment. The stream, the exchange and the body report what happens; the
//! connection asks for the next deadline and what its end means.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::time::Instant;

use crate::door::DoorLimits;

/// The state of one connection.
pub(crate) struct Watch {
    limits: WatchLimits,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct WatchLimits {
    head_time: Duration,
    answer_time: Duration,
    idle_time: Duration,
}

struct State {
    phase: Phase,
    /// The answer has been passed to hyper. The exchange ends when it has been sent.
    answer_ended: bool,
    /// Set while the connection waits until the caller reads.
    answer_deadline: Option<Instant>,
    /// Set while the handler waits for the body.
    body_deadline: Option<(Instant, Waker)>,
    body: BodyState,
    /// The handler has dropped the body before its end.
    rest: Option<Incoming>,
    must_linger: bool,
}

enum Phase {
    /// Between two exchanges. `begun` when bytes of a head have arrived.
    Head {
        begun: bool,
        deadline: Instant,
    },
    Exchange,
}

/// How far the body of the current request has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// Nobody has asked for it. A caller that waits for `100 Continue` has not sent it.
    Untouched,
    Begun,
    /// It came too slowly, was refused for lack of memory, or broke off.
    Failed,
    Ended,
}

/// What the end of a deadline means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Idle,
    Head,
    Answer,
}

impl Watch {
    /// `accepted_at` is when the connection was accepted.
    pub(crate) fn new(limits: &DoorLimits, accepted_at: Instant) -> Self {
        let DoorLimits { head_time, answer_time, idle_time, .. } = *limits;
        let state = State {
            phase: Phase::Head { begun: false, deadline: accepted_at + head_time },
            answer_ended: false,
            answer_deadline: None,
            body_deadline: None,
            body: BodyState::Ended,
            rest: None,
            must_linger: false,
        };
        Self { limits: WatchLimits { head_time, answer_time, idle_time }, state: Mutex::new(state) }
    }

    /// Bytes have arrived. The time of a head begins with its first byte, that of the first head with the connection.
    pub(crate) fn received(&self) {
        let mut state = self.lock();
        if let Phase::Head { begun, deadline } = &mut state.phase
            && !*begun
        {
            *begun = true;
            *deadline = (*deadline).min(Instant::now() + self.limits.head_time);
        }
    }

    /// Whether no exchange is under way. What hyper writes then is an answer of its own.
    pub(crate) fn is_between_exchanges(&self) -> bool {
        matches!(self.lock().phase, Phase::Head { .. })
    }

    /// The head of a request has been read.
    pub(crate) fn begin_exchange(&self, has_body: bool) {
        let mut state = self.lock();
        state.phase = Phase::Exchange;
        state.answer_ended = false;
        state.body = if has_body { BodyState::Untouched } else { BodyState::Ended };
        state.rest = None;
    }

    /// The last byte of the answer has been passed to hyper.
    pub(crate) fn end_answer(&self) {
        self.lock().answer_ended = true;
    }

    /// The caller has read all that hyper had to write.
    pub(crate) fn flushed(&self) {
        let mut state = self.lock();
        state.answer_deadline = None;
        if state.answer_ended {
            state.answer_ended = false;
            state.phase = Phase::Head { begun: false, deadline: Instant::now() + self.limits.idle_time };
        }
    }

    pub(crate) fn wrote(&self) {
        self.lock().answer_deadline = None;
    }

    /// The caller reads nothing at the moment.
    pub(crate) fn write_is_blocked(&self) {
        let mut state = self.lock();
        if state.answer_deadline.is_none() {
            state.answer_deadline = Some(Instant::now() + self.limits.answer_time);
        }
    }

    /// The handler waits for more of the body, until `deadline`.
    pub(crate) fn wait_for_body(&self, deadline: Instant, waker: &Waker) {
        let mut state = self.lock();
        match &mut state.body_deadline {
            Some((at, waiting)) if waiting.will_wake(waker) => *at = deadline,
            slot => *slot = Some((deadline, waker.clone())),
        }
    }

    pub(crate) fn set_body(&self, body: BodyState) {
        let mut state = self.lock();
        state.body = body;
        state.body_deadline = None;
    }

    pub(crate) fn body(&self) -> BodyState {
        self.lock().body
    }

    /// Keeps a body that the handler has dropped.
    pub(crate) fn keep_rest(&self, rest: Incoming) {
        self.lock().rest = Some(rest);
    }

    pub(crate) fn take_rest(&self) -> Option<Incoming> {
        self.lock().rest.take()
    }

    /// The connection ends with an answer to a request whose body was not read.
    pub(crate) fn set_must_linger(&self) {
        self.lock().must_linger = true;
    }

    pub(crate) fn must_linger(&self) -> bool {
        self.lock().must_linger
    }

    /// When [`Self::expire`] must be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let state = self.lock();
        let of_phase = match state.phase {
            Phase::Head { deadline, .. } => Some(deadline),
            Phase::Exchange => None,
        };
        let of_body = state.body_deadline.as_ref().map(|(at, _)| *at);
        [of_phase, of_body, state.answer_deadline].into_iter().flatten().min()
    }

    /// What has ended at `now`. Wakes the handler when the time of its body is over, because it answers that itself.
    pub(crate) fn expire(&self, now: Instant) -> Option<Expired> {
        let mut state = self.lock();
        if let Some((_, waker)) = state.body_deadline.take_if(|(at, _)| *at <= now) {
            waker.wake();
        }
        if state.answer_deadline.is_some_and(|at| at <= now) {
            return Some(Expired::Answer);
        }
        match state.phase {
            Phase::Head { begun: true, deadline } if deadline <= now => Some(Expired::Head),
            Phase::Head { begun: false, deadline } if deadline <= now => Some(Expired::Idle),
            _ => None,
        }
    }

    /// A panic of another holder leaves the state whole after each single change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
