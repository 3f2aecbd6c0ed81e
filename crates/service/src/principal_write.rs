//! The frame of a write that a principal asks for.

use postrider_domain::access::Principal;
use postrider_domain::idempotency::Recording;
use postrider_store::Write;

/// A write by the principal, for its own tenant.
pub fn write_by<T>(principal: &Principal, recording: Option<Recording<T>>) -> Write<T> {
    Write { tenant: principal.tenant, author: principal.author(), recording }
}
