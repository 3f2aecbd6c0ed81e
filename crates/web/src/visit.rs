//! One request of a signed-in visitor.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use maud::{Markup, html};

use postrider_domain::access::Principal;
use postrider_domain::caller::CallerAddress;
use postrider_domain::event_type::{EventType, EventTypeName};
use postrider_domain::id::{RequestId, RowKey, WorkspaceId};
use postrider_domain::page::encode_cursor;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;
use postrider_service::{Service, ServiceError};

use axum::response::Response;

use crate::answer::{self, Framing};
use crate::components::{code, list};
use crate::failure::Failure;
use crate::form::Fields;
use crate::language::say;
use crate::layout::{self, Frame, Look, Section};
use crate::site::Site;

/// Who asks, for what, and where links lead. The gate of the pages puts it into the request's extensions.
#[derive(Clone)]
pub struct Visit {
    pub site: Arc<Site>,
    pub principal: Principal,
    pub request_id: RequestId,
    pub address: Option<CallerAddress>,
    pub method: Method,
    /// Path and query as the browser sent them.
    pub uri: Uri,
    pub headers: HeaderMap,
    /// The start of all links: the prefix of the public URL, and `/dashboard` or `/portal/{id}`.
    pub base: String,
    pub framing: Framing,
    pub look: Look,
    /// The query of the URL.
    pub query: Fields,
    /// The workspaces to go on in, for a visitor who manages them.
    pub workspaces: Option<Arc<WorkspaceSwitch>>,
}

/// What the bar shows of workspaces.
#[derive(Debug)]
pub struct WorkspaceSwitch {
    pub own: String,
    /// The newest others, without the server's own.
    pub others: Vec<(WorkspaceId, String)>,
}

impl Visit {
    pub fn service(&self) -> &Arc<Service> {
        &self.site.service
    }

    /// Whether the visitor may do it. The page shows a button only then; the service checks the same table again.
    pub fn may(&self, permission: Permission) -> bool {
        self.principal.may(permission)
    }

    /// Whether the visitor runs the product and not one of its projects. A customer in the portal sees no project,
    /// rate, order or address details.
    pub fn is_operator(&self) -> bool {
        !self.principal.is_customer()
    }

    /// Refuses a page whose purpose the visitor may not do.
    ///
    /// # Errors
    /// Without the permission.
    pub fn require(&self, permission: Permission) -> Result<(), ServiceError> {
        Ok(self.principal.require(permission)?)
    }

    /// The event types that exist for the visitor, in the order of the catalogue.
    pub fn event_types(&self) -> impl Iterator<Item = &EventType> {
        self.service().catalogue().types().iter().filter(|event| self.principal.sees(&event.name))
    }

