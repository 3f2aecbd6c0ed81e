//! Errors of a store, grouped by what a caller can do about them.

/// Why a store is unavailable when there is no room for the write.
pub const DISK_FULL: &str = "the disk is full";

/// A store's failure. The cause is in `source`, for logs only.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written. The same call may succeed later.
    #[error("the store cannot take this now: {why}")]
    Unavailable {
        why: &'static str,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A defect of this program or damaged data. A retry will not help.
    #[error("the store failed")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A row holds a value that no version of this program writes.
#[derive(Debug, thiserror::Error)]
#[error("the column {0} holds an unexpected value")]
pub struct UnexpectedValue(pub &'static str);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use {path}")]
    Directory {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is in use by another postrider process")]
    InUse { path: String },
    #[error("the database was made by a newer version of postrider, or its migrations were altered")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the store is an unfinished copy: run the copy again to its end, or remove what is there")]
    UnfinishedCopy,
    #[error("the database cannot be opened")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}
