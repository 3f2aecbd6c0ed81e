//! `postrider openapi`: the OpenAPI document of the built-in catalogue, as it is checked in.

use std::io::Write;

use crate::server;

/// Ends quietly when the reader of a pipe has seen enough.
pub fn run() -> anyhow::Result<()> {
    let document = server::openapi_of_built_in()?;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{document:#}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
