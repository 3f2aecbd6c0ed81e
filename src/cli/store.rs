//! `postrider store`: copies or compacts a whole store while its servers are stopped.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::SystemClock;
use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::time::Clock as _;
use postrider_store::copy::{self, Counted, NulText, Side, Tables, Watch};
use postrider_store_postgres::PostgresSettings;
use postrider_store_postgres::copy::PostgresTables;
use postrider_store_sqlite::compact::Compacted;
use postrider_store_sqlite::copy::SqliteTables;

use super::options::DataOptions;
use super::output;
use super::table::print_rows;

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy everything into an empty store: endpoints, secrets, log, queue. Stop the servers of both stores first. If a
    /// copy is interrupted, run the same command again to continue it.
    Copy(CopyOptions),
    /// Rewrite a SQLite store without its free pages, so that its file is as small as its content. Stop the server
    /// first.
    Compact(CompactOptions),
}

#[derive(Debug, Args)]
pub struct CompactOptions {
    #[command(flatten)]
    data: DataOptions,
}

#[derive(Args)]
pub struct CopyOptions {
    /// Store to copy: a data directory, or postgres://user@host:5432/database.
    #[arg(long, value_name = "DIR|URL")]
    from: String,
    /// Target of the copy: a data directory or a database without a store.
    #[arg(long, value_name = "DIR|URL")]
    to: String,
    /// File with the password of the database. Overrides a password in the URL.
    #[arg(long, env = "POSTRIDER_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust for the database in addition to the public ones.
    #[arg(long, env = "POSTRIDER_DATABASE_CA_FILE", value_name = "FILE")]
    database_ca_file: Option<PathBuf>,
    /// Replace U+0000 in texts by U+FFFD where the target cannot hold it, as PostgreSQL cannot. Each one is named.
    #[arg(long)]
    replace_nul: bool,
}

/// Prints no fields, because the URLs may contain a password.
impl std::fmt::Debug for CopyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyOptions").finish_non_exhaustive()
    }
}

pub async fn run(command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Copy(options) => copy(options).await,
        StoreCommand::Compact(options) => compact(options).await,
    }
}

/// The location of a store.
enum StoreLocation {
    Directory(PathBuf),
    Database(DatabaseUrl),
}

impl StoreLocation {
    fn parse(text: &str) -> anyhow::Result<Self> {
        match text.contains("://") {
            true => Ok(Self::Database(DatabaseUrl::parse(text)?)),
            false => Ok(Self::Directory(Path::new(text).to_owned())),
        }
    }

    async fn open(&self, side: Side, options: &CopyOptions) -> anyhow::Result<Box<dyn Tables>> {
        Ok(match self {
            Self::Directory(directory) => Box::new(SqliteTables::open(directory, side)?),
            Self::Database(url) => {
                let settings = PostgresSettings {
                    password_file: options.database_password_file.clone(),
                    ca_file: options.database_ca_file.clone(),
                    ..PostgresSettings::new(url.reveal())
                };
                Box::new(PostgresTables::open(&settings, side).await?)
            }
        })
    }
}

async fn compact(options: CompactOptions) -> anyhow::Result<()> {
    let settings = options.data.settings()?;
    if settings.database.url.is_some() {
        bail!("the store is a PostgreSQL database, which vacuums by itself: nothing to do");
    }
    let directory = settings.data_dir.clone();
    let compacted = tokio::task::spawn_blocking(move || postrider_store_sqlite::compact::compact(&directory)).await?;
    let Compacted { bytes_before, bytes_after } =
        compacted.with_context(|| format!("cannot compact the store in {}", settings.data_dir.display()))?;
    Ok(output::line(format_args!("compacted from {bytes_before} to {bytes_after} bytes"))?)
}

async fn copy(options: CopyOptions) -> anyhow::Result<()> {
    let from = StoreLocation::parse(&options.from).context("--from")?;
    let to = StoreLocation::parse(&options.to).context("--to")?;
    let nul = if options.replace_nul { NulText::Replace } else { NulText::Refuse };
    let source = from.open(Side::Source, &options).await?;
    let target = to.open(Side::Target, &options).await?;
    let counted =
        copy::copy(source.as_ref(), target.as_ref(), SystemClock.now(), nul, &mut CopyProgress::new()).await?;
    print_rows(&["table", "source", "target", "verdict"], counted.iter().map(row))?;
    if counted.iter().any(|counted| counted.source != counted.target) {
        bail!(
            "the row counts of source and target differ, so the copy is unfinished: empty the target and start again"
        );
    }
    output::line("")?;
    output::line(
        "The copy is complete. Start the servers on the target with the master key of the source. Start none on the source.",
    )?;
    Ok(())
}

fn row(counted: &Counted) -> [String; 4] {
    let verdict = if counted.source == counted.target { "equal" } else { "DIFFERENT" };
    [counted.table.to_owned(), counted.source.to_string(), counted.target.to_string(), verdict.to_owned()]
}

/// Shows the progress of a copy: a bar on a terminal, otherwise a line per table.
struct CopyProgress {
    is_terminal: bool,
    bar: ProgressBar,
    table: &'static str,
    written: u64,
    began: Instant,
}

impl CopyProgress {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, bar: ProgressBar::hidden(), table: "", written: 0, began: Instant::now() }
    }
}

impl Watch for CopyProgress {
    fn table_begins(&mut self, table: &'static str, rows: u64, done: u64) {
        (self.table, self.written, self.began) = (table, 0, Instant::now());
        if done > 0 {
            output::note(format_args!("{table}: {done} of {rows} rows were copied before; continuing"));
        }
        if self.is_terminal {
            let form = "{msg:17} {wide_bar} {human_pos}/{human_len} {per_sec:>14} {eta:>4}";
            let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = ProgressBar::new(rows).with_style(style).with_message(table).with_position(done);
        }
    }

    fn rows_written(&mut self, rows: u64) {
        self.written += rows;
        self.bar.inc(rows);
    }

    fn text_replaced(&mut self, key: &str, column: &str) {
        output::note(format_args!("{}: U+0000 was replaced in the column {column} of the row {key}", self.table));
    }

    fn table_ends(&mut self) {
        self.bar.finish_and_clear();
        let seconds = self.began.elapsed().as_secs_f64();
        output::note(format_args!("{}: {} rows in {seconds:.1} s", self.table, self.written));
    }
}
