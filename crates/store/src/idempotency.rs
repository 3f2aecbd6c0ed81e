//! Answers kept for repeated requests. An answer that belongs to an effect is written in the effect's transaction
//! ([`Write::recording`](crate::Write)); this role covers requests without an effect.

use async_trait::async_trait;

use postrider_domain::idempotency::{IdempotentRequest, RecordedAnswer};

use crate::{StoreError, Written};

/// An answer as a back end keeps it.
#[derive(Debug)]
pub struct KeptAnswer {
    pub body_hash: Vec<u8>,
    pub answer: RecordedAnswer,
    /// See [`IdempotentRequest::sealed_for`].
    pub sealed_for: Option<String>,
}

impl KeptAnswer {
    /// What a repeated request gets. A secret goes only to the API key or session that made the first request: another
    /// one may have fewer scopes than the secret gives. An answer that names no caller goes to nobody.
    pub fn replayed_to(self, request: &IdempotentRequest) -> Written<()> {
        if self.body_hash != request.body_hash {
            Written::KeyReused
        } else if self.answer.sealed && (self.sealed_for.is_none() || self.sealed_for != request.caller) {
            Written::SealedForOther
        } else {
            Written::Replayed(self.answer)
        }
    }
}

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
