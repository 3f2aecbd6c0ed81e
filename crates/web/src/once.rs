//! Forms whose effect happens once, however often they are sent.
//!
//! The page gives each form a token in the field [`FIELD`]. It is the idempotency key of the write: a double click, a
//! reload and the back button send the same token and are led to the effect of the first.

use axum::body::Bytes;

use postrider_domain::endpoint::OpaqueId;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, body_hash};
use postrider_service::{Idempotent, RenderAnswer, ServiceError, WriteError};

use crate::form::Fields;
use crate::visit::Visit;

pub const FIELD: &str = "once";

/// Runs the write of a form, or finds what it did before. `page_of` renders the path of the page that shows the effect,
/// below the base of the links. That path is returned.
///
/// # Errors
/// The refusal of the write. A form without a token is refused too: it was not made by a page of ours.
pub async fn write<T: 'static>(
    visit: &Visit,
    fields: &Fields,
    page_of: RenderAnswer<T>,
    write: impl AsyncFnOnce(&Idempotent<T>) -> Result<T, WriteError>,
) -> Result<String, ServiceError> {
    let token = fields.text(FIELD).and_then(|token| OpaqueId::parse(token).ok());
    let key = token.ok_or_else(|| ServiceError::InvalidRequest {
        parameters: vec![(FIELD.to_owned(), "is missing: load the page again".to_owned())],
    })?;
    let path = visit.here();
    let path = path.strip_prefix(&visit.base).unwrap_or(&path);
    let request = IdempotentRequest {
        scope: IdempotencyScope { tenant: visit.principal.tenant, route: format!("page {} {path}", visit.method) },
        key,
        body_hash: body_hash(fields.query_with(FIELD, None).as_bytes()),
        api_key: visit.principal.actor.api_key(),
    };
    let written = match visit.service().begin(Some(request), page_of).await {
        Ok(idempotent) => write(&idempotent).await,
        Err(refused) => Err(refused),
    };
    let page = match written {
        Ok(effect) => page_of(&effect).1,
        Err(WriteError::AnsweredBefore { body, .. }) => body,
        Err(WriteError::Refused(error)) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The path of a page as what is kept of the write.
pub fn page(path: String) -> (u16, Bytes) {
    (303, Bytes::from(path))
}
