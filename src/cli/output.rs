//! What commands print. Text from others is printed so that it cannot steer the terminal ([`Visible`]).
//!
//! A command never panics because its output cannot be written, which `println!` does. A closed pipe is not an error:
//! `postrider keys list | head -1` ends well.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

use postrider_domain::visible::{Visible, VisibleLines};

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

/// One write for the whole text, because standard output may be shared.
fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
