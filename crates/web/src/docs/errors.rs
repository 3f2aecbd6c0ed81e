//! `/docs/errors`: what each error code means and what to do about it. `docs_url` in an error links here.

use maud::{Markup, html};

use super::document::{Document, members, text};
use super::layout::{self, Page};
use super::{badge, prose, schema};

pub fn page(document: Document<'_>) -> Markup {
    let codes = || members(document.at("/x-error-codes"));
    let page = Page {
        title: "Errors".to_owned(),
        path: "/docs/errors",
        contents: html! { ul { @for (code, _) in codes() { li { a href={ "#" (code) } { code { (code) } } } } } },
        body: html! {
            h1 { "Errors" }
            p.lead { "Every error has the same form. Programs rely on its code; messages are for people and may \
                      change." }
            @for (code, row) in codes() {
                article.error id=(code) {
                    h2 { a.anchor href={ "#" (code) } { (code) } " " (badge::status(&row["status"].to_string())) }
                    h3 { "What it means" }
                    (prose::blocks(text(row, "meaning")))
                    h3 { "What to do" }
                    (prose::blocks(text(row, "remedy")))
                    (schema::example("Example", &row["example"]))
                }
            }
        },
    };
    layout::page(document, &page)
}
