//! A backup that a command asks for at the admin socket: its progress line by line, and its end when the command ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_service::Operator;
use postrider_store::backup::{BackupPlan, BackupStage, BackupWatch, Unwatched};

use super::admin::AdminResponse;

/// What a command asks for. Paths are absolute: the server has another working directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackUp {
    pub to: PathBuf,
    #[serde(default)]
    pub replace: bool,
    /// `None`: as fast as the disks are.
    pub bytes_per_second: Option<std::num::NonZeroU64>,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProgress {
    pub stage: BackupStage,
    pub bytes_copied: u64,
    pub bytes_total: u64,
}

/// The shortest time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

impl BackUp {
    /// # Errors
    /// When the path is relative.
    pub fn plan(self) -> Result<BackupPlan, String> {
        let Self { to, replace, bytes_per_second } = self;
        match to.is_absolute() {
            true => Ok(BackupPlan { to, replace, bytes_per_second }),
            false => Err(format!("{} is not an absolute path", to.display())),
        }
    }
}

/// Takes the backup to its end.
pub async fn execute(operator: &Operator, request: BackUp) -> Result<AdminResponse, String> {
    let plan = request.plan()?;
    taken(operator, plan, Arc::new(Unwatched)).await
}

async fn taken(operator: &Operator, plan: BackupPlan, watch: Arc<dyn BackupWatch>) -> Result<AdminResponse, String> {
    let to = plan.to.clone();
    match operator.back_up(plan, watch).await {
        Ok(manifest) => Ok(AdminResponse::BackedUp { manifest }),
        Err(error) => {
            tracing::warn!(to = %to.display(), error = %Chain(&error), "a backup failed");
            Err(refusal(&error, &to))
        }
    }
}

/// The text of the error. A server often may not write where its operator may.
fn refusal(error: &(dyn std::error::Error + 'static), to: &Path) -> String {
    let mut text = Chain(error).to_string();
    let causes = std::iter::successors(Some(error), |error| error.source());
    let is_denied = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| {
            use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
            matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
        })
    };
    if causes.into_iter().any(is_denied) {
        let folder = to.parent().unwrap_or(to).display();
        text.push_str(&format!(
            ". The running server writes the file: it must be allowed to write in {folder} (under systemd: ReadWritePaths=)"
        ));
    }
    text
}

/// Takes the backup and writes its progress to `write`. Cancels it when `read` ends, which is when the command does, or
/// at `stop`. Returns the last answer.
pub async fn converse(
    operator: &Operator,
    request: BackUp,
    mut read: impl AsyncBufRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    stop: &CancellationToken,
) -> AdminResponse {
    let plan = match request.plan() {
        Ok(plan) => plan,
        Err(message) => return AdminResponse::Refused { message },
    };
    let (progress, mut changes) = watch::channel(None);
    let cancel = stop.child_token();
    // A stop may drop this conversation before it sees that the backup has ended.
    let _cancelled_with_this = cancel.clone().drop_guard();
    let watch = Arc::new(Watched { progress, cancel: cancel.clone() });
    let mut backup = std::pin::pin!(taken(operator, plan, watch));
    let mut ended = std::pin::pin!(async {
        let mut byte = [0];
        // A command sends nothing more, so every outcome means that it is gone.
        let _ = read.read(&mut byte).await;
    });
    let mut has_ended = false;
    loop {
        tokio::select! {
            outcome = &mut backup => {
                return outcome.unwrap_or_else(|message| AdminResponse::Refused { message });
            }
            () = &mut ended, if !has_ended => {
                has_ended = true;
                cancel.cancel();
            }
            Ok(()) = changes.changed(), if !has_ended => {
                let Some(now) = *changes.borrow_and_update() else { continue };
                let line = line_of(&AdminResponse::BackupProgress(now));
                let written = tokio::time::timeout(limits::ADMIN_DEADLINE, write.write_all(&line)).await;
                if !matches!(written, Ok(Ok(()))) {
                    has_ended = true;
                    cancel.cancel();
                }
                tokio::time::sleep(PROGRESS_INTERVAL).await;
            }
        }
    }
}

/// An answer as it is sent.
pub fn line_of(response: &AdminResponse) -> Vec<u8> {
    let mut line = serde_json::to_vec(response).unwrap_or_default();
    line.push(b'\n');
    line
}

struct Watched {
    progress: watch::Sender<Option<BackupProgress>>,
    cancel: CancellationToken,
}

impl BackupWatch for Watched {
    fn progress(&self, stage: BackupStage, bytes_copied: u64, bytes_total: u64) {
        self.progress.send_replace(Some(BackupProgress { stage, bytes_copied, bytes_total }));
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
