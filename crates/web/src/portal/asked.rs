//! What a request to the portal says by itself: which session, in which look, from where.

use std::sync::Arc;

use axum::extract::OriginalUri;
use http::header::ACCEPT_LANGUAGE;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use maud::{Markup, html};

use axum::response::Response;
use postrider_domain::caller::CallerAddress;
use postrider_domain::id::{PortalSessionId, RequestId};
use postrider_domain::portal::{FrameAncestor, Locale, PortalSession};
use postrider_service::{Origin, ServiceError};

use super::{PortalTheme, frame};
use crate::answer::{self, Framing};
use crate::form::Fields;
use crate::layout::{self, Look};
use crate::site::Site;
use crate::{cookie, language};

/// A request before anybody knows who asks.
pub struct Asked {
    pub site: Arc<Site>,
    /// `None` when the path holds no id of a session.
    pub id: Option<PortalSessionId>,
    pub method: Method,
    pub uri: Uri,
    pub query: Fields,
    pub headers: HeaderMap,
    pub request_id: Option<RequestId>,
    pub address: Option<CallerAddress>,
}

impl Asked {
    pub fn of(site: &Arc<Site>, parts: &Parts) -> Self {
        let extensions = &parts.extensions;
        let uri = extensions.get::<OriginalUri>().map_or_else(|| parts.uri.clone(), |original| original.0.clone());
        Self {
            site: Arc::clone(site),
            id: uri.path().split('/').find_map(|part| part.parse().ok()),
            method: parts.method.clone(),
            query: Fields::parse(uri.query().unwrap_or_default().as_bytes()),
            uri,
            headers: parts.headers.clone(),
            request_id: extensions.get::<RequestId>().copied(),
            address: extensions.get::<CallerAddress>().copied(),
        }
    }

    /// Whether the path is that of a style sheet or a logo. Those of the settings have routes of their own, so this one
    /// is of an earlier look.
    pub fn names_old_file(&self) -> bool {
        let path = self.uri.path();
        let below = path
            .strip_prefix(&self.site.prefix)
            .unwrap_or(path)
            .strip_prefix("/portal/")
            .or_else(|| path.strip_prefix("/portal/"));
        below.is_some_and(|name| !name.contains('/') && PortalTheme::is_file_name(name))
    }

    pub const fn origin(&self) -> Origin<'static> {
        Origin { request_id: self.request_id, address: self.address, route: "portal" }
    }

    /// The token of the session's cookie.
    pub fn token(&self) -> Option<&str> {
        cookie::read(&self.headers, cookie::portal_name(&self.site))
    }

    /// The start of all links.
    pub fn base(&self) -> String {
        base(&self.site, self.id)
    }

    pub fn look(&self, session: Option<&PortalSession>) -> Look {
        Look {
            is_portal: true,
            theme: session.map(|session| session.terms.theme).unwrap_or_default(),
            is_flush: self.query.text("gutters") == Some("0"),
            is_without_bar: self.query.text("nav") == Some("0"),
        }
    }

    /// The session's language, or the one that the browser prefers.
    pub fn locale(&self, session: Option<&PortalSession>) -> Locale {
        let preferred = || Locale::preferred(self.headers.get(ACCEPT_LANGUAGE)?.to_str().ok()?);
        session.and_then(|session| session.terms.locale).or_else(preferred).unwrap_or(Locale::En)
    }

    /// The session of the path, live or ended: what the pages need that are shown without a session.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find_session(&self) -> Result<Option<PortalSession>, ServiceError> {
        match self.id {
            Some(id) => self.site.service.find_portal_session(id).await,
            None => Ok(None),
        }
    }

    /// A page for a visitor without a session. It may stand in the same frames as the pages of the session.
    pub async fn page_without_session(
        &self,
        status: StatusCode,
        session: Option<&PortalSession>,
        page: impl FnOnce() -> (&'static str, Markup),
    ) -> Response {
        language::speak(self.locale(session), async {
            let (title, body) = page();
            let framing = framing(session);
            let is_ended = status == StatusCode::UNAUTHORIZED || self.uri.path().ends_with("/ended");
            let body = html! { (body) (frame::no_session(&self.site, &framing, is_ended)) };
            let html = layout::bare(&self.site, &self.look(session), title, body);
            answer::page(&self.site, status, &framing, html)
        })
        .await
    }
}

/// `/portal/{id}` with the prefix of the public URL. Without an id it leads nowhere.
pub fn base(site: &Site, id: Option<PortalSessionId>) -> String {
    format!("{}/portal/{}", site.prefix, id.map(|id| id.to_string()).unwrap_or_default())
}

/// Who may show the pages of a session in a frame.
pub fn framing(session: Option<&PortalSession>) -> Framing {
    let Some(session) = session else { return Framing::default() };
    let own = session.terms.is_preview.then_some("'self'");
    let listed = session.terms.frame_ancestors.iter().map(FrameAncestor::as_str);
    Framing { ancestors: own.into_iter().chain(listed).collect::<Vec<_>>().join(" "), frames_own: false }
}
