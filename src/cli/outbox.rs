//! `postrider outbox`: what a producer's database needs.

use clap::{Args, Subcommand};

use postrider_source::OutboxTable;

use super::output;

#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// Print the SQL that creates the table.
    Sql(SqlOptions),
}

#[derive(Debug, Args)]
pub struct SqlOptions {
    /// Name of the table, with a schema if you like.
    #[arg(long, value_name = "TABLE", value_parser = OutboxTable::parse, default_value = OutboxTable::DEFAULT)]
    table: OutboxTable,
}

pub fn run(command: OutboxCommand) -> anyhow::Result<()> {
    let OutboxCommand::Sql(SqlOptions { table }) = command;
    for line in table.ddl().lines() {
        output::line(line)?;
    }
    Ok(())
}
