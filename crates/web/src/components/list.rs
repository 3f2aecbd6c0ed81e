//! Lists: their empty states, their pages, and facts in pairs.

use maud::{Markup, html};

use postrider_domain::time::Timestamp;

use super::icon::{self, Icon};
use super::time;
use crate::language::say;

/// A list that has nothing to show: why, and what to do. `first_use` tells "nothing yet" from "nothing matches".
pub fn empty(icon: Icon, title: &str, body: &Markup) -> Markup {
    html! { div.empty { span.empty-icon { (icon) } h2 { (title) } (body) } }
}

/// The links at the end of a list. `newer` and `older` are URLs.
pub fn pages(newer: Option<&str>, older: Option<&str>) -> Markup {
    html! {
        @if newer.is_some() || older.is_some() {
            nav.pages aria-label=(say!("Pages")) {
                @if let Some(url) = newer { a href=(url) rel="prev" { (say!("Newest")) } }
                @if let Some(url) = older { a href=(url) rel="next" { (say!("Older")) } }
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
        p.cut { (say!("Looked back to {}.", time::instant(searched_to))) " " a href=(further) rel="next" { (say!("Look further")) } }
    }
}

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Things {
    Deliveries,
    Events,
}

/// A list without a row.
pub struct Nothing {
    pub things: Things,
    pub is_narrowed: bool,
    pub is_continued: bool,
    /// The search stopped here.
    pub searched_to: Option<Timestamp>,
    /// What was asked for is older than this, before which nothing is kept.
    pub kept_since: Option<Timestamp>,
    /// What to do when there is nothing at all yet.
    pub first_use: Markup,
}

impl Nothing {
    /// Each reason reads differently: only a search that has seen everything says that there is nothing.
    pub fn render(&self) -> Markup {
        let is_deliveries = self.things == Things::Deliveries;
        match self {
            Self { searched_to: Some(at), .. } => {
                let at = time::instant(*at);
                let sentence = match is_deliveries {
                    true => say!("The search looked at everything back to {}. Older deliveries may match.", at),
                    false => say!("The search looked at everything back to {}. Older events may match.", at),
                };
                empty(icon::CLOCK, say!("Nothing found so far"), &html! { p { (sentence) } })
            }
            Self { kept_since: Some(at), .. } => {
                let at = time::instant(*at);
                let sentence = match is_deliveries {
                    true => say!("Deliveries created before {} are removed by retention.", at),
                    false => say!("Events created before {} are removed by retention.", at),
                };
                empty(icon::OFF, say!("No longer kept"), &html! { p { (sentence) } })
            }
            Self { is_continued: true, .. } => {
                let sentence = if is_deliveries {
                    say!("There are no older deliveries.")
                } else {
                    say!("There are no older events.")
                };
                empty(icon::CHECK, say!("That was all"), &html! { p { (sentence) } })
            }
            Self { is_narrowed: true, .. } => {
                let sentence = match is_deliveries {
                    true => say!("No deliveries match this filter. Everything was searched."),
                    false => say!("No events match this filter. Everything was searched."),
                };
                empty(icon::CROSS, say!("Nothing matches"), &html! { p { (sentence) } })
            }
            Self { first_use, .. } => {
                let title = if is_deliveries { say!("No deliveries yet") } else { say!("No events yet") };
                empty(icon::FLASK, title, first_use)
            }
        }
    }
}
