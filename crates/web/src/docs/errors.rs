//! `/docs/errors`: what each code means and what to do about it. `docs_url` in an error leads here.

use maud::{Markup, html};

use super::layout::{self, Page};
use super::{Document, members, prose, schema, text};

pub fn page(document: Document<'_>) -> Markup {
    let codes = || members(document.at("/x-error-codes"));
    let page = Page {
        title: "Errors".to_owned(),
        path: "/docs/errors",
        contents: html! { ul { @for (code, _) in codes() { li { a href={ "#" (code) } { code { (code) } } } } } },
        body: html! {
            h1 { "Errors" }
            p.lead { "Every error has the same form. Programs rely on its code; messages are for people and may change." }
            @for (code, row) in codes() {
                article.error id=(code) {
                    h2 {
                        a.anchor href={ "#" (code) } { (code) } " "
                        span.status data-class=(row["status"].to_string().chars().next().unwrap_or('5')) { (row["status"]) }
                    }
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
