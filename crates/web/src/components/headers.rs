//! Headers of a request or an answer, as they were sent.

use maud::{Markup, html};

use crate::language::say;

pub fn table(caption: &str, headers: &[(String, String)]) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label=(caption) {
            table.stack.headers {
                caption { (caption) }
                thead { tr { th scope="col" { (say!("Name")) } th scope="col" { (say!("Value")) } } }
                tbody {
                    @for (name, value) in headers {
                        tr { th scope="row" data-label=(say!("Name")) { code { (name) } } td data-label=(say!("Value")) { code { (value) } } }
                    }
                }
            }
        }
    }
}
