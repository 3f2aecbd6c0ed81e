//! `postrider listeners`: lists, shows and deletes listeners.

use clap::{Args, Subcommand};
use serde_json::Value;

use postrider_local::pages::List;

use super::super::input::confirm;
use super::super::table::{Cell, Column, Row};
use super::list::{LimitOption, print_object};
use super::listener_id;
use super::session::ApiOptions;
use super::show::{fields, text, time};

#[derive(Debug, Subcommand)]
pub enum ListenersCommand {
    /// List listeners, newest first.
    List(ListOptions),
    /// Show one listener.
    Get(ListenerOptions),
    /// Delete a listener with its queue.
    Delete(DeleteOptions),
}

#[derive(Debug, Args)]
pub struct ListOptions {
    #[command(flatten)]
    limit: LimitOption,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct ListenerOptions {
    /// Id of the listener (lst_…).
    #[arg(value_parser = listener_id)]
    id: String,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub struct DeleteOptions {
    /// Id of the listener (lst_…).
    #[arg(value_parser = listener_id)]
    id: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    api: ApiOptions,
}

const COLUMNS: [Column; 6] = [
    Column::id("id"),
    Column::fixed("kept"),
    Column::text("name"),
    Column::spare("last seen (UTC)"),
    Column::spare("project"),
    Column::spare("events"),
];

pub async fn run(command: ListenersCommand) -> anyhow::Result<()> {
    match command {
        ListenersCommand::List(ListOptions { limit, api }) => {
            limit.print(&mut api.session()?, &List::new("/v1/listeners"), "listener", &COLUMNS, row).await
        }
        ListenersCommand::Get(options) => get(options).await,
        ListenersCommand::Delete(DeleteOptions { id, yes, api }) => {
            confirm(&format!("Delete {id} with its queue?"), yes)?;
            let mut session = api.session()?;
            session.delete(&format!("/v1/listeners/{id}")).await?;
            session.look.note(format_args!("{id} is deleted"));
            Ok(())
        }
    }
}

fn kept(listener: &Value) -> &'static str {
    if listener["durable"] == true { "yes" } else { "a day" }
}

fn row(listener: &Value) -> Row {
    vec![
        Cell::plain(text(listener, "id")),
        Cell::plain(kept(listener).to_owned()),
        Cell::plain(text(listener, "name")),
        Cell::plain(time(listener, "lastSeenAt")),
        Cell::plain(text(listener, "projectId")),
        Cell::plain(text(listener, "events")),
    ]
}

async fn get(options: ListenerOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let raw = session.get(&format!("/v1/listeners/{}", options.id)).await?;
    if session.look.is_json {
        return print_object("listener", &raw);
    }
    let mut listener: Value = serde_json::from_str(raw.get())?;
    listener["kept"] = kept(&listener).into();
    listener["lastSeen"] = time(&listener, "lastSeenAt").into();
    listener["created"] = time(&listener, "createdAt").into();
    let members = [
        ("id", "id"),
        ("name", "name"),
        ("events", "events"),
        ("project", "projectId"),
        ("mode", "mode"),
        ("active", "isActive"),
        ("kept", "kept"),
        ("ordering", "ordering"),
        ("secret ends in", "secretLast4"),
        ("last seen (UTC)", "lastSeen"),
        ("created (UTC)", "created"),
    ];
    fields(session.look, &listener, &members)
}
