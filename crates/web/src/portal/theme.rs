//! The look of the settings: a style sheet after that of the pages, and the logo.
//!
//! Both are made at the start, and their paths hold a hash of their content, so browsers keep them for ever.

use std::future::ready;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use postrider_domain::portal_look::PortalLook;

use crate::fingerprint::fingerprint;

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What the pages of the portal load beside the assets of all pages.
#[derive(Clone, Debug, Default)]
pub struct PortalTheme {
    /// `None`: that of the event catalogue.
    pub brand: Option<String>,
    style: Option<Loaded>,
    logo: Option<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    path: String,
    content_type: &'static str,
    bytes: Bytes,
}

impl PortalTheme {
    pub fn new(look: &PortalLook) -> Self {
        let css = style_sheet(look);
        let style = (!css.is_empty()).then(|| Loaded {
            path: format!("/portal/theme.{}.css", fingerprint(css.as_bytes())),
            content_type: "text/css; charset=utf-8",
            bytes: css.into(),
        });
        let logo = look.logo.as_ref().map(|logo| Loaded {
            path: format!("/portal/logo.{}.{}", fingerprint(&logo.bytes), logo.kind.extension()),
            content_type: logo.kind.content_type(),
            bytes: logo.bytes.clone().into(),
        });
        Self { brand: look.brand.as_ref().map(|brand| brand.as_str().to_owned()), style, logo }
    }

    /// Whether a segment of a path names a file of a look, of this one or of an earlier one.
    pub fn is_file_name(segment: &str) -> bool {
        ["theme.", "logo."].iter().any(|stem| segment.starts_with(stem))
    }

    /// The path below the prefix of the public URL.
    pub fn style_path(&self) -> Option<&str> {
        self.style.as_ref().map(|style| style.path.as_str())
    }

    /// As [`Self::style_path`].
    pub fn logo_path(&self) -> Option<&str> {
        self.logo.as_ref().map(|logo| logo.path.as_str())
    }

    /// Its files.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        if let Some(style) = self.style.clone() {
            let path = style.path.clone();
            router = router.route(&path, get(move || ready(answer(&style))));
        }
        if let Some(logo) = self.logo.clone() {
            let path = logo.path.clone();
            router = router.route(&path, get(move |headers: HeaderMap| ready(image(&logo, &headers))));
        }
        router
    }
}

/// Only what the settings name, so that the defaults stand in one place.
fn style_sheet(look: &PortalLook) -> String {
    let mut rules = String::new();
    for (scheme, accent) in [("light", look.accent_light), ("dark", look.accent_dark)] {
        if let Some(colour) = accent {
            rules.push_str(&format!("  --accent-{scheme}: {colour};\n"));
        }
    }
    if let Some(radius) = look.radius {
        let pixels = radius.pixels();
        rules.push_str(&format!("  --radius-s: {}px;\n  --radius-m: {pixels}px;\n", pixels / 2));
    }
    if let Some(font) = look.font {
        rules.push_str(&format!("  --sans: {};\n", font.families()));
    }
    if rules.is_empty() { rules } else { format!(":root {{\n{rules}}}\n") }
}

fn answer(loaded: &Loaded) -> Response {
    let mut response = Response::new(Body::from(loaded.bytes.clone()));
    *response.headers_mut() = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(loaded.content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
        // An SVG opened by itself is a document of our origin: nothing in it may run.
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox")),
    ]);
    response
}

/// A page that was open during a change of the look asks for its old files.
pub fn not_found() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The logo, for an `img` and nothing else.
fn image(logo: &Loaded, asked: &HeaderMap) -> Response {
    let is_other = asked.get(SEC_FETCH_DEST).is_some_and(|dest| dest != "image");
    if !is_other {
        return answer(logo);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use postrider_domain::portal_look::{Colour, FontStack, PAGE_DARK, PAGE_LIGHT, Radius};

    use super::*;

    #[test]
    fn a_style_sheet_holds_only_what_was_set() {
        assert_eq!(style_sheet(&PortalLook::default()), "");
        let look = PortalLook {
            accent_dark: Colour::parse("#9cf"),
            radius: Radius::parse("5px").ok(),
            font: Some(FontStack::Serif),
            ..PortalLook::default()
        };
        assert_eq!(
            style_sheet(&look),
            ":root {\n  --accent-dark: #99ccff;\n  --radius-s: 2px;\n  --radius-m: 5px;\n  --sans: Charter, \
             \"Bitstream Charter\", \"Sitka Text\", Cambria, serif;\n}\n"
        );
    }

    /// The settings are checked against these colours.
    #[test]
    fn the_backgrounds_are_those_of_the_style_sheet() {
        let css = include_str!("../assets/pages.css");
        assert!(css.contains(&format!("--page: light-dark({PAGE_LIGHT}, {PAGE_DARK});")), "{css}");
        assert!(css.contains("--accent: light-dark(var(--accent-light), var(--accent-dark));"));
    }
}
