//! The wake-up that shortens the dispatcher's wait. It carries no data, and a lost one costs only time.

use std::sync::Arc;

use tokio::sync::Notify;

#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Notify>);

impl Waker {
    /// Call it when a delivery may have become due.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Completes at the next wake-up, or at once if one came since the last call.
    pub(super) async fn woken(&self) {
        self.0.notified().await;
    }
}
