//! Labels that the style sheet colours: methods and status codes.

use maud::{Markup, html};

/// `POST`.
pub fn method(method: &str) -> Markup {
    html! { span.method data-method=(method) { (method.to_ascii_uppercase()) } }
}

/// `404`, coloured by its first digit.
pub fn status(status: &str) -> Markup {
    html! { span.status data-class=(status.get(..1).unwrap_or("5")) { (status) } }
}
