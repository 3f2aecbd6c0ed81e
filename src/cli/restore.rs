//! `postrider restore`: puts a backup into a new data directory, checks one, or marks a store as a restored copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};

use crate::clock::SystemClock;
use crate::config::Settings;
use crate::server::{Components, OpenedFor, named_master_key};
use postrider_domain::error_chain::Chain;
use postrider_domain::time::Clock as _;
use postrider_store_sqlite::restore::{self, CheckedBackup};

use super::options::DataOptions;
use super::output;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("action").required(true))]
pub struct RestoreOptions {
    /// Check this backup and put it into --data-dir, which must be empty or new.
    #[arg(long, value_name = "FILE", group = "action")]
    from: Option<PathBuf>,
    /// Only check this backup: checksum, pages, rows, indexes, schema, and the master key if one is named.
    #[arg(long, value_name = "FILE", group = "action")]
    check: Option<PathBuf>,
    /// Mark the store of --data-dir or --database-url as a restored copy, for one that other tools have restored.
    #[arg(long, group = "action")]
    mark: bool,
    #[command(flatten)]
    data: DataOptions,
}

pub async fn run(options: RestoreOptions) -> anyhow::Result<()> {
    let settings = options.data.settings()?;
    match (options.from, options.check) {
        (Some(file), _) => from(file, &settings).await,
        (None, Some(file)) => check(file, &settings).await,
        (None, None) => mark(&settings).await,
    }
}

async fn from(file: PathBuf, settings: &Settings) -> anyhow::Result<()> {
    if settings.database.url.is_some() {
        bail!(
            "--from restores into a data directory; restore a PostgreSQL database with its own tools, then use --mark"
        );
    }
    let (backup, directory) = (file.clone(), settings.data_dir.clone());
    let checked = tokio::task::spawn_blocking(move || restore::restore(&backup, &directory)).await?;
    let checked = checked.with_context(|| format!("cannot restore {}", file.display()))?;
    print(&file, &checked)?;
    let directory = settings.data_dir.display();
    output::line(format_args!("restored  {directory}"))?;
    output::line("")?;
    let needs_key = settings.master_key_file.is_none() && settings.master_key_command.is_none();
    if needs_key {
        output::line(format_args!(
            "1. Put the master key of that time into {directory}/master.key (mode 0600), or name it with --master-key-file."
        ))?;
    }
    let number = if needs_key { 2 } else { 1 };
    output::line(format_args!(
        "{number}. Start the server. It answers reads and sends nothing. Start it once with --i-am-the-only-one when the \
         original is out of use for ever."
    ))?;
    Ok(())
}

async fn check(file: PathBuf, settings: &Settings) -> anyhow::Result<()> {
    let backup = file.clone();
    let checked = tokio::task::spawn_blocking(move || restore::check(&backup)).await?;
    let checked = checked.with_context(|| format!("{} cannot be restored", file.display()))?;
    print(&file, &checked)?;
    match named_master_key(settings).await? {
        Some(key) => {
            checked.facts.key_facts.check(key).context("the backup and the master key do not belong together")?;
            output::line("key       fits")?;
        }
        None => output::line("key       not checked: name it with --master-key-file or --master-key-command")?,
    }
    Ok(output::line("good")?)
}

fn print(file: &Path, checked: &CheckedBackup) -> anyhow::Result<()> {
    output::line(format_args!("file      {}", file.display()))?;
    output::line(format_args!("bytes     {}", checked.bytes))?;
    output::line(match &checked.manifest {
        Some(manifest) => format!("sha256    {}, as its manifest says", manifest.sha256),
        None => format!("sha256    {}, not compared: there is no manifest beside the file", checked.sha256),
    })?;
    let taken_at = checked.manifest.as_ref().map(|manifest| manifest.taken_at.clone());
    let taken_at = taken_at.or_else(|| checked.facts.last_backup.map(|last| last.at.to_string()));
    output::line(format_args!("as of     {}", taken_at.as_deref().unwrap_or("unknown")))?;
    Ok(output::line(format_args!("schema    version {}", checked.facts.schema_version))?)
}

async fn mark(settings: &Settings) -> anyhow::Result<()> {
    let components = Components::open(settings, Arc::new(SystemClock), OpenedFor::Command)
        .await
        .context("cannot open the store; stop its server first")?;
    let marked = components.operator.mark_restored_copy(SystemClock.now()).await;
    components.close().await;
    if let Err(error) = marked {
        bail!("cannot mark the store: {}", Chain(&error));
    }
    Ok(output::line(
        "The store is marked as a restored copy. Servers that are started from now on send nothing until one is started \
         with --i-am-the-only-one.",
    )?)
}
