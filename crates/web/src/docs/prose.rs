//! Descriptions as HTML. They are CommonMark, of which this file supports headings, paragraphs, lists, code and links.
//! Other markup in the descriptions of a catalogue is shown as text.

use maud::{Markup, html};

/// Renders text of one or more blocks.
pub fn blocks(text: &str) -> Markup {
    html! {
        @for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
            @if let Some(title) = block.strip_prefix("## ") {
                h2 id=(anchor(title)) { (title) }
            } @else if block.lines().all(|line| line.starts_with("- ")) {
                ul { @for line in block.lines() { li { (inline(&line[2..])) } } }
            } @else {
                p { (inline(block)) }
            }
        }
    }
}

/// The titles of the headings in a text.
pub fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("## "))
}

/// The anchor of a heading: `rate-limits` for `Rate limits`.
pub fn anchor(title: &str) -> String {
    title.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// Renders text with `code` and [links](…).
pub fn inline(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (links(part)) }
        }
    }
}

fn links(text: &str) -> Markup {
    let link = text.split_once('[').and_then(|(before, rest)| {
        let (label, rest) = rest.split_once("](")?;
        let (target, after) = rest.split_once(')')?;
        // Only web addresses become links: a catalogue must not be able to inject a script.
        let is_web = target.starts_with("https://") || target.starts_with('/');
        (is_web && !label.contains('[')).then_some((before, label, target, after))
    });
    match link {
        Some((before, label, target, after)) => html! { (before) a href=(target) { (label) } (links(after)) },
        None => html! { (text) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_headings_paragraphs_and_lists() {
        let html = blocks("## Rate limits\n\nUse `a` & b.\n\n- one\n- two").into_string();
        assert_eq!(
            html,
            "<h2 id=\"rate-limits\">Rate limits</h2><p>Use <code>a</code> &amp; b.</p><ul><li>one</li><li>two</li></ul>"
        );
    }

    #[test]
    fn only_web_addresses_become_links() {
        assert_eq!(inline("[a](https://b.c/) d").into_string(), "<a href=\"https://b.c/\">a</a> d");
        assert_eq!(inline("[a](javascript:x)").into_string(), "[a](javascript:x)");
        assert_eq!(inline("[A-Za-z] (x)").into_string(), "[A-Za-z] (x)");
    }
}
