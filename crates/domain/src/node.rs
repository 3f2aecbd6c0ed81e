//! A process that serves one store, as the operator sees it.

use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Different for each process that runs. A number is given again after a long time.
    pub number: u16,
    /// `None` for a node of a version that does not report it.
    pub version: Option<String>,
    /// `None` as for `version`.
    pub started_at: Option<Timestamp>,
    pub last_seen_at: Timestamp,
    /// It was seen just now and has not stopped.
    pub is_running: bool,
}
