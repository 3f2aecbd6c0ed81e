//! Text from others on a terminal, in a log line or on a page: what would steer the display is shown as an escape.
//!
//! JSON is never changed by this: a program reads it, and its encoder escapes what it must.

use std::fmt::{self, Write as _};

/// Displays a text on one line, with each character of [`is_unprintable`] as an escape: `\n`, `\u{1b}`, `\u{202e}`.
#[derive(Clone, Copy, Debug)]
pub struct Visible<T>(pub T);

/// As [`Visible`], but a line break stays one: for messages that have several lines.
#[derive(Clone, Copy, Debug)]
pub struct VisibleLines<T>(pub T);

/// Whether a character is invisible and steers a terminal or the direction of text: control characters, line and
/// paragraph separators, bidirectional embeddings, overrides and isolates. Joiners and direction marks are text: names
/// in Persian or Hindi, and many emoji, are written with them.
pub const fn is_unprintable(character: char) -> bool {
    matches!(character, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
}

impl<T: fmt::Display> fmt::Display for Visible<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping { out: f, keeps_line_breaks: false }, "{}", self.0)
    }
}

impl<T: fmt::Display> fmt::Display for VisibleLines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping { out: f, keeps_line_breaks: true }, "{}", self.0)
    }
}

/// Escapes what is written through it, without a copy of the text.
struct Escaping<'f, 'b> {
    out: &'f mut fmt::Formatter<'b>,
    keeps_line_breaks: bool,
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c| is_unprintable(c) && !(self.keeps_line_breaks && c == '\n')) {
            let (before, from) = rest.split_at(at);
            self.out.write_str(before)?;
            let mut characters = from.chars();
            if let Some(found) = characters.next() {
                write!(self.out, "{}", found.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.out.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_the_direction_is_escaped() {
        let text = "a\u{1b}[31mb\u{9b}c\u{7f}\u{0}\r\n\td\u{202e}e\u{2066}f\u{2069}\u{2028}\u{85}";
        assert_eq!(
            Visible(text).to_string(),
            r"a\u{1b}[31mb\u{9b}c\u{7f}\u{0}\r\n\td\u{202e}e\u{2066}f\u{2069}\u{2028}\u{85}"
        );
        assert_eq!(VisibleLines("a\nb\u{1b}\r").to_string(), "a\nb\\u{1b}\\r");
    }

    #[test]
    fn text_of_any_script_stays_as_it_is() {
        for text in ["", "Añb \\ \"c\"", "می‌خواهم", "👩‍👩‍👧", "א\u{200f}ב", "क्‍ष"] {
            assert_eq!((Visible(text).to_string(), VisibleLines(text).to_string()), (text.to_owned(), text.to_owned()));
        }
    }
}
