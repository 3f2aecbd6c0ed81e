//! The command line: the real binary in its own processes.

mod access;
mod bench;
mod config;
mod dashboard;
mod database;
mod doctor;
mod front_door;
mod health;
mod keys;
mod master_key;
mod output;
mod serve;
mod store;

use std::path::PathBuf;

use tempfile::TempDir;

/// A data directory that does not exist yet, and the temporary directory that contains it.
fn new_data_dir() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let data_dir = parent.path().join("data");
    (parent, data_dir)
}
