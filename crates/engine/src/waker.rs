//! The nudge that shortens the dispatcher's wait: it carries no data, and losing one costs only time.

use std::sync::Arc;

use tokio::sync::Notify;

#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Notify>);

impl Waker {
    /// Something may have fallen due.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Completes at the next nudge, or at once when one came since the last time.
    pub(super) async fn nudged(&self) {
        self.0.notified().await;
    }
}
