//! The style sheet of the pages.

use crate::fingerprint::fingerprint;

pub const STYLE: &str = include_str!("docs.css");

/// A path that changes with the content, so that browsers may cache the style sheet forever.
pub fn style_path() -> String {
    format!("/docs/docs-{}.css", fingerprint(STYLE.as_bytes()))
}
