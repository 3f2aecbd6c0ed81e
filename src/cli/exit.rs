//! Exit codes, the same for every command that talks to a server: 0 done, 1 failed, 2 usage, 3 key or scope, 4 not
//! found, 5 server unreachable, 6 timed out. A signal ends a command as it ends any program: 130 and 143 in a shell.

use postrider_local::client::{ApiFailure, StatusCode};

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The command has printed what failed.
    #[error("failed")]
    Shown,
    /// A signal ended the command. The code is what a shell shows for it.
    #[error("ended by a signal")]
    Signalled(u8),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NoAccess(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    TimedOut(String),
    /// The server refused a request. The text has its details.
    #[error("{text}")]
    Refused { code: u8, text: String },
}

/// A command's error with its exit code.
#[derive(Debug)]
pub struct Failed {
    pub code: u8,
    pub error: anyhow::Error,
}

pub const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const NO_ACCESS: u8 = 3;
const NOT_FOUND: u8 = 4;
const UNREACHABLE: u8 = 5;
const TIMED_OUT: u8 = 6;

impl Failed {
    /// The error of a command that talks to a server.
    pub fn of(error: anyhow::Error) -> Self {
        let code = error.chain().find_map(code_of).unwrap_or(FAILURE);
        Self { code, error }
    }

    /// The error of a command that works on the server's own data.
    pub fn of_local(error: anyhow::Error) -> Self {
        let code = if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Fault::Usage(_)))) {
            USAGE
        } else {
            FAILURE
        };
        Self { code, error }
    }

    /// Whether the command has printed what failed.
    pub fn is_shown(&self) -> bool {
        matches!(self.error.downcast_ref::<Fault>(), Some(Fault::Shown | Fault::Signalled(_)))
    }
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(fault) = cause.downcast_ref::<Fault>() {
        return Some(match fault {
            Fault::Shown => FAILURE,
            Fault::Signalled(code) => *code,
            Fault::Usage(_) => USAGE,
            Fault::NoAccess(_) => NO_ACCESS,
            Fault::NotFound(_) => NOT_FOUND,
            Fault::TimedOut(_) => TIMED_OUT,
            Fault::Refused { code, .. } => *code,
        });
    }
    cause.downcast_ref::<ApiFailure>().map(code_of_failure)
}

pub fn code_of_failure(failure: &ApiFailure) -> u8 {
    match failure {
        ApiFailure::Refused { status, .. } => match *status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => NO_ACCESS,
            StatusCode::NOT_FOUND => NOT_FOUND,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => UNREACHABLE,
            _ => FAILURE,
        },
        ApiFailure::Connect { .. } | ApiFailure::Tls { .. } | ApiFailure::Broken(_) | ApiFailure::Timeout => {
            UNREACHABLE
        }
        ApiFailure::Unreadable { status, .. } if status.is_server_error() => UNREACHABLE,
        ApiFailure::Unreadable { .. } | ApiFailure::Request(_) => FAILURE,
    }
}
