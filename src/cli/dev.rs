//! `postrider dev`: everything on one desk, to see it work.

use clap::Args;

use super::options::ServerOptions;

#[derive(Debug, Args)]
pub struct DevOptions {
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(_options: DevOptions) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
