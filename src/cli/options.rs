//! Reads the settings from flags, environment variables and the settings file, by the table in [`SETTINGS`].
//!
//! Precedence: flag, then environment, then file, then default. To add a setting, add its field to `config.rs` and its
//! row to [`SETTINGS`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::de::{DeTable, DeValue};

use crate::config::Settings;
use postrider_source::SourceSettings;
use postrider_web::ShownSetting;

use super::settings::{SETTINGS, Setting};
use super::source_settings::{self, SourceTable};
use super::trace_settings;

/// The source of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    /// The line in the settings file.
    File {
        line: usize,
    },
    Environment,
    /// A variable of another name that stands for the setting.
    OtherVariable(&'static str),
    Flag,
}

/// The effective settings and their sources.
#[derive(Debug)]
pub struct Effective {
    pub settings: Settings,
    pub file: Option<PathBuf>,
    sources: BTreeMap<&'static str, Source>,
}

impl Effective {
    pub fn source(&self, setting: &Setting) -> Source {
        self.sources.get(setting.name).copied().unwrap_or(Source::Default)
    }

    /// The source in words: a file with its line, a variable, a flag.
    pub fn source_text(&self, setting: &Setting) -> String {
        let file = self.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        match self.source(setting) {
            Source::Default => "default".to_owned(),
            Source::File { line } => format!("file {file}:{line}"),
            Source::Environment => format!("environment {}", setting.env),
            Source::OtherVariable(name) => format!("environment {name}"),
            Source::Flag => format!("flag --{}", setting.flag),
        }
    }

    /// The setting as the dashboard shows it.
    fn shown(&self, setting: &Setting) -> ShownSetting {
        ShownSetting {
            name: setting.name,
            help: setting.help,
            value: setting.shown(&self.settings),
            source: self.source_text(setting),
            default: setting.shown(&Settings::default()),
            is_of_server: setting.is_of_data || setting.is_of_egress || setting.is_secret,
        }
    }
}

/// The values of flags and environment variables.
#[derive(Debug)]
struct GivenValues {
    file: Option<PathBuf>,
    values: Vec<(&'static Setting, Source, String)>,
    /// The variables of OpenTelemetry count, too.
    is_of_server: bool,
}

/// The options of commands that need only the store.
#[derive(Debug)]
pub struct DataOptions(GivenValues);

/// The options of a command that needs the store and links to the pages of its server.
#[derive(Debug)]
pub struct LoginOptions(GivenValues);

/// The options of commands that run a server.
#[derive(Debug)]
pub struct ServerOptions(GivenValues);

impl DataOptions {
    /// # Errors
    /// When the settings file cannot be read, or contains an unknown or invalid setting.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        Ok(self.0.effective()?.settings)
    }
}

impl LoginOptions {
    /// # Errors
    /// When the settings file cannot be read, or contains an unknown or invalid setting.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        Ok(self.0.effective()?.settings)
    }
}

impl ServerOptions {
    /// # Errors
    /// When the settings file cannot be read, or contains an unknown or invalid setting.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let effective = self.effective()?;
        let shown = SETTINGS.iter().map(|setting| effective.shown(setting)).collect();
        Ok(Settings { shown, ..effective.settings })
    }

    /// # Errors
    /// As [`Self::settings`].
    pub fn effective(&self) -> anyhow::Result<Effective> {
        self.0.effective()
    }
}

const CONFIG: &str = "config";

fn augment(command: Command, wanted: fn(&Setting) -> bool) -> Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .env("POSTRIDER_CONFIG")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("TOML file of settings. Environment variables and flags take precedence");
    let defaults = Settings::default();
    let rows = SETTINGS.iter().filter(|setting| wanted(setting)).map(|setting| {
        Arg::new(setting.name)
            .long(setting.flag)
            .env(setting.env)
            .value_name(setting.value_name)
            .action(if setting.is_list { ArgAction::Append } else { ArgAction::Set })
            .hide_env_values(setting.is_secret)
            // clap repeats a value that it refuses, so a secret is parsed later.
            .value_parser(|text: &str| match setting.is_secret {
                true => Ok(text.to_owned()),
                false => setting.check(text).map(|()| text.to_owned()),
            })
            .help(setting.help_with_default(&defaults))
    });
    command.arg(config).args(rows)
}

impl GivenValues {
    fn from_matches(matches: &ArgMatches, wanted: fn(&Setting) -> bool) -> Self {
        let values = SETTINGS.iter().filter(|setting| wanted(setting)).filter_map(|setting| {
            let source = match matches.value_source(setting.name)? {
                ValueSource::EnvVariable => Source::Environment,
                _ => Source::Flag,
            };
            let values: Vec<&str> = matches.get_many::<String>(setting.name)?.map(String::as_str).collect();
            Some((setting, source, values.join(",")))
        });
        Self {
            file: matches.get_one::<PathBuf>(CONFIG).cloned(),
            values: values.collect(),
            is_of_server: SETTINGS.iter().all(wanted),
        }
    }

