//! What runs the store's work: threads of its own, or the runtime of its caller.

use async_trait::async_trait;

use std::fmt;
use std::sync::Arc;

use postrider_store::StoreError;

/// What runs the writer, the flushes, the checkpoints and the reads.
#[derive(Clone, Default)]
pub enum Drive {
    /// Threads, so that nobody waits for the disk. For servers and commands.
    #[default]
    Threads,
    /// Tasks of the current runtime, one step at a time. On a runtime with one thread, the same calls are then carried
    /// out in the same order each time. For simulations, which also decide what a flush does.
    Tasks(Arc<dyn FlushLog>),
}

/// Flushes the write-ahead log in place of `fdatasync`.
#[async_trait]
pub trait FlushLog: Send + Sync + 'static {
    /// Completes when everything that is in the log now is on disk.
    ///
    /// # Errors
    /// When it may not be.
    async fn flush(&self) -> Result<(), std::io::Error>;
}

impl Drive {
    /// Runs work that reads files.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
        match self {
            Self::Threads => {
                tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Broken(Box::new(error)))
            }
            Self::Tasks(_) => Ok(work()),
        }
    }
}

impl fmt::Debug for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Tasks(_) => "Tasks",
        })
    }
}
