//! Answers kept for repeated requests. An answer that belongs to an effect is written in the effect's transaction
//! ([`Write::recording`](crate::Write)); this role covers requests without an effect.

use async_trait::async_trait;

use postrider_domain::idempotency::{IdempotentRequest, RecordedAnswer};

use crate::{StoreError, Written};

#[async_trait]
pub trait Answers: Send + Sync + 'static {
    /// The answer kept for this request, if it came before within the window.
    async fn find_answer<'r>(&self, request: &'r IdempotentRequest) -> Result<Option<Written<()>>, StoreError>;

    /// Keeps the answer of a request that had no effect. An answer that is already kept wins.
    async fn record_answer(
        &self,
        request: IdempotentRequest,
        answer: RecordedAnswer,
    ) -> Result<Written<()>, StoreError>;
}