    fn effective(&self) -> anyhow::Result<Effective> {
        let mut effective =
            Effective { settings: Settings::default(), file: self.file.clone(), sources: BTreeMap::new() };
        if let Some(path) = &self.file {
            read_file(path, &mut effective)?;
        }
        if self.is_of_server {
            let read = trace_settings::read_variables(&mut effective.settings).map_err(anyhow::Error::msg)?;
            let sources = read.into_iter().map(|(setting, variable)| (setting, Source::OtherVariable(variable)));
            effective.sources.extend(sources);
        }
        for (setting, source, text) in &self.values {
            // clap has parsed the same text with the same function, except secrets.
            (setting.read)(&mut effective.settings, text).map_err(anyhow::Error::msg).context(setting.name)?;
            effective.sources.insert(setting.name, *source);
        }
        Ok(effective)
    }
}

fn read_file(path: &Path, effective: &mut Effective) -> anyhow::Result<()> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the settings file {shown}"))?;
    let table = DeTable::parse(&text).with_context(|| format!("the settings file {shown} is not TOML"))?;
    let line_at = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    for (name, offset, value) in entries(table.get_ref(), "") {
        let line = line_at(offset);
        if name == SOURCE {
            effective.settings.sources = sources_of(value).map_err(|fault| anyhow::anyhow!("{shown}: {fault}"))?;
            continue;
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            bail!("{shown}:{line}: {name:?} is not a setting. The settings are {}", names());
        };
        let read = match text_of(value) {
            Some(text) => (setting.read)(&mut effective.settings, &text),
            None => Err("must be a string, a number, a boolean or an array of them".to_owned()),
        };
        read.map_err(|fault| anyhow::anyhow!("{shown}:{line}: {name}: {fault}"))?;
        effective.sources.insert(setting.name, Source::File { line });
    }
    Ok(())
}

/// The tables `[[source]]`, which are no settings of one value.
const SOURCE: &str = "source";

fn sources_of(value: &DeValue<'_>) -> Result<Vec<SourceSettings>, String> {
    let DeValue::Array(tables) = value else { return Err("a source is a table: [[source]]".to_owned()) };
    let mut sources = Vec::new();
    for table in tables {
        let DeValue::Table(members) = table.get_ref() else {
            return Err("a source is a table: [[source]]".to_owned());
        };
        let members = members.iter().map(|(name, value)| {
            let text =
                text_of(value.get_ref()).ok_or_else(|| format!("source: {}: has another type", name.get_ref()))?;
            Ok((name.get_ref().to_string(), text))
        });
        sources.push(SourceTable(members.collect::<Result<_, String>>()?).read()?);
    }
    source_settings::check(&sources)?;
    Ok(sources)
}

/// The settings of a file with their places. `frame_ancestors` in the table `[portal]` means
/// `portal_frame_ancestors`.
fn entries<'t, 'd>(table: &'t DeTable<'d>, prefix: &str) -> Vec<(String, usize, &'t DeValue<'d>)> {
    let mut found = Vec::new();
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if is_group(&name) => found.extend(entries(inner, &format!("{name}_"))),
            value => found.push((name, key.span().start, value)),
        }
    }
    found
}

/// Whether names of settings begin with the name of the table.
fn is_group(table: &str) -> bool {
    let rest = |name: &'static str| name.strip_prefix(table).and_then(|rest| rest.strip_prefix('_'));
    SETTINGS.iter().any(|setting| rest(setting.name).is_some())
}

/// Converts a value to the text of a flag. Arrays become comma-separated lists.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| text_of(item.get_ref())).collect();
            items.map(|items| items.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn names() -> String {
    SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ")
}

/// Implements clap's traits for a set of options by the table.
macro_rules! options_by_table {
    ($options:ident, $wanted:expr) => {
        impl FromArgMatches for $options {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(GivenValues::from_matches(matches, $wanted)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = GivenValues::from_matches(matches, $wanted);
                Ok(())
            }
        }

        impl Args for $options {
            fn augment_args(command: Command) -> Command {
                augment(command, $wanted)
            }

            fn augment_args_for_update(command: Command) -> Command {
                augment(command, $wanted)
            }
        }
    };
}

options_by_table!(DataOptions, |setting| setting.is_of_data);
options_by_table!(LoginOptions, |setting| setting.is_of_data || ["listen", "public_url"].contains(&setting.name));
options_by_table!(ServerOptions, |_| true);
