//! The body of a request while it arrives: it must keep its pace, and all bodies together have a limit.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use postrider_domain::limits;

use crate::door::DoorLimits;
use crate::watch::{BodyState, Watch};

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    #[error("the body arrives too slowly")]
    TooSlow,
    #[error("the bodies of other requests take all memory that is set aside for bodies")]
    OutOfMemory,
    #[error("the connection broke off in the body")]
    Broken(#[source] hyper::Error),
}

/// The bytes of bodies that may be in memory.
pub(crate) struct BodyBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

/// The part of the budget that one connection has taken. Gives it back when dropped.
pub(crate) struct Reservation {
    budget: Arc<BodyBudget>,
    bytes: AtomicUsize,
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0) }
    }
}

impl Reservation {
    pub(crate) fn none_of(budget: &Arc<BodyBudget>) -> Arc<Self> {
        Arc::new(Self { budget: Arc::clone(budget), bytes: AtomicUsize::new(0) })
    }

    /// Gives everything back.
    pub(crate) fn release(&self) {
        self.budget.bytes.fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Takes some more. Returns whether there was enough.
    fn grow(&self, bytes: usize) -> bool {
        let taken = self.budget.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        taken <= self.budget.bytes_max
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

/// How fast a body must arrive.
pub(crate) struct Pace {
    declared: u64,
    read: u64,
    started_at: Instant,
    /// When a large body is too slow if nothing more arrives.
    large_deadline: Instant,
    limits: PaceLimits,
}

#[derive(Clone, Copy)]
struct PaceLimits {
    body_time: Duration,
    slow_start: Duration,
    bytes_per_second: u32,
}

impl Pace {
    /// `declared` is the length in bytes, 0 if it is not known.
    pub(crate) fn new(limits: &DoorLimits, declared: u64, now: Instant) -> Self {
        let limits = PaceLimits {
            body_time: limits.body_time,
            slow_start: limits.body_slow_start,
            bytes_per_second: limits.body_bytes_per_second,
        };
        Self { declared, read: 0, started_at: now, large_deadline: now + limits.slow_start, limits }
    }

    /// Some bytes have arrived. A fast start earns no more than one slow start, so a body cannot stall for longer.
    fn advance(&mut self, bytes: usize, now: Instant) {
        self.read += bytes as u64;
        let earned = Duration::from_secs_f64(bytes as f64 / f64::from(self.limits.bytes_per_second));
        self.large_deadline = (self.large_deadline + earned).min(now + self.limits.slow_start);
    }

    fn deadline(&self) -> Instant {
        if self.declared.max(self.read) > limits::BODY_BYTES as u64 {
            self.large_deadline
        } else {
            self.started_at + self.limits.body_time
        }
    }
}

/// A body on its way to the handler. What the handler does not read goes back to the connection.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    pace: Pace,
    watch: Arc<Watch>,
    reservation: Arc<Reservation>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, pace: Pace, watch: Arc<Watch>, reservation: Arc<Reservation>) -> Self {
        Self { incoming: Some(incoming), pace, watch, reservation }
    }

    fn accept(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyFault> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.pace.advance(bytes, Instant::now());
        if !self.reservation.grow(bytes) {
            self.watch.set_body(BodyState::Failed);
            return Err(BodyFault::OutOfMemory);
        }
        let ended = self.incoming.as_ref().is_none_or(Incoming::is_end_stream);
        self.watch.set_body(if ended { BodyState::Ended } else { BodyState::Begun });
        Ok(frame)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(incoming) = self.incoming.as_mut() else { return Poll::Ready(None) };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.accept(frame))),
            Poll::Ready(Some(Err(error))) => {
                self.watch.set_body(BodyState::Failed);
                Poll::Ready(Some(Err(BodyFault::Broken(error))))
            }
            Poll::Ready(None) => {
                self.watch.set_body(BodyState::Ended);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let deadline = self.pace.deadline();
                if deadline <= Instant::now() {
                    self.watch.set_body(BodyState::Failed);
                    return Poll::Ready(Some(Err(BodyFault::TooSlow)));
                }
                self.watch.set_body(BodyState::Begun);
                self.watch.wait_for_body(deadline, cx.waker());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(rest) = self.incoming.take() {
            self.watch.keep_rest(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KB: usize = 1024;

    fn pace(declared: usize) -> (Pace, Instant) {
        let start = Instant::now();
        (Pace::new(&DoorLimits::new(1), declared as u64, start), start)
    }

    #[test]
    fn a_small_body_has_thirty_seconds() {
        let (mut pace, start) = pace(256 * KB);
        assert_eq!(pace.deadline(), start + 30 * SECOND);
        pace.advance(255 * KB, start + 29 * SECOND);
        assert_eq!(pace.deadline(), start + 30 * SECOND);
    }

    #[test]
    fn a_large_body_has_ten_seconds_and_then_keeps_its_pace() {
        let (mut pace, start) = pace(256 * KB + 1);
        assert_eq!(pace.deadline(), start + 10 * SECOND);
        pace.advance(64 * KB, start + 9 * SECOND);
        assert_eq!(pace.deadline(), start + 12 * SECOND);
        // A burst does not pay for a long stall.
        pace.advance(8192 * KB, start + 11 * SECOND);
        assert_eq!(pace.deadline(), start + 21 * SECOND);
    }

    #[test]
    fn a_body_of_unknown_length_is_large_once_it_has_grown() {
        let (mut pace, start) = pace(0);
        pace.advance(256 * KB, start + SECOND);
        assert_eq!(pace.deadline(), start + 30 * SECOND);
        pace.advance(1, start + SECOND);
        assert_eq!(pace.deadline(), start + 11 * SECOND);
    }

    #[test]
    fn the_budget_is_given_back() {
        let budget = Arc::new(BodyBudget::new(10));
        let first = Reservation::none_of(&budget);
        assert!(first.grow(4) && first.grow(6) && !first.grow(1));
        let second = Reservation::none_of(&budget);
        assert!(!second.grow(1));
        drop(first);
        assert!(second.grow(8) && !second.grow(2));
        drop(second);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 0);
    }
}
