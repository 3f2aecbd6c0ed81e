//! The command line: one file per command. Reads flags and the environment, prints text or JSON, sets exit codes.

use clap::{CommandFactory as _, Parser, Subcommand};

mod admin;
mod api;
mod audit;
mod backup;
#[cfg(feature = "bench")]
mod bench;
mod config;
mod dashboard;
mod dev;
mod doctor;
mod environment;
mod erase;
mod exit;
mod health;
mod input;
mod instant;
mod keys;
mod openapi;
mod options;
mod outbox;
mod output;
mod paint;
mod portal_settings;
mod restore;
mod rotate_master;
mod serve;
mod setting_value;
mod settings;
mod shell;
mod source_settings;
mod stop_signal;
mod store;
mod table;
mod trace_settings;
mod verify;
mod workspaces;

pub use exit::Failed;

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
    /// List and show events.
    #[command(subcommand)]
    Events(api::events::EventsCommand),
    /// List, show, retry and skip deliveries.
    #[command(subcommand)]
    Deliveries(api::deliveries::DeliveriesCommand),
    /// List, show, make, change and test endpoints.
    #[command(subcommand)]
    Endpoints(api::endpoints::EndpointsCommand),
    /// List, show and delete listeners.
    #[command(subcommand)]
    Listeners(api::listeners::ListenersCommand),
    /// Bring events to a server on this machine, without a public address.
    Listen(api::listen::ListenOptions),
    /// Send deliveries again: those of an endpoint, or all that pass a filter.
    Replay(api::replay::ReplayOptions),
    /// List, show and stop replays.
    #[command(subcommand)]
    Replays(api::replay::ReplaysCommand),
    /// Publish an event: the catalogue's example, changed as you like.
    Trigger(api::trigger::TriggerOptions),
    /// Print deliveries as they end.
    Tail(api::tail::TailOptions),
    /// Make links to the portal.
    #[command(subcommand)]
    Portal(api::portal::PortalCommand),
    /// List, show, pause and resume the sources of events of the settings.
    #[command(subcommand)]
    Sources(api::sources::SourcesCommand),
    /// List, show, retry and discard messages of sources that could not become events.
    #[command(subcommand)]
    Parked(api::parked::ParkedCommand),
    /// Print the table from which a source of the kind outbox takes events.
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Say whether a captured webhook verifies, and if not, why.
    Verify(verify::VerifyOptions),
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
    /// Print completions for a shell.
    Completions(shell::CompletionsOptions),
    /// Print the manual, or write a page for each command.
    Man(shell::ManOptions),
}

/// The commands with their options, as clap has them.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Whether an argument of a command is a setting, which flags, variables and the settings file share.
pub fn is_setting(argument: &str) -> bool {
    settings::SETTINGS.iter().any(|setting| setting.name == argument)
}

/// Runs the command of this process's arguments.
///
/// # Errors
/// When the command fails.
pub fn run() -> Result<(), Failed> {
    crate::open_files::raise_limit();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::of_local(error.into()))?;
    let outcome = runtime.block_on(execute(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

async fn execute(command: Command) -> Result<(), Failed> {
    let outcome = match command {
        Command::Dev(options) => dev::run(options).await,
        #[cfg(feature = "bench")]
        Command::Bench(command) => bench::run(command).await,
        Command::Serve(options) => serve::run(options).await,
        Command::Config(command) => config::run(command),
        Command::Doctor(options) => doctor::run(options).await,
        Command::Health(options) => health::run(options).await,
        Command::Openapi => openapi::run(),
        Command::Outbox(command) => outbox::run(command),
        Command::Keys(command) => keys::run(command).await,
        Command::Dashboard(command) => dashboard::run(command).await,
        Command::Workspaces(command) => workspaces::run(command).await,
        Command::Erase(command) => erase::run(command).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Backup(options) => backup::run(options).await,
        Command::Restore(options) => restore::run(options).await,
        Command::Store(command) => store::run(command).await,
        Command::Completions(options) => shell::completions(&options, self::command()),
        Command::Man(options) => shell::man(&options, self::command()),
        of_api => return execute_api(of_api).await.map_err(Failed::of),
    };
    outcome.map_err(Failed::of_local)
}

/// The commands whose exit codes say what went wrong.
async fn execute_api(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Events(command) => api::events::run(command).await,
        Command::Deliveries(command) => api::deliveries::run(command).await,
        Command::Endpoints(command) => api::endpoints::run(command).await,
        Command::Listeners(command) => api::listeners::run(command).await,
        Command::Listen(options) => api::listen::run(options).await,
        Command::Replay(options) => api::replay::run(options).await,
        Command::Replays(command) => api::replay::run_jobs(command).await,
        Command::Trigger(options) => api::trigger::run(options).await,
        Command::Tail(options) => api::tail::run(options).await,
        Command::Portal(command) => api::portal::run(command).await,
        Command::Sources(command) => api::sources::run(command).await,
        Command::Parked(command) => api::parked::run(command).await,
        Command::Verify(options) => verify::run(options),
        _ => unreachable!("the other commands are executed above"),
    }
}
