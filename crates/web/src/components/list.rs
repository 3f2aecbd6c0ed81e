//! Lists: their empty states, their pages, and facts in pairs.

use maud::{Markup, html};

use postrider_domain::time::Timestamp;

use super::icon::{self, Icon};
use super::time;

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

/// The end of a page whose search stopped before the end of the list: how far it looked, and how to go on.
pub fn cut(searched_to: Timestamp, further: &str) -> Markup {
    html! {
        p.cut { "Looked back to " (time::instant(searched_to)) ". " a href=(further) rel="next" { "Look further" } }
    }
}

/// A list without a row.
pub struct Nothing<'n> {
    /// What the list holds, in the plural: `deliveries`.
    pub things: &'n str,
    pub is_narrowed: bool,
    pub is_continued: bool,
    /// The search stopped here.
    pub searched_to: Option<Timestamp>,
    /// What was asked for is older than this, before which nothing is kept.
    pub kept_since: Option<Timestamp>,
    /// What to do when there is nothing at all yet.
    pub first_use: Markup,
}

impl Nothing<'_> {
    /// Each reason reads differently: only a search that has seen everything says that there is nothing.
    pub fn render(&self) -> Markup {
        let things = self.things;
        match self {
            Self { searched_to: Some(at), .. } => empty(
                icon::CLOCK,
                "Nothing found so far",
                &html! { p { "The search looked at everything back to " (time::instant(*at)) ". Older " (things) " may match." } },
            ),
            Self { kept_since: Some(at), .. } => empty(
                icon::OFF,
                "No longer kept",
                &html! { p { (things) " created before " (time::instant(*at)) " are removed by retention." } },
            ),
            Self { is_continued: true, .. } => {
                empty(icon::CHECK, "That was all", &html! { p { "There are no older " (things) "." } })
            }
            Self { is_narrowed: true, .. } => empty(
                icon::CROSS,
                "Nothing matches",
                &html! { p { "No " (things) " match this filter. Everything was searched." } },
            ),
            Self { first_use, .. } => empty(icon::FLASK, &format!("No {things} yet"), first_use),
        }
    }
}
