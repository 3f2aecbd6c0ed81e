//! Bodies of requests and answers, as text.
//!
//! JSON is indented as the tokens stand there: it is never parsed into numbers and maps, so numbers keep all digits and
//! members keep their order.

use maud::{Markup, html};
use serde_json::value::RawValue;

use super::code;
use crate::language::{say, say_text};

/// Deeper JSON, or JSON that would grow a lot, is shown as it is.
const DEPTH_MAX: usize = 32;
const INDENTED_BYTES_MAX: usize = 512 * 1024;

/// A body under a label. `whole_at` leads to the bytes as they are.
pub fn show(label: &str, bytes: &[u8], whole_at: &str) -> Markup {
    let text = String::from_utf8_lossy(bytes);
    let is_text = std::str::from_utf8(bytes).is_ok();
    let indented = indent(&text);
    html! {
        (code::block(label, indented.as_deref().unwrap_or(&text)))
        p.soft {
            @if !is_text { (say!("Some bytes are no UTF-8 and are shown as �.")) " " }
            @else if indented.is_some() { (say!("Indented for reading.")) " " }
            a href=(whole_at) download { (say!("The exact bytes")) }
            " (" (size(bytes.len())) ")"
        }
    }
}

/// A number of bytes as people read it.
pub fn size(bytes: usize) -> String {
    match bytes {
        1 => say!("1 byte").to_owned(),
        0..1_024 => say_text!("{} bytes", &bytes.to_string()),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// The same tokens on lines of their own. `None` when the text is no JSON object or array, or is better left as it is.
pub fn indent(text: &str) -> Option<String> {
    if !text.trim_start().starts_with(['{', '[']) || serde_json::from_str::<&RawValue>(text).is_err() {
        return None;
    }
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut characters = text.chars().filter(|c| !c.is_ascii_whitespace() || *c == ' ').peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(character) = characters.next() {
        if in_text {
            out.push(character);
            in_text = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            ' ' => {}
            '"' => {
                in_text = true;
                out.push(character);
            }
            '{' | '[' => {
                out.push(character);
                while characters.next_if_eq(&' ').is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                    continue;
                }
                depth += 1;
                if depth > DEPTH_MAX || out.len() > INDENTED_BYTES_MAX {
                    return None;
                }
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                if out.len() > INDENTED_BYTES_MAX {
                    return None;
                }
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_keeps_every_token() {
        let text = "{\"b\": 9007199254740993,\n \"a\":[1.0 , -0,{}, [ ]],\"\\\"{,\":\"x:  y\\\\\",\"b\":null}";
        let expected = "{\n  \"b\": 9007199254740993,\n  \"a\": [\n    1.0,\n    -0,\n    {},\n    []\n  ],\n  \
                        \"\\\"{,\": \"x:  y\\\\\",\n  \"b\": null\n}";
        assert_eq!(indent(text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_json_or_too_deep_stays_as_it_is() {
        let deep = format!("{}{}", "[1,".repeat(10_000), "]".repeat(10_000));
        let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let wide = format!("[{}0]", "1,".repeat(200_000));
        for text in ["", "plain", "{\"a\":", "<p>{}</p>", "\"text\"", "12", &deep, &nested, &wide] {
            assert_eq!(indent(text), None, "{}", &text[..text.len().min(20)]);
        }
    }
}
