//! Whether this process can do its work.
//!
//! Anybody may ask, as often as they like. So all callers share a check of the store, and its result is used for
//! [`limits::READINESS_KEPT`].

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use postrider_domain::disk::DiskState;
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::Meta;

use crate::lock::lock;
use crate::operator::Operator;
use crate::service::Service;

/// The newest check of the store.
#[derive(Default)]
pub struct Readiness(Mutex<Option<Check>>);

struct Check {
    began_at: Timestamp,
    /// `None` until the check is over.
    result: watch::Receiver<Option<bool>>,
}

impl Check {
    /// A check that runs is used whatever its age, so that there is never more than one.
    fn is_usable(&self, now: Timestamp) -> bool {
        let runs = self.result.borrow().is_none() && self.result.has_changed().is_ok();
        runs || (now >= self.began_at && now.since(self.began_at) < limits::READINESS_KEPT)
    }
}

impl Readiness {
    /// The result of the newest check, or of one that `start` starts.
    fn result(
        &self,
        now: Timestamp,
        start: impl FnOnce() -> watch::Receiver<Option<bool>>,
    ) -> watch::Receiver<Option<bool>> {
        let mut newest = lock(&self.0);
        if let Some(check) = newest.as_ref().filter(|check| check.is_usable(now)) {
            return check.result.clone();
        }
        newest.insert(Check { began_at: now, result: start() }).result.clone()
    }
}

impl Service {
    /// Whether the store could be read and written a moment ago.
    pub async fn is_ready(&self) -> bool {
        let mut result = self.readiness.result(self.clock.now(), || start_check(Arc::clone(&self.store)));
        // It fails when the task of the check has panicked.
        result.wait_for(Option::is_some).await.is_ok_and(|result| *result == Some(true))
    }
}

impl Service {
    /// The state of the disk, as this process last found it.
    pub fn disk_state(&self) -> DiskState {
        self.store.disk_state()
    }
}

impl Operator {
    /// As [`Service::is_ready`].
    pub async fn is_ready(&self) -> bool {
        self.service.is_ready().await
    }
}

/// Checks in a task of its own: a caller that hangs up must not end the check of the others.
fn start_check<S: Meta + ?Sized>(store: Arc<S>) -> watch::Receiver<Option<bool>> {
    let (sender, result) = watch::channel(None);
    tokio::spawn(async move {
        let checked = store.check().await;
        if let Err(error) = &checked {
            tracing::warn!(error = %Chain(error), "the store cannot be used; reporting degraded");
        }
        sender.send_replace(Some(checked.is_ok()));
    });
    result
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;

    #[test]
    fn there_is_one_check_at_a_time_and_one_a_second() {
        let (readiness, began) = (Readiness::default(), Timestamp::from_millis(1_000_000));
        let checks = RefCell::new(Vec::new());
        let ask = |millis| {
            let start = || {
                let (sender, result) = watch::channel(None);
                checks.borrow_mut().push(sender);
                result
            };
            let result = *readiness.result(began.plus(Duration::from_millis(millis)), start).borrow();
            (checks.borrow().len(), result)
        };
        assert_eq!((ask(0), ask(0), ask(5_000)), ((1, None), (1, None), (1, None)), "while it runs");
        checks.borrow()[0].send_replace(Some(true));
        assert_eq!((ask(999), ask(1_000)), ((1, Some(true)), (2, None)));
        checks.borrow_mut()[1] = watch::channel(None).0;
        assert_eq!(ask(3_000), (3, None), "a check that ended without a result");
    }
}
