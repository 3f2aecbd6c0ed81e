//! What all handlers share.

use std::sync::Arc;

use http::HeaderName;

use postrider_service::Service;

/// The state of the router.
pub struct App {
    pub service: Arc<Service>,
    /// The page on which each error code has its anchor.
    pub errors_page: String,
    /// Where the portal is, without a slash at the end.
    pub portal_url: String,
    pub version_header: HeaderName,
}

impl App {
    /// `public_url` is where callers reach this server, without a slash at the end.
    pub fn new(service: Arc<Service>, public_url: &str) -> Arc<Self> {
        let version_header = service.catalogue().brand.header("Api-Version").to_ascii_lowercase();
        // A brand holds only letters and digits, so the name is always valid.
        let version_header =
            HeaderName::from_bytes(version_header.as_bytes()).unwrap_or(HeaderName::from_static("api-version"));
        Arc::new(Self {
            service,
            errors_page: errors_page(public_url),
            portal_url: format!("{public_url}/portal"),
            version_header,
        })
    }
}

/// Where the documentation explains the error codes.
pub fn errors_page(public_url: &str) -> String {
    format!("{public_url}/docs/errors")
}
