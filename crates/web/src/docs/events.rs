//! `/docs/events`: the catalogue. Each name has the schema of its `data` and an example of a delivery.

use maud::{Markup, html};
use serde_json::Value;

use super::document::{Document, members, text};
use super::layout::{self, Page};
use super::{prose, schema};

pub fn page(document: Document<'_>) -> Markup {
    let events = || members(document.at("/webhooks"));
    let page = Page {
        title: "Events".to_owned(),
        path: "/docs/events",
        contents: html! { ul { @for (name, _) in events() { li { a href={ "#" (name) } { code { (name) } } } } } },
        body: html! {
            h1 { "Events" }
            p.lead { "What endpoints can subscribe to. The list is closed: a new name is a change of the contract." }
            @for (name, item) in events() { (event(document, name, &item["post"])) }
        },
    };
    layout::page(document, &page)
}

fn event(document: Document<'_>, name: &str, operation: &Value) -> Markup {
    let media = &operation["requestBody"]["content"]["application/json"];
    let envelope = document.resolve(&media["schema"]);
    let data = document.resolve(&envelope["properties"]["data"]);
    html! {
        article.event id=(name) {
            h2 { a.anchor href={ "#" (name) } { (name) } }
            (prose::blocks(text(operation, "description")))
            h3 { code { "data" } }
            (schema::table(document, data))
            (schema::example("What arrives", &media["examples"]["default"]["value"]))
            (schema::example("JSON Schema of data", data))
        }
    }
}
