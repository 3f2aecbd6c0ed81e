//! Errors of the database, and what follows from each: run the transaction again, answer 503, or report a fault of
//! ours.

use tokio_postgres::error::SqlState;

use postrider_store::{StoreError, UnexpectedValue};

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    #[error("the database refused a statement or closed the connection")]
    Database(#[from] tokio_postgres::Error),
    #[error("no connection to the database")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Unexpected(#[from] UnexpectedValue),
    /// Another transaction has just written the same. Run again, this one will find it.
    #[error("another transaction came first")]
    Overtaken,
    /// Nothing was written, or it is unknown whether something was.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl PgError {
    /// Whether to run the whole transaction again: nothing of it stands, and it only lost against another one.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Overtaken => true,
            Self::Database(error) => error.code().is_some_and(|code| {
                [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION]
                    .contains(code)
            }),
            Self::Connection(_) | Self::Unexpected(_) | Self::Unavailable(_) => false,
        }
    }

    /// Whether any other transaction would fail now for the same reason.
    pub fn affects_all(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Unavailable(_) => true,
            Self::Database(error) => {
                let refuses = |code: &SqlState| {
                    *code == SqlState::READ_ONLY_SQL_TRANSACTION || ["53", "58"].contains(&&code.code()[..2])
                };
                self.lost_connection() || error.code().is_some_and(refuses)
            }
            Self::Unexpected(_) | Self::Overtaken => false,
        }
    }

    /// Whether the connection is lost, so that the result of a running commit is unknown.
    pub fn lost_connection(&self) -> bool {
        match self {
            Self::Database(error) => error.is_closed() || error.code().is_none_or(ends_connection),
            _ => false,
        }
    }
}

/// Whether the server ends the session with this code.
fn ends_connection(code: &SqlState) -> bool {
    let ends = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_SESSION_TIMEOUT,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    ends.contains(code) || code.code().starts_with("08")
}

/// The error for the caller of the store.
pub fn store_error(error: PgError) -> StoreError {
    let why = match &error {
        PgError::Unavailable(why) => return StoreError::Unavailable { why, source: None },
        PgError::Connection(_) => "the database cannot be reached",
        PgError::Overtaken => "the database is too busy",
        PgError::Unexpected(_) => return StoreError::Broken(Box::new(error)),
        PgError::Database(database) => match database.code() {
            None => "the connection to the database was lost",
            Some(code) => match temporary(code) {
                Some(why) => why,
                None => return StoreError::Broken(Box::new(error)),
            },
        },
    };
    StoreError::Unavailable { why, source: Some(Box::new(error)) }
}

pub const fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable { why, source: None }
}

pub fn broken(what: &'static str) -> StoreError {
    StoreError::Broken(what.into())
}

/// The reason, if the failure may pass.
fn temporary(code: &SqlState) -> Option<&'static str> {
    Some(match code {
        code if *code == SqlState::TOO_MANY_CONNECTIONS => "the database has too many clients",
        code if *code == SqlState::DISK_FULL => "the database's disk is full",
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => "the database is read-only",
        code if *code == SqlState::QUERY_CANCELED => "the query took too long",
        code if *code == SqlState::LOCK_NOT_AVAILABLE => "the database is locked",
        code if ends_connection(code) => "the connection to the database was lost",
        code => match &code.code()[..2] {
            "53" => "the database is short of a resource",
            "57" => "the database is stopping or starting",
            "40" => "the database is too busy",
            "58" => "the database's disk failed",
            _ => return None,
        },
    })
}
