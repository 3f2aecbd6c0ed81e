//! Forms whose effect happens once, however often they are sent.
//!
//! The page gives each form a token in the field [`FIELD`]. It is the idempotency key of the write: a double click, a
//! reload and the back button send the same token and are led to the effect of the first.

use std::future::Future;
use std::time::Duration;

use axum::body::Bytes;
use maud::{Markup, html};

use postrider_domain::endpoint::OpaqueId;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, body_hash};
use postrider_service::{Idempotent, RenderAnswer, ServiceError, WriteError};

use crate::form::Fields;
use crate::visit::Visit;

pub const FIELD: &str = "once";

/// How long a second click waits for the answer to the first, and how often it looks.
const WAIT_STEPS: u32 = 100;
const WAIT_STEP: Duration = Duration::from_millis(100);

/// The field with a fresh token.
pub fn token(visit: &Visit) -> Markup {
    let token = visit.service().random().alphanumeric::<32>();
    html! { input type="hidden" name=(FIELD) value=(String::from_utf8_lossy(&token)); }
}

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
    let written = match begin(visit, fields, page_of).await {
        Ok(idempotent) => write(&idempotent).await,
        Err(refused) => Err(refused),
    };
    answer(written, page_of).map(|page| String::from_utf8_lossy(&page).into_owned())
}

/// As [`write`], for a write whose answer holds a secret or is longer than one transaction: it goes on when the browser
/// gives up the request, as it does at a second click. `render` makes the answer that is kept, and that is returned.
///
/// # Errors
/// As [`write`].
pub async fn finish<T, E>(
    visit: &Visit,
    fields: &Fields,
    render: RenderAnswer<T>,
    write: impl FnOnce(Idempotent<T>) -> E,
) -> Result<Bytes, ServiceError>
where
    T: Send + 'static,
    E: Future<Output = Result<T, WriteError>> + Send + 'static,
{
    let written = match begin(visit, fields, render).await {
        Ok(idempotent) => tokio::spawn(write(idempotent))
            .await
            .unwrap_or_else(|error| Err(ServiceError::Internal { source: Box::new(error) }.into())),
        Err(refused) => Err(refused),
    };
    answer(written, render)
}

/// The effect of a write without a token: one that changes nothing when it comes twice.
///
/// # Errors
/// When it was refused.
pub fn effect<T>(written: Result<T, WriteError>) -> Result<T, ServiceError> {
    written.map_err(|error| match error {
        WriteError::Refused(error) => error,
        WriteError::AnsweredBefore { .. } => {
            ServiceError::Internal { source: "the store replayed an answer to a write without a token".into() }
        }
    })
}

async fn begin<T>(visit: &Visit, fields: &Fields, render: RenderAnswer<T>) -> Result<Idempotent<T>, WriteError> {
    let token = fields.text(FIELD).and_then(|token| OpaqueId::parse(token).ok());
    let key = token.ok_or_else(|| ServiceError::InvalidRequest {
        parameters: vec![(FIELD.to_owned(), "is missing: load the page again".to_owned())],
    })?;
    let path = visit.here();
    let path = path.strip_prefix(&visit.base).unwrap_or(&path);
    // The answer to one customer is none to another, whatever token and id they send.
    let project = visit.principal.tenant.project_text().map(|project| format!("{project} ")).unwrap_or_default();
    let request = IdempotentRequest {
        scope: IdempotencyScope {
            tenant: visit.principal.tenant,
            route: format!("page {project}{} {path}", visit.method),
        },
        key,
        body_hash: body_hash(fields.query_with(FIELD, None).as_bytes()),
        caller: visit.principal.actor.id_text(),
    };
    for _ in 0..WAIT_STEPS {
        match visit.service().begin(Some(request.clone()), render).await {
            // The first click is still at work, and the browser shows only the answer to the second.
            Err(WriteError::Refused(ServiceError::InFlight { .. })) => tokio::time::sleep(WAIT_STEP).await,
            begun => return begun,
        }
    }
    visit.service().begin(Some(request), render).await
}

fn answer<T>(written: Result<T, WriteError>, render: RenderAnswer<T>) -> Result<Bytes, ServiceError> {
    match written {
        Ok(effect) => Ok(render(&effect).1),
        Err(WriteError::AnsweredBefore { body, .. }) => Ok(body),
        Err(WriteError::Refused(ServiceError::IdempotencyKeyConflict(_))) => Err(ServiceError::Conflict(
            "This form was sent before, with other values. Load the page again to send it once more.".to_owned(),
        )),
        Err(WriteError::Refused(error)) => Err(error),
    }
}

/// The path of a page as what is kept of the write.
pub fn page(path: String) -> (u16, Bytes) {
    (303, Bytes::from(path))
}
