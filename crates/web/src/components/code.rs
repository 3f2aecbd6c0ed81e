//! Ids, URLs, payloads and commands: what people copy. Nothing is cut.

use maud::{Markup, html};

use crate::language::say;

/// A text with a button that copies it. Without script the button is not there; the text can be selected whole.
pub fn copyable(text: &str) -> Markup {
    html! {
        span.copyable { code.copy-text { (text) } button.copy.needs-script type="button" data-copy=(text) hidden { (say!("Copy")) } }
    }
}

/// Several lines that are copied as one: a command, a body. It scrolls by itself and can be reached by keyboard.
pub fn block(label: &str, text: &str) -> Markup {
    html! {
        div.code-block {
            button.copy.needs-script type="button" data-copy=(text) hidden { (say!("Copy")) }
            pre tabindex="0" role="region" aria-label=(label) { code { (text) } }
        }
    }
}

/// A text of the catalogue, whose `code` stands between backticks.
pub fn prose(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    html! {
        @for (index, part) in parts.iter().enumerate() {
            // A backtick without its other one is a backtick.
            @if index % 2 == 0 { (part) } @else if index + 1 < parts.len() { code { (part) } } @else { "`" (part) }
        }
    }
}

/// The call of the API that shows the same as the page.
pub fn api_call(method: &str, path: &str) -> Markup {
    api_calls(&[(method, path)])
}

/// As [`api_call`], for a page that shows what several calls do.
pub fn api_calls(calls: &[(&str, &str)]) -> Markup {
    html! {
        footer.api-call {
            "The same over the API: "
            @for (index, (method, path)) in calls.iter().enumerate() {
                @if index > 0 { ", " }
                code { (method) " " (path) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code() {
        let html = |text| prose(text).into_string();
        assert_eq!(html("`result` names it, <b>"), "<code>result</code> names it, &lt;b&gt;");
        assert_eq!(html("a `b` c`d"), "a <code>b</code> c`d");
        assert_eq!(html("plain"), "plain");
    }
}
