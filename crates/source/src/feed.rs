//! What a kind of source must offer: to connect, to give messages in batches, and to forget them on request.

use async_trait::async_trait;

use postrider_domain::source::SourceMessage;

/// Why a source does not run. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the workspace {0:?} does not exist")]
    NoWorkspace(String),
    /// Something that the operator must change.
    #[error("{0}")]
    Setup(String),
    #[error("cannot {what}")]
    Broken {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("no connection within {seconds} s")]
    ConnectTimeout { seconds: u64 },
    /// The store cannot take messages now.
    #[error("cannot accept messages")]
    Accept(#[source] postrider_service::ServiceError),
}

impl SourceError {
    pub fn broken<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Broken { what, source: error.into() }
    }
}

/// How much one pull may take.
#[derive(Clone, Copy, Debug)]
pub struct PullLimit {
    pub messages: usize,
    /// Bytes of bodies. One message may exceed it.
    pub bytes: usize,
}

/// What a feed does with a message that it gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is on disk here. The source may forget it.
    Done,
    /// It must come again later.
    Release,
}

/// Makes feeds.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    async fn connect(&self) -> Result<Box<dyn Feed>, SourceError>;
}

/// A connection to a source. At most one batch is pulled and not settled.
#[async_trait]
pub trait Feed: Send {
    /// The next messages, in their order. Waits up to about a second for the first one; none is no error. A feed whose
    /// pull was cancelled is not used again.
    async fn pull(&mut self, limit: PullLimit) -> Result<Vec<SourceMessage>, SourceError>;

    /// Settles every message of the last pull, in its order. What the source has confirmed when this returns does not
    /// come again; after an error any of them may.
    async fn settle(&mut self, settlements: &[Settlement]) -> Result<(), SourceError>;

    /// Called every few seconds between pull and settlement: tells the source that the batch is still worked on, and
    /// notices when the connection is lost.
    async fn keep(&mut self) -> Result<(), SourceError>;

    /// Whether a batch can be kept while the store takes nothing. Otherwise it is released and pulled again.
    fn keeps_over_failures(&self) -> bool;
}

/// The secret in a file, without the end of its line.
///
/// # Errors
/// When the file cannot be read.
#[cfg(feature = "brokers")]
pub(crate) fn secret_in(file: &std::path::Path) -> Result<String, SourceError> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|error| SourceError::Setup(format!("cannot read {}: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