    /// Where the catalogue stands. The portal has no log of events.
    pub fn event_types_path(&self) -> &'static str {
        if self.is_operator() { "/event-types" } else { "/events" }
    }

    /// An event type by its name. One that is hidden from the visitor is not named as an alternative either.
    ///
    /// # Errors
    /// The fault of the field.
    pub fn known_event(&self, name: &str) -> Result<EventTypeName, String> {
        if self.is_operator() {
            return postrider_service::known_event(self.service().catalogue(), name);
        }
        let found = self.event_types().find(|event| event.name.as_str() == name);
        found.map(|event| event.name.clone()).ok_or_else(|| say!("is not an event type").to_owned())
    }

    /// As [`Self::known_event`], without the retired ones.
    ///
    /// # Errors
    /// The fault of the field.
    pub fn subscribable_event(&self, name: &str) -> Result<EventTypeName, String> {
        if self.is_operator() {
            return postrider_service::subscribable_event(self.service().catalogue(), name);
        }
        let found = self.event_types().find(|event| event.name.as_str() == name && !event.retired);
        found.map(|event| event.name.clone()).ok_or_else(|| say!("is not an event type").to_owned())
    }

    /// The call of the API that shows the same as the page. A customer has no key for it.
    pub fn api_call(&self, method: &str, path: &str) -> Markup {
        if self.is_operator() {
            code::api_call(method, path)
        } else {
            html! {}
        }
    }

    pub fn now(&self) -> Timestamp {
        self.service().clock().now()
    }

    /// A path of these pages, such as `/deliveries`, as the browser needs it.
    pub fn link(&self, path: &str) -> String {
        let (path, fragment) = path.split_once('#').map_or((path, None), |(path, fragment)| (path, Some(fragment)));
        let mut link = format!("{}{path}", self.base);
        for (name, value) in self.look.kept().filter(|(name, _)| !path.contains(&format!("{name}="))) {
            let separator = if link.contains('?') { '&' } else { '?' };
            link = format!("{link}{separator}{name}={value}");
        }
        fragment.map(|fragment| format!("{link}#{fragment}")).unwrap_or(link)
    }

    /// The query that links keep, with its question mark. Empty when they keep nothing.
    pub fn kept_query(&self) -> String {
        self.link("").split_off(self.base.len())
    }

    /// The fields of a GET form that keep the look: such a form drops the query of its address.
    pub fn kept_fields(&self) -> Markup {
        html! { @for (name, value) in self.look.kept() { input type="hidden" name=(name) value=(value); } }
    }

    /// The URL of this page, without scheme and host: where a form leads back to.
    pub fn here(&self) -> String {
        self.site.path_in_browser(&self.uri)
    }

    /// The id in this segment of the path below the base, counted from 0: `/deliveries/{id}` has it in 1.
    ///
    /// # Errors
    /// When the text is no id of this kind: it names nothing.
    pub fn id<T: std::str::FromStr>(&self, segment: usize) -> Result<T, ServiceError> {
        self.segment(segment).parse().map_err(|_| ServiceError::NotFound)
    }

    /// The text of this segment of the path below the base. Empty when there is none.
    pub fn segment(&self, segment: usize) -> &str {
        let path = self.uri.path();
        // The base has the prefix of the public URL, which a proxy may have stripped.
        let stripped = self.base.strip_prefix(self.site.prefix.as_str()).unwrap_or(&self.base);
        let below = path.strip_prefix(&self.base).or_else(|| path.strip_prefix(stripped)).unwrap_or(path);
        below.split('/').filter(|part| !part.is_empty()).nth(segment).unwrap_or_default()
    }

    /// The links to the newest page of this list, and to the one that begins after `next`. The filter of the URL stays.
    pub fn page_links(&self, next: Option<RowKey>) -> Markup {
        let at = |cursor: Option<&str>| format!("?{}", self.query.query_with("cursor", cursor));
        let older = next.map(|key| at(Some(&encode_cursor(key))));
        let newest = self.query.text("cursor").map(|_| at(None));
        list::pages(newest.as_deref(), older.as_deref())
    }

    /// Answers with a page in the frame of these pages. `title` names the thing, without the section and the brand.
    pub fn page(&self, section: Section, title: &str, body: Markup) -> Response {
        self.page_with(StatusCode::OK, section, title, body)
    }

    /// As [`Self::page`], with another status: a form with faults is 400.
    pub fn page_with(&self, status: StatusCode, section: Section, title: &str, body: Markup) -> Response {
        let frame = Frame { visit: self, section, title };
        answer::page(&self.site, status, &self.framing, layout::render(&frame, body))
    }

    /// Leads to a page of these pages after a POST. `notice` names what has happened (`layout::notice`).
    pub fn done(&self, path: &str, notice: &str) -> Response {
        let separator = if path.contains('?') { '&' } else { '?' };
        answer::see_other(&self.site, &self.link(&format!("{path}{separator}done={notice}")))
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let missing = || ServiceError::Internal { source: "a page has no visitor".into() };
        parts.extensions.get::<Self>().cloned().ok_or_else(|| missing().into())
    }
}
