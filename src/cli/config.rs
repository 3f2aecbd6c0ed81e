//! `postrider config`: shows the effective settings without starting a server.

use clap::{Args, Subcommand};

use crate::server::{StartError, check_retention, read_events_file};
use postrider_domain::event_type::Catalogue;
use postrider_source::SourceSettings;

use super::options::{Effective, ServerOptions};
use super::output;
use super::settings::{SETTINGS, Setting};
use super::source_settings;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print each effective setting and its source: default, file, environment or flag.
    Check(CheckOptions),
}

#[derive(Debug, Args)]
pub struct CheckOptions {
    #[command(flatten)]
    server: ServerOptions,
}

pub fn run(command: ConfigCommand) -> anyhow::Result<()> {
    let ConfigCommand::Check(options) = command;
    let effective = options.server.effective()?;
    if effective.settings.master_key_file.is_some() && effective.settings.master_key_command.is_some() {
        return Err(StartError::TwoMasterKeys.into());
    }
    check_retention(&effective.settings)?;
    Catalogue::parse(&read_events_file(&effective.settings)?)?;
    let file = effective.file.as_ref().map(|path| format!("file {}", path.display())).unwrap_or_default();
    let source = |source: &SourceSettings| {
        [format!("source {}", source.terms.name), source_settings::shown(source), file.clone()]
    };
    let sources = effective.settings.sources.iter().map(source);
    let rows: Vec<[String; 3]> = SETTINGS.iter().map(|setting| row(&effective, setting)).chain(sources).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (names, values) = (width(0), width(1));
    for [name, value, source] in &rows {
        output::line(format_args!("{name:names$}  {value:values$}  {source}"))?;
    }
    Ok(())
}

fn row(effective: &Effective, setting: &Setting) -> [String; 3] {
    [setting.name.to_owned(), setting.shown(&effective.settings), effective.source_text(setting)]
}
