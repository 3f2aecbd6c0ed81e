//! The command line: the real binary in its own processes.

mod access;
mod api;
mod backup;
mod bench;
mod config;
mod dashboard;
mod database;
mod doctor;
mod doctor_checks;
mod erase;
mod front_door;
mod health;
mod help;
mod keys;
mod log;
mod master_key;
mod output;
mod restore;
mod serve;
mod store;
mod tail;
mod verify;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs the binary. Returns standard output on success and standard error on failure.
fn run(data_dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .env_clear()
        .env("POSTRIDER_DATA_DIR", data_dir)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
}

/// A data directory that does not exist yet, and the temporary directory that contains it.
fn new_data_dir() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let data_dir = parent.path().join("data");
    (parent, data_dir)
}
