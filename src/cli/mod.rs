//! The command line: one file per command. Reads flags and the environment, prints text or JSON, sets exit codes.

use clap::{Parser, Subcommand};

mod admin;
mod audit;
mod backup;
#[cfg(feature = "bench")]
mod bench;
mod config;
mod dashboard;
mod dev;
mod doctor;
mod erase;
mod health;
mod keys;
mod openapi;
mod options;
mod output;
mod portal_settings;
mod restore;
mod rotate_master;
mod serve;
mod setting_value;
mod settings;
mod stop_signal;
mod store;
mod table;
mod workspaces;

/// A self-hosted webhook sender: signs, delivers, retries and logs.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try everything: start a server and a receiver, and deliver one event of each type.
    Dev(dev::DevOptions),
    /// Measure the throughput of this machine.
    #[cfg(feature = "bench")]
    Bench(bench::BenchCommand),
    /// Run the server.
    Serve(serve::ServeOptions),
    /// Check the settings without starting a server.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show for each address of a URL why it is or is not reachable.
    Doctor(doctor::DoctorOptions),
    /// Check whether the server is ready, for containers: the exit code says so.
    Health(health::HealthOptions),
    /// Print the OpenAPI document of the API with the built-in event catalogue.
    Openapi,
    /// Create, list and revoke API keys, and change the master key, also while the server runs.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Sign in to the dashboard without an API key, also while the server runs.
    #[command(subcommand)]
    Dashboard(dashboard::DashboardCommand),
    /// List the workspaces.
    #[command(subcommand)]
    Workspaces(workspaces::WorkspacesCommand),
    /// Erase the content of an event or of a customer's events, also while the server runs.
    #[command(subcommand)]
    Erase(erase::EraseCommand),
    /// Show or export the audit log.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Copy the SQLite store into a file, also while the server runs.
    Backup(backup::BackupOptions),
    /// Put a backup into a new data directory, check one, or mark a store as a restored copy.
    Restore(restore::RestoreOptions),
    /// Copy the whole store between SQLite and PostgreSQL.
    #[command(subcommand)]
    Store(store::StoreCommand),
}

/// Runs the command of this process's arguments.
///
/// # Errors
/// When the command fails.
pub fn run() -> anyhow::Result<()> {
    crate::open_files::raise_limit();
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
            Command::Health(options) => health::run(options).await,
            Command::Openapi => openapi::run(),
            Command::Keys(command) => keys::run(command).await,
            Command::Dashboard(command) => dashboard::run(command).await,
            Command::Workspaces(command) => workspaces::run(command).await,
            Command::Erase(command) => erase::run(command).await,
            Command::Audit(command) => audit::run(command).await,
            Command::Backup(options) => backup::run(options).await,
            Command::Restore(options) => restore::run(options).await,
            Command::Store(command) => store::run(command).await,
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
