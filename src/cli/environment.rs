//! Environment variables that are no setting of the server and must not be flags: a key, the look of a terminal.

use std::path::PathBuf;

/// The value of a variable, unless it is empty or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "clap reads a variable only for a flag, and a key must not be one")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `$XDG_CONFIG_HOME/postrider`, by default `~/.config/postrider`.
pub fn config_directory() -> Option<PathBuf> {
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
    base.map(|base| base.join("postrider"))
}
