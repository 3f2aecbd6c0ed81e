//! The customer's portal, under `/portal/{session}`: the pages of one project, for the customer who has it.
//!
//! An integrator asks for a session and shows its link in a frame. The pages are those of the dashboard, narrowed by
//! the session's permissions and by its project; the store narrows each question again.
//!
//! | file | what it decides |
//! |---|---|
//! | `asked.rs` | what a request says before anybody knows who asks: the session's id, the look, the language |
//! | `gate.rs` | who is let in |
//! | `open.rs` | the way in by the link, and the pages for visitors without a session |
//! | `frame.rs` | the frame of a page |
//! | `theme.rs` | the look of the settings |

mod asked;
mod frame;
mod gate;
mod open;
mod theme;

use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

use postrider_domain::permission::Permission;
use postrider_service::ServiceError;

use crate::dashboard::{deliveries, endpoints, event_types, verify};
use crate::failure::Failure;
use crate::live;
use crate::site::Site;
use crate::visit::Visit;

pub use frame::render;
pub use theme::PortalTheme;

/// The start of the paths. Everything below belongs to one session.
const BASE: &str = "/portal/{session}";

/// The pages of the portal.
pub fn router(site: &Arc<Site>) -> Router {
    let at = |path: &str| format!("{BASE}{path}");
    let pages = Router::new()
        .route(BASE, get(start))
        .route(&at("/"), get(start))
        .merge(endpoints::routes(BASE))
        .merge(deliveries::routes(BASE))
        .merge(verify::routes(BASE))
        .route(&at("/events"), get(event_types::show))
        .route(&at("/events/{name}"), get(event_types::show_one))
        .route(&at("/{*rest}"), any(async || Failure(ServiceError::NotFound)))
        .method_not_allowed_fallback(async || Failure(ServiceError::MethodNotAllowed))
        .route_layer(from_fn_with_state(Arc::clone(site), gate::admit));
    let open = Router::new()
        .route(&at("/open"), get(open::open))
        .route(&at("/no-cookie"), get(open::show_no_cookie))
        .route(&at("/ended"), get(open::show_ended))
        .with_state(Arc::clone(site));
    let live = Router::new()
        .route(&at("/live"), get(live::follow))
        .route_layer(from_fn_with_state(Arc::clone(site), gate::admit))
        .layer(Extension(live::Pages(pages.clone())));
    pages.merge(open).merge(live).merge(site.portal.router())
}

/// The first page that the session may see.
async fn start(visit: Visit) -> Response {
    if visit.may(Permission::EndpointsRead) {
        endpoints::show(visit).await.into_response()
    } else if visit.may(Permission::DeliveriesRead) {
        deliveries::show(visit).await.into_response()
    } else {
        event_types::show(visit).await.into_response()
    }
}
