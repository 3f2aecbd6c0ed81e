//! One admitted request: who calls, and what the handler reads of it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, Method, Uri};

use postrider_domain::access::Principal;
use postrider_domain::id::{EndpointId, RequestId};
use postrider_service::{Service, ServiceError};

use super::app::App;
use super::error::Failure;

/// What the handler of every route with a key is given.
pub struct Call {
    pub app: Arc<App>,
    pub request_id: RequestId,
    pub principal: Principal,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let request_id = parts.extensions.get().copied().ok_or_else(|| internal("a request has no id"))?;
        let principal = parts.extensions.remove().ok_or_else(|| internal("a public route has no caller"))?;
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let headers = std::mem::take(&mut parts.headers);
        Ok(Self { app: Arc::clone(app), request_id, principal, method, uri, headers })
    }
}

impl Call {
    pub fn service(&self) -> &Arc<Service> {
        &self.app.service
    }

    /// The id of an endpoint or, under `/v1/listeners`, of a listener.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] when the text is no such id. Each kind has its own paths.
    pub fn endpoint_id(&self) -> Result<EndpointId, ServiceError> {
        let is_of_listener = self.uri.path().split('/').nth(2) == Some("listeners");
        let id: EndpointId = self.id(3)?;
        if id.is_listener() == is_of_listener { Ok(id) } else { Err(ServiceError::NotFound) }
    }

    /// The id in this segment of the path. `/v1/x/{id}` has it in segment 3.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] when the text is no id of this kind: it names nothing.
    pub fn id<T: std::str::FromStr>(&self, segment: usize) -> Result<T, ServiceError> {
        let text = self.uri.path().split('/').nth(segment).unwrap_or_default();
        text.parse().map_err(|_| ServiceError::NotFound)
    }
}

pub fn internal(what: &'static str) -> ServiceError {
    ServiceError::Internal { source: what.into() }
}
