//! `postrider openapi`: prints the OpenAPI document of the built-in catalogue, which is also in the repository.

use crate::server;

use super::output;

pub fn run() -> anyhow::Result<()> {
    let document = server::openapi_of_built_in()?;
    Ok(output::json(format_args!("{document:#}"))?)
}
