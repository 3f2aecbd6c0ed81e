//! The error of a field's parser. It has a file of its own because the parsers of several nouns return it.

/// A value violates a rule of its field. The text completes "`field` …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidField(pub &'static str);
