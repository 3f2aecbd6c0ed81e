//! Lists: their empty states, their pages, and facts in pairs.

use maud::{Markup, html};

use super::icon::Icon;

/// A list that has nothing to show: why, and what to do. `first_use` tells "nothing yet" from "nothing matches".
pub fn empty(icon: Icon, title: &str, body: &Markup) -> Markup {
    html! { div.empty { span.empty-icon { (icon) } h2 { (title) } (body) } }
}

/// The links at the end of a list. `newer` and `older` are URLs.
pub fn pages(newer: Option<&str>, older: Option<&str>) -> Markup {
    html! {
        @if newer.is_some() || older.is_some() {
            nav.pages aria-label="Pages" {
                @if let Some(url) = newer { a href=(url) rel="prev" { "Newest" } }
                @if let Some(url) = older { a href=(url) rel="next" { "Older" } }
            }
        }
    }
}

/// Names and values in pairs.
pub fn facts(pairs: &[(&str, Markup)]) -> Markup {
    html! { dl.facts { @for (name, value) in pairs { div { dt { (name) } dd { (value) } } } } }
}
