//! Why a run failed.

use std::fmt::Display;
use std::io;

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("the benchmark failed")]
    Io(#[from] io::Error),
    #[error("cannot set up the server for the benchmark: {0}")]
    Setup(String),
}

impl BenchError {
    pub(super) fn setup(cause: impl Display) -> Self {
        Self::Setup(cause.to_string())
    }
}
