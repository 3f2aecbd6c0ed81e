//! What commands print. Text from others is printed so that it cannot steer the terminal ([`Visible`]).
//!
//! A command never panics because its output cannot be written, which `println!` does. A closed pipe is not an error:
//! `postrider keys list | head -1` ends well.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

use postrider_domain::visible::{Visible, VisibleLines, is_unprintable};

/// A command's output was not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct OutputError(#[source] io::Error);

/// Prints one line.
///
/// # Errors
/// When standard output cannot be written and is not a closed pipe.
pub fn line(text: impl Display) -> Result<(), OutputError> {
    match to_stdout(&format!("{}\n", Visible(text))) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(OutputError),
    }
}

/// Prints JSON as it is.
///
/// # Errors
/// As [`line`].
pub fn json(text: impl Display) -> Result<(), OutputError> {
    match to_stdout(&format!("{text}\n")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(OutputError),
    }
}

/// Prints one JSON value on one line. White space between tokens is dropped; tokens stay as they are, except that what
/// steers a terminal or the direction of text is written as its JSON escape, which means the same.
///
/// # Errors
/// As [`line`].
pub fn json_line(json: &str) -> Result<(), OutputError> {
    self::json(one_line(json))
}

/// As [`json_line`], for a stream of lines: whether somebody may still read.
///
/// # Errors
/// When standard output cannot be written and is not a closed pipe.
pub fn streamed_json_line(json: &str) -> Result<bool, OutputError> {
    is_open(to_stdout(&format!("{}\n", one_line(json))))
}

/// Prints bytes that are written already.
///
/// # Errors
/// As [`line`].
pub fn bytes(written: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    is_open(out.write_all(written).and_then(|()| out.flush())).map(drop)
}

/// Prints a line whose parts are made visible already ([`Look::painted`](super::paint::Look::painted)).
///
/// # Errors
/// As [`line`].
pub fn painted_line(text: impl Display) -> Result<(), OutputError> {
    streamed_painted_line(text).map(drop)
}

/// As [`painted_line`], for a stream of lines: whether somebody may still read.
///
/// # Errors
/// When standard output cannot be written and is not a closed pipe.
pub fn streamed_painted_line(text: impl Display) -> Result<bool, OutputError> {
    is_open(to_stdout(&format!("{text}\n")))
}

fn is_open(written: io::Result<()>) -> Result<bool, OutputError> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(OutputError(error)),
    }
}

/// Prints text that exists nowhere else, such as a new key. A closed pipe is an error, too.
///
/// # Errors
/// When standard output cannot be written.
pub fn only_copy(text: impl Display) -> Result<(), OutputError> {
    to_stdout(&format!("{}\n", VisibleLines(text))).map_err(OutputError)
}

/// Whether somebody watches standard error.
pub fn is_on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Says on standard error how a command gets on. Nobody has to read it.
pub fn note(text: impl Display) {
    // A command does its work also when nobody hears of it.
    drop(writeln!(io::stderr(), "{}", Visible(text)));
}

/// Drops white space between the tokens of a JSON text, and escapes what steers a terminal inside its strings.
pub fn one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    let (mut is_text, mut is_escaped) = (false, false);
    for character in json.chars() {
        match character {
            ' ' | '\t' | '\n' | '\r' if !is_text => continue,
            // Marks of direction are text elsewhere. A line of JSON has no need of them.
            steering if is_unprintable(steering) || matches!(steering, '\u{200e}' | '\u{200f}') => {
                line.push_str(&format!("\\u{:04x}", u32::from(steering)));
            }
            other => line.push(other),
        }
        is_text = if character == '"' && !is_escaped { !is_text } else { is_text };
        is_escaped = character == '\\' && !is_escaped;
    }
    line
}

/// One write for the whole text, because standard output may be shared.
fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn json_for_a_terminal_has_no_control_character() {
        let name = "a\u{1b}[31m\u{9b}31m\u{7f}\u{202e}\u{2066}\u{2028}é\"";
        let text = one_line(&json!({ "name": name }).to_string());
        assert!(text.chars().all(|c| !c.is_control() && !"\u{202e}\u{2066}\u{2028}".contains(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ "name": name }));
    }

    #[test]
    fn a_json_text_keeps_its_tokens_on_one_line() {
        let text = "{\r\n  \"a b\" : [ 1.0, 12345678901234567890123 ],\t\"c\": \"\\\" \\\\\" , \"d\" : \" \"}\n";
        assert_eq!(one_line(text), "{\"a b\":[1.0,12345678901234567890123],\"c\":\"\\\" \\\\\",\"d\":\" \"}");
    }
}
