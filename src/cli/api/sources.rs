//! `postrider sources`: the sources of events of a server's settings.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use postrider_domain::source::SourceName;
use postrider_local::pages::List;

use super::super::paint::tone_of;
use super::super::table::{Cell, Column, Row};
use super::list::{LimitOption, print_object};
use super::session::{ApiOptions, Session};
use super::show::{fields, text, time};

#[derive(Debug, Subcommand)]
pub enum SourcesCommand {
    /// List the sources of the workspace.
    List(ListOptions),
    /// Show how one source is doing.
    Get(OneOptions),
    /// Take no more messages from a source, on any node.
    Pause(OneOptions),
    /// Take messages from a paused source again.
    Resume(OneOptions),
}

#[derive(Debug, Args)]
pub struct ListOptions {
    #[command(flatten)]
    limit: LimitOption,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct OneOptions {
    /// Name of the source in the settings.
    #[arg(value_parser = SourceName::parse)]
    name: SourceName,
    #[command(flatten)]
    api: ApiOptions,
}

const COLUMNS: [Column; 6] = [
    Column::id("name"),
    Column::fixed("state"),
    Column::fixed("kind"),
    Column::fixed("accepted"),
    Column::fixed("parked now"),
    Column::text("error"),
];

pub async fn run(command: SourcesCommand) -> anyhow::Result<()> {
    match command {
        SourcesCommand::List(ListOptions { limit, api }) => {
            limit.print(&mut api.session()?, &List::new("/v1/sources"), "source", &COLUMNS, row).await
        }
        SourcesCommand::Get(OneOptions { name, api }) => {
            let mut session = api.session()?;
            let source = session.get(&format!("/v1/sources/{name}")).await?;
            show(&session, source.get())
        }
        SourcesCommand::Pause(options) => set(options, "pause").await,
        SourcesCommand::Resume(options) => set(options, "resume").await,
    }
}

async fn set(OneOptions { name, api }: OneOptions, verb: &str) -> anyhow::Result<()> {
    let mut session = api.session()?;
    let source = session.post(&format!("/v1/sources/{name}/{verb}"), &json!({})).await?;
    show(&session, source.get())
}

fn row(source: &Value) -> Row {
    let state = text(source, "state");
    vec![
        Cell::plain(text(source, "name")),
        Cell::toned(tone_of(&state), state),
        Cell::plain(text(source, "kind")),
        Cell::plain(text(source, "accepted")),
        Cell::plain(text(source, "parkedMessages")),
        Cell::plain(text(source, "error")),
    ]
}

fn show(session: &Session, raw: &str) -> anyhow::Result<()> {
    let mut source: Value = serde_json::from_str(raw)?;
    if session.look.is_json {
        return print_object("source", &serde_json::value::to_raw_value(&source)?);
    }
    source["since"] = time(&source, "since").into();
    source["lastMessageAt"] = time(&source, "lastMessageAt").into();
    let members = [
        ("name", "name"),
        ("kind", "kind"),
        ("mode", "mode"),
        ("state", "state"),
        ("error", "error"),
        ("since", "since"),
        ("last message", "lastMessageAt"),
        ("accepted", "accepted"),
        ("repeated", "repeated"),
        ("parked", "parked"),
        ("parked now", "parkedMessages"),
        ("parked at most", "parkedMax"),
    ];
    fields(session.look, &source, &members)
}
