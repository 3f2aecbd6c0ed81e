//! The command line: a file per command. Reads flags and environment, prints for people or as JSON, sets exit codes.

use clap::{Parser, Subcommand};

mod admin;
mod audit;
#[cfg(feature = "bench")]
mod bench;
mod config;
mod dev;
mod doctor;
mod keys;
mod open_files;
mod openapi;
mod options;
mod serve;
mod settings;
mod stop_signal;
mod store;
mod table;
mod workspaces;

/// The webhook sender that a product team runs itself.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it all at once: a server, a receiver, and one signed delivery of each event.
    Dev(dev::DevOptions),
    /// Measure what this machine can carry.
    #[cfg(feature = "bench")]
    Bench(bench::BenchCommand),
    /// Run the server.
    Serve(serve::ServeOptions),
    /// Look at the settings without a server.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Tell, address by address, why a URL is or is not reachable.
    Doctor(doctor::DoctorOptions),
    /// Print the OpenAPI document of the API with the built-in event catalogue.
    Openapi,
    /// Make, list and revoke API keys, also while the server runs.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// List the workspaces.
    #[command(subcommand)]
    Workspaces(workspaces::WorkspacesCommand),
    /// Show who wrote what.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Move the whole store between SQLite and PostgreSQL.
    #[command(subcommand)]
    Store(store::StoreCommand),
}

/// Runs the command that the process was started with.
///
/// # Errors
/// Whatever kept the command from its end.
pub fn run() -> anyhow::Result<()> {
    open_files::allow_many();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Dev(options) => dev::run(options).await,
            #[cfg(feature = "bench")]
            Command::Bench(command) => bench::run(command).await,
            Command::Serve(options) => serve::run(options).await,
            Command::Config(command) => config::run(command),
            Command::Doctor(options) => doctor::run(options).await,
            Command::Openapi => openapi::run(),
            Command::Keys(command) => keys::run(command).await,
            Command::Workspaces(command) => workspaces::run(command).await,
            Command::Audit(command) => audit::run(command).await,
            Command::Store(command) => store::run(command).await,
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
