//! One authenticated request: who calls, and in which version.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method, Uri};

use postrider_domain::access::{Principal, Scope};
use postrider_domain::event::API_VERSION;
use postrider_domain::id::RequestId;
use postrider_service::{Service, ServiceError};

use super::App;
use super::error::Failure;
use super::rate_limit;

/// What every handler that needs a key is given.
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
        let request_id = parts.extensions.get().copied().ok_or_else(|| internal("a request without an id"))?;
        let principal = app.service.authenticate(bearer(parts)?).await?;
        let principal = Principal { request_id: Some(request_id), ..principal };
        rate_limit::pass(&app.service, &principal, parts)?;
        check_version(app, parts)?;
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let headers = std::mem::take(&mut parts.headers);
        Ok(Self { app: Arc::clone(app), request_id, principal, method, uri, headers })
    }
}

impl Call {
    pub fn service(&self) -> &Arc<Service> {
        &self.app.service
    }

    /// The service asks again; here it comes before anything is read of the body.
    pub fn require(&self, any_of: &'static [Scope]) -> Result<(), ServiceError> {
        Ok(self.principal.require(any_of)?)
    }

    /// The last part of the path, when it is an id of this kind. Any other text names nothing.
    pub fn id<T: std::str::FromStr>(&self, segment: usize) -> Result<T, ServiceError> {
        let text = self.uri.path().split('/').nth(segment).unwrap_or_default();
        text.parse().map_err(|_| ServiceError::NotFound)
    }
}

fn bearer(parts: &Parts) -> Result<&str, ServiceError> {
    let header = parts.headers.get(AUTHORIZATION).ok_or(ServiceError::InvalidToken)?;
    let text = header.to_str().map_err(|_| ServiceError::InvalidToken)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(ServiceError::InvalidToken),
    }
}

fn check_version(app: &App, parts: &Parts) -> Result<(), ServiceError> {
    match parts.headers.get(&app.version_header) {
        None => Ok(()),
        Some(version) if version.as_bytes() == API_VERSION.as_bytes() => Ok(()),
        Some(_) => Err(ServiceError::VersionUnsupported),
    }
}

pub fn internal(what: &'static str) -> ServiceError {
    ServiceError::Internal { source: what.into() }
}
