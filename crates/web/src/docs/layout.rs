//! The frame of all documentation pages: head, navigation bar, table of contents.

use maud::{DOCTYPE, Markup, html};

use super::document::{Document, text};
use super::style::style_path;

/// A page of the documentation.
pub struct Page {
    pub title: String,
    /// The path of the page. Its link in the navigation bar is marked as current.
    pub path: &'static str,
    pub contents: Markup,
    pub body: Markup,
}

const PAGES: &[(&str, &str)] = &[("/docs", "Reference"), ("/docs/events", "Events"), ("/docs/errors", "Errors")];

pub fn page(document: Document<'_>, page: &Page) -> Markup {
    let info = document.at("/info");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) " · " (text(info, "title")) }
                link rel="stylesheet" href=(style_path());
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.bar {
                    a.brand href="/docs" { (text(info, "title")) }
                    span.version { (text(info, "version")) }
                    nav aria-label="Pages" {
                        @for (path, name) in PAGES {
                            a href=(path) aria-current=[(*path == page.path).then_some("page")] { (name) }
                        }
                        a href="/openapi.json" { "openapi.json" }
                    }
                }
                div.columns {
                    nav.contents aria-label="On this page" { (page.contents) }
                    main #content { (page.body) }
                }
            }
        }
    }
}
