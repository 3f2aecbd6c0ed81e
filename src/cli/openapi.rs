//! `postrider openapi`: prints the OpenAPI document of the built-in catalogue, which is also in the repository.

use std::io::Write;

use crate::server;

/// A closed pipe is not an error.
pub fn run() -> anyhow::Result<()> {
    let document = server::openapi_of_built_in()?;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{document:#}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
