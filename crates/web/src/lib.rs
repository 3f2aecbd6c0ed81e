//! HTML over HTTP: the documentation, the operator's dashboard, and the customer's portal.
//!
//! Pages are rendered on the server. Every action is a form that works without script; the one script only adds to
//! them. A page holds no rule: it asks `service`, and it asks the table of permissions before it shows a button.
//!
//! | file | what it decides |
//! |---|---|
//! | `site.rs` | what all pages share: the service, the public URL and its path prefix, the assets |
//! | `visit.rs` | one request of a signed-in visitor: who asks, and where links lead |
//! | `answer.rs` | the headers of a page, redirects, and 304 for a page that has not changed |
//! | `csrf.rs` | which requests may change anything |
//! | `cookie.rs` | the cookies of sessions |
//! | `form.rs` | fields of a form and of a query |
//! | `fingerprint.rs` | the short name of a content, for paths and tags |
//! | `failure.rs` | what a visitor sees of an error |
//! | `layout.rs` | the frame of a page: head, bar, search, notice |
//! | `list_query.rs` | the query of a list's page: its filter, its page, its period |
//! | `live.rs` | streams that say when a page has changed |
//! | `once.rs` | forms whose effect happens once, however often they are sent |
//! | `language/` | the language of a page, and its German |
//! | `components/` | the parts of pages: states, times, tables, fields, charts |
//! | `dashboard/` | the pages of the operator |
//! | `portal/` | the pages of the customer |
//! | `docs/` | the documentation, made from the OpenAPI document |

mod answer;
mod assets;
mod components;
mod cookie;
mod csrf;
mod dashboard;
pub mod docs;
mod failure;
mod fingerprint;
mod form;
mod language;
mod layout;
mod list_query;
mod live;
mod once;
mod portal;
mod site;
mod visit;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub use site::{ShownSetting, Site};

/// The pages that need a session, and their assets.
pub fn pages(site: &Arc<Site>) -> Router {
    let fit = from_fn_with_state(Arc::clone(site), answer::fit_to_address);
    let pages = dashboard::router(site).merge(portal::router(site)).layer(fit);
    // A proxy in front may strip the path of the public URL, or not.
    if site.prefix.is_empty() { pages } else { Router::new().nest(&site.prefix, pages.clone()).merge(pages) }
}
