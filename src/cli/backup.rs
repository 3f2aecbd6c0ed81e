//! `postrider backup`: copies the SQLite store into a file. The running server does it, or this command if none runs.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::SystemClock;
use crate::server::admin::{self, AdminError, AdminRequest, AdminResponse};
use crate::server::backup::{BackUp, BackupProgress};
use postrider_domain::limits;
use postrider_store::backup::file::manifest_path;
use postrider_store::backup::{BackupError, BackupStage, BackupWatch, Manifest};
use postrider_store_sqlite::backup::back_up_stopped;

use super::admin::unexpected;
use super::options::DataOptions;
use super::output;

#[derive(Debug, Args)]
pub struct BackupOptions {
    /// File to write. A manifest with its checksum is written beside it. The running server writes both.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Copy at most this many megabytes a second, so that deliveries keep their share of the disk. 0 means no limit.
    #[arg(long, value_name = "MB/s", default_value_t = default_rate(), value_parser = clap::value_parser!(u32).range(..=i64::from(limits::BACKUP_RATE_MAX_MB)))]
    rate: u32,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
}

const MEGABYTE: u64 = 1_000_000;

fn default_rate() -> u32 {
    u32::try_from(limits::BACKUP_BYTES_PER_SECOND / MEGABYTE).unwrap_or(u32::MAX)
}

pub async fn run(options: BackupOptions) -> anyhow::Result<()> {
    let settings = options.data.settings()?;
    if settings.database.url.is_some() {
        return Err(BackupError::NotHere.into());
    }
    let to = std::path::absolute(&options.to).with_context(|| format!("--to {}", options.to.display()))?;
    let bytes_per_second = NonZeroU64::new(u64::from(options.rate) * MEGABYTE);
    let request = BackUp { to: to.clone(), replace: options.force, bytes_per_second };
    let screen = Arc::new(Screen::default());
    let asked = AdminRequest::Backup(request.clone());
    let shown = Arc::clone(&screen);
    let answer = admin::ask_watched(&settings.admin_socket_path(), &asked, move |now| shown.show(now)).await;
    let taken = match answer {
        Ok(AdminResponse::BackedUp { manifest }) => Ok(manifest),
        Ok(other) => unexpected(other),
        Err(AdminError::NoServer) => {
            let (watch, plan): (Arc<dyn BackupWatch>, _) =
                (screen.clone(), request.plan().map_err(anyhow::Error::msg)?);
            let directory = settings.data_dir.clone();
            let work = move || back_up_stopped(&directory, &plan, &watch, &SystemClock);
            tokio::task::spawn_blocking(work).await?.map_err(Into::into)
        }
        Err(error) => Err(error).context(
            "the running server did not answer to the end; if it has stopped, take the backup again, which removes what \
             is left of this one",
        ),
    };
    screen.clear();
    print(&taken?, &to, options.json)
}

fn print(manifest: &Manifest, to: &std::path::Path, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return Ok(output::json(serde_json::to_string(manifest)?)?);
    }
    output::line(format_args!("file      {}", to.display()))?;
    output::line(format_args!("manifest  {}", manifest_path(to).display()))?;
    output::line(format_args!("as of     {}", manifest.taken_at))?;
    output::line(format_args!("bytes     {}", manifest.bytes))?;
    output::line(format_args!("sha256    {}", manifest.sha256))?;
    Ok(output::line("The master key is not in it: keep a copy of the key in another place.")?)
}

/// How far the backup is: a bar on a terminal, otherwise nothing.
#[derive(Default)]
struct Screen(Mutex<Option<ProgressBar>>);

impl Screen {
    fn show(&self, now: BackupProgress) {
        if !output::is_on_terminal() {
            return;
        }
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| {
            let form = "{msg:9} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec:>14}";
            let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(now.bytes_total).with_style(style)
        });
        bar.set_message(match now.stage {
            BackupStage::Copying => "copying",
            BackupStage::Checking => "checking",
            BackupStage::Sealing => "sealing",
        });
        bar.set_position(now.bytes_copied);
    }

    fn clear(&self) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

impl BackupWatch for Screen {
    fn progress(&self, stage: BackupStage, bytes_copied: u64, bytes_total: u64) {
        self.show(BackupProgress { stage, bytes_copied, bytes_total });
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}
