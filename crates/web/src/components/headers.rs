//! Headers of a request or an answer, as they were sent.

use maud::{Markup, html};

pub fn table(caption: &str, headers: &[(String, String)]) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label=(caption) {
            table.stack.headers {
                caption { (caption) }
                thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } } }
                tbody {
                    @for (name, value) in headers {
                        tr { th scope="row" data-label="Name" { code { (name) } } td data-label="Value" { code { (value) } } }
                    }
                }
            }
        }
    }
}
