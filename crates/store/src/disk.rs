//! What the store takes on the disk, and the state that follows from it (`domain/disk.rs`).
//!
//! The engine measures and decides, the store refuses: so no caller can forget to ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use postrider_domain::disk::DiskState;

use crate::StoreError;
use crate::error::DISK_FULL;

/// What the store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes that hold something: the database without its free pages, and its log.
    pub used: u64,
    /// Bytes of all files of the store, with the reserve.
    pub held: u64,
    /// Bytes of the reserve that are held.
    pub reserve: u64,
    /// Bytes that the file system has left. `None` where the files are another machine's.
    pub free: Option<u64>,
    /// The size of the file system.
    pub size: Option<u64>,
    /// A row that is removed makes room. On PostgreSQL only a day that is dropped does.
    pub rows_make_room: bool,
}

/// The state of the disk, shared by all parts of a store.
#[derive(Clone, Debug, Default)]
pub struct DiskGate(Arc<AtomicU8>);

impl DiskGate {
    pub fn set(&self, state: DiskState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    pub fn state(&self) -> DiskState {
        DiskState::from_code(self.0.load(Ordering::Relaxed))
    }

    pub fn is_stopped(&self) -> bool {
        self.state() == DiskState::Stopped
    }

    /// Whether work that adds to the log may go on.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn check_growth(&self) -> Result<(), StoreError> {
        self.check_below(DiskState::Full)
    }

    /// Whether the registry may be written.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn check_write(&self) -> Result<(), StoreError> {
        self.check_below(DiskState::Stopped)
    }

    fn check_below(&self, state: DiskState) -> Result<(), StoreError> {
        if self.state() < state { Ok(()) } else { Err(StoreError::Unavailable { why: DISK_FULL, source: None }) }
    }
}
