//! `postrider completions` and `postrider man`: what a shell and `man` know of the commands.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::output;

#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// The shell to complete in: bash, zsh, fish or powershell.
    #[arg(value_parser = shell)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManOptions {
    /// Write a page for each command into this directory [default: print the first page]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "powershell"];

fn shell(text: &str) -> Result<Shell, String> {
    let known = SHELLS.contains(&text).then(|| text.parse().ok()).flatten();
    known.ok_or_else(|| format!("expected one of {}", SHELLS.join(", ")))
}

pub fn completions(options: &CompletionsOptions, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "postrider", &mut script);
    Ok(output::bytes(&script)?)
}

pub fn man(options: &ManOptions, command: Command) -> anyhow::Result<()> {
    let Some(directory) = &options.dir else {
        return Ok(output::bytes(&page(command)?)?);
    };
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {}", directory.display()))?;
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("cannot write the pages into {}", directory.display()))
}

fn page(command: Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}
