//! Prints an error together with its causes.
//!
//! `Display` of an error shows its own layer only, so a log line with a bare error loses the reason.

use std::error::Error;
use std::fmt;

/// Displays an error and each of its sources on one line, separated by `: `.
#[derive(Clone, Copy)]
pub struct Chain<'e>(pub &'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store failed")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Inner;

    #[test]
    fn an_error_is_printed_with_all_its_causes() {
        assert_eq!(Chain(&Outer(Inner)).to_string(), "the store failed: the disk is full");
        assert_eq!(Chain(&Inner).to_string(), "the disk is full");
    }
}
