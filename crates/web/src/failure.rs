//! What a visitor sees of an error: the status, what it means for him, and what he can do.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

use postrider_domain::access::Scopes;
use postrider_domain::error_chain::Chain;
use postrider_service::ServiceError;

use crate::language::{say, translated};
use crate::layout::Section;
use crate::visit::Visit;

/// Why a handler answers with no page of its own. The gate renders it in the frame of the pages.
#[derive(Debug)]
pub struct Failure(pub ServiceError);

impl<E: Into<ServiceError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status_of(&self.0);
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}

pub const fn status_of(error: &ServiceError) -> StatusCode {
    match error {
        ServiceError::SessionEnded
        | ServiceError::LoginCodeRefused
        | ServiceError::PortalCodeRefused
        | ServiceError::InvalidToken
        | ServiceError::KeyRevoked
        | ServiceError::KeyExpired => StatusCode::UNAUTHORIZED,
        ServiceError::ScopeMissing(_) | ServiceError::CannotGrant(_) => StatusCode::FORBIDDEN,
        ServiceError::NotFound => StatusCode::NOT_FOUND,
        ServiceError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ServiceError::IdempotencyKeyConflict(_)
        | ServiceError::Conflict(_)
        | ServiceError::WorkspaceFull { .. }
        | ServiceError::InFlight { .. } => StatusCode::CONFLICT,
        ServiceError::RateLimited { .. }
        | ServiceError::TooManyRefusedKeys { .. }
        | ServiceError::TooManyPageRequests { .. }
        | ServiceError::TooManyStreams { .. } => StatusCode::TOO_MANY_REQUESTS,
        ServiceError::PayloadTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        ServiceError::Unavailable { .. } | ServiceError::RestoredCopy => StatusCode::SERVICE_UNAVAILABLE,
        ServiceError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Renders the error as a page, and logs our own faults.
pub fn render(visit: &Visit, error: &ServiceError) -> Response {
    let status = status_of(error);
    if status.is_server_error() {
        let cause = std::error::Error::source(error).map(|cause| Chain(cause).to_string());
        tracing::error!(request_id = %visit.request_id, path = visit.uri.path(), cause, "page failed");
    }
    let (title, body) = describe(visit, error);
    visit.page_with(
        status,
        Section::None,
        title,
        html! {
            div.failure {
                p.failure-code { (status.as_u16()) }
                h1 { (title) }
                (body)
                @if status.is_server_error() { p.soft { (say!("Request {}", html! { code { (visit.request_id) } })) } }
            }
        },
    )
}

/// A page for an error before anybody is known: its title and its content.
pub fn without_session(error: &ServiceError) -> (&'static str, Markup) {
    let body = html! {
        h1 { (say!("The pages do not answer now")) }
        p { (translated(&error.to_string())) " " (say!("Deliveries that were accepted wait in the store. Load the page again in a moment.")) }
    };
    (say!("Not now"), body)
}

/// A page for a form that another site sent: its title and its content.
pub fn cross_site(reason: &str) -> (&'static str, Markup) {
    let body = html! {
        h1 { (say!("This request was refused")) }
        p { (say!("Only the pages of this server may send forms to it. Nothing was changed.")) }
        p { (translated(reason)) }
    };
    (say!("Refused"), body)
}

fn describe(visit: &Visit, error: &ServiceError) -> (&'static str, Markup) {
    let back = html! { p { a href=(visit.link("")) { (say!("Back to the start")) } } };
    match error {
        ServiceError::ScopeMissing(_) if !visit.is_operator() => (
            say!("This session may not do that"),
            html! { p { (say!("It was opened with fewer permissions. Ask for them where you came from.")) } (back) },
        ),
        ServiceError::ScopeMissing(missing) => (
            "This sign-in may not do that",
            html! {
                p { "It needs the scope " strong { (Scopes::of(missing.needed)) } ". Sign in with a key that has it." }
                (back)
            },
        ),
        ServiceError::CannotGrant(scopes) => {
            ("This sign-in may not grant that", html! { p { "It lacks the scopes " strong { (scopes) } "." } (back) })
        }
        ServiceError::NotFound => (say!("Nothing here has this id"), html! { (nothing_here(visit)) (back) }),
        ServiceError::Conflict(_)
        | ServiceError::IdempotencyKeyConflict(_)
        | ServiceError::WorkspaceFull { .. }
        | ServiceError::RestoredCopy
        | ServiceError::InFlight { .. } => {
            (say!("That is not possible now"), html! { p { (translated(&error.to_string())) } (back) })
        }
        ServiceError::RateLimited { retry_after, .. }
        | ServiceError::TooManyRefusedKeys { retry_after, .. }
        | ServiceError::TooManyPageRequests { retry_after, .. } => (
            say!("Too many requests"),
            html! { p { (say!("Wait {} s, then load the page again.", retry_after.as_secs().max(1))) } },
        ),
        ServiceError::TooManyStreams { limit } => (
            say!("Too many requests"),
            html! { p { (say!("{} streams of pages are open already. This page asks by itself whether it has changed.", limit)) } },
        ),
        ServiceError::Unavailable { .. } => (
            say!("The store does not answer now"),
            html! {
                p { (say!("Nothing is lost. Deliveries that were accepted wait in the store and go on when it answers again.")) }
                p { a href=(visit.here()) { (say!("Try again")) } }
            },
        ),
        ServiceError::Internal { .. } => (
            say!("Something went wrong on our side"),
            html! { p { (say!("The server's log has the cause under the id of this request.")) } (back) },
        ),
        ServiceError::InvalidRequest { parameters } => (
            say!("That cannot be read"),
            html! {
                p { (say!("These values were not understood:")) }
                ul { @for (name, fault) in parameters { li { strong { (name) } " " (translated(fault)) } } }
                (back)
            },
        ),
        _ => (say!("That was refused"), html! { p { (translated(&error.to_string())) } (back) }),
    }
}

/// The id is not repeated: a page must not show what a stranger wrote into a link.
fn nothing_here(visit: &Visit) -> Markup {
    html! {
        @if visit.is_operator() {
            p { "There is nothing with this id in this workspace and mode. It may be in another workspace, in the other mode, or older than what is kept." }
            p { "Paste the id into the search box above to look for every kind of thing." }
        } @else {
            p { (say!("It may have been deleted, or be older than what is kept.")) }
        }
    }
}
