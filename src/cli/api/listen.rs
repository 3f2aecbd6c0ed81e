//! `postrider listen`: brings events to a server on this machine, without a public address.
//!
//! It makes a listener on the server, or takes one that is kept, consumes it until it is stopped, and removes it again.
//! The queue is the server's, so what comes while nobody listens waits there.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use postrider_crypto::MacKey;
use postrider_domain::limits;
use postrider_domain::secret::WebhookSecret;
use postrider_domain::time::{Clock as _, Timestamp};
use postrider_local::forward::ForwardTarget;
use postrider_local::listen::{ListenEnd, ListenFault, ListenParts, Listening};
use postrider_local::pages::List;

use super::super::exit::Fault;
use super::super::input;
use super::super::instant::{duration, instant};
use super::super::output;
use super::list::write_private;
use super::listen_screen::ListenScreen;
use super::session::{ApiOptions, Session, explained};
use super::show::text;
use crate::clock::SystemClock;

#[derive(Debug, Args)]
pub struct ListenOptions {
    /// Where deliveries go: a port of this machine, or a URL.
    #[arg(long, value_name = "PORT|URL")]
    forward: String,
    /// Only events with this name. Several: by commas, or repeat the flag. [default: all]
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
    events: Vec<String>,
    /// Only events of this project.
    #[arg(long = "project", alias = "project-id", value_name = "PROJECT")]
    project: Option<String>,
    /// Name of the listener. That of a kept listener resumes it. [default: listen on HOST]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Of a kept listener: also repeat what it got since: 10m (ago), or 2026-05-15T08:21:00Z.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<Timestamp>,
    /// Header to add to each request: NAME:VALUE. Repeatable.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the local server may take for an answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = answer_time)]
    timeout: Duration,
    /// Deliveries that are passed on at once.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    max_in_flight: u8,
    /// What to print of each request, beside a line.
    #[arg(long, value_enum, default_value_t = Shown::None, value_name = "WHAT")]
    show: Shown,
    /// Allow a target that is not this machine.
    #[arg(long)]
    allow_external: bool,
    /// Accept any certificate of the target.
    #[arg(long)]
    insecure: bool,
    /// Write the listener's secret to this new file, of mode 0600.
    #[arg(long, value_name = "FILE", conflicts_with = "print_secret")]
    write_secret: Option<PathBuf>,
    /// Print the listener's secret.
    #[arg(long)]
    print_secret: bool,
    /// Of a kept listener: file with its secret, to check signatures.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<String>,
    /// End when the server was away for so long. [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_offline: Option<Duration>,
    /// End after so many deliveries.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    exit_after: Option<u64>,
    /// Keep the listener: it queues while nobody listens, and the same --name resumes it.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    None,
    Headers,
    Body,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME:VALUE")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    if name.as_str().starts_with("webhook-") {
        return Err("the headers webhook-… are those of the delivery".to_owned());
    }
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

fn answer_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let fits = (Duration::from_secs(1)..=LONGEST_ANSWER).contains(&time);
    if fits { Ok(time) } else { Err("expected 1s to 10m".to_owned()) }
}

/// The lease is renewed meanwhile. Beyond it a handler has got stuck.
const LONGEST_ANSWER: Duration = Duration::from_secs(600);
/// The most that one page of listeners has. Further ones are not looked at.
const LISTENERS_LOOKED_AT: u32 = limits::PAGE_MAX;

/// The listener to consume.
struct Chosen {
    id: String,
    name: String,
    events: Vec<String>,
    /// Known for a new listener, or from a file.
    secret: Option<WebhookSecret>,
    is_kept: bool,
}

pub async fn run(options: ListenOptions) -> anyhow::Result<()> {
    let target = ForwardTarget::parse(&options.forward, options.allow_external, options.insecure)
        .map_err(|error| Fault::Usage(format!("--forward: {error}")))?;
    let mut session = options.api.session()?;
    let chosen = choose(&mut session, &options).await?;
    let stopped = consume(&session, &options, target, &chosen).await;
    if !chosen.is_kept {
        remove(&mut session, &chosen).await;
    }
    stopped
}

async fn consume(
    session: &Session,
    options: &ListenOptions,
    target: ForwardTarget,
    chosen: &Chosen,
) -> anyhow::Result<()> {
    let mut screen = ListenScreen::new(session.look, options.show, &target);
    let secret = chosen.secret.as_ref().filter(|_| options.print_secret).map(WebhookSecret::reveal);
    if !screen.ready(&chosen.id, &chosen.name, &chosen.events, secret)? {
        return Ok(());
    }
    let mut listening = Listening::new(ListenParts {
        client: session.client.another(),
        listener_id: chosen.id.clone(),
        key: chosen.secret.as_ref().map(|secret| -> MacKey { secret.mac_key() }),
        target,
        headers: options.headers.clone(),
        timeout: options.timeout,
        max_in_flight: usize::from(options.max_in_flight),
        exit_after: options.exit_after,
        max_offline: options.max_offline,
        random: session.random.clone(),
        now: || SystemClock.now(),
    });
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut signalled = None;
    let ended = {
        let stop = async {
            signalled = Some(tokio::select! {
                _ = interrupt.recv() => INTERRUPTED,
                _ = terminate.recv() => TERMINATED,
            });
        };
        let mut second = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            ended = listening.run(&mut screen, stop) => ended,
            () = second_signal(&mut second) => return Err(Fault::Signalled(INTERRUPTED).into()),
        }
    };
    let shown = screen.end(listening.handled());
    match ended {
        Ok(ListenEnd::Unread) => Ok(()),
        Ok(ListenEnd::Enough) => shown.map(drop),
        Ok(ListenEnd::Stopped) => Err(Fault::Signalled(signalled.unwrap_or(INTERRUPTED)).into()),
        Err(ListenFault::Api(failure) | ListenFault::Offline(failure)) => Err(explained(failure)),
        Err(ListenFault::Show(fault)) => Err(fault),
    }
}

const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// The first signal asks for an end, the second one does not wait for it.
async fn second_signal((interrupt, terminate): &mut (tokio::signal::unix::Signal, tokio::signal::unix::Signal)) {
    for _ in 0..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Nobody can do anything about a listener that is left: the server removes it in a day.
async fn remove(session: &mut Session, chosen: &Chosen) {
    let deleted = tokio::time::timeout(limits::LISTEN_DRAIN, session.delete(&path(&chosen.id))).await;
    if !matches!(deleted, Ok(Ok(()))) {
        let id = &chosen.id;
        session.look.note(format_args!("{id} could not be removed; the server removes it in a day"));
    }
}

fn path(id: &str) -> String {
    format!("/v1/listeners/{id}")
}

/// A kept listener of this name, or a new one.
async fn choose(session: &mut Session, options: &ListenOptions) -> anyhow::Result<Chosen> {
    let name = options.name.clone().unwrap_or_else(|| format!("listen on {}", host()));
    let others = session.page(&List::new("/v1/listeners"), LISTENERS_LOOKED_AT, None).await?;
    let others = others.data.iter().map(|item| serde_json::from_str(item.get())).collect::<Result<Vec<Value>, _>>()?;
    let kept = others
        .iter()
        .find(|listener| options.name.is_some() && text(listener, "name") == name && listener["durable"] == true);
    let chosen = match kept {
        Some(listener) => resume(session, options, listener).await?,
        None => create(session, options, &name).await?,
    };
    for other in others.iter().filter(|other| text(other, "id") != chosen.id && overlaps(other, &chosen, options)) {
        let (id, name) = (text(other, "id"), text(other, "name"));
        session.look.note(format_args!("{id} {name:?} gets some of these events, too"));
    }
    Ok(chosen)
}

fn names(listener: &Value) -> Vec<String> {
    let names = listener["events"].as_array().into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn overlaps(other: &Value, chosen: &Chosen, options: &ListenOptions) -> bool {
    let project = text(other, "projectId");
    let is_of_project = project.is_empty() || options.project.as_ref().is_none_or(|own| *own == project);
    is_of_project && names(other).iter().any(|name| chosen.events.contains(name))
}

async fn resume(session: &mut Session, options: &ListenOptions, listener: &Value) -> anyhow::Result<Chosen> {
    let (id, name) = (text(listener, "id"), text(listener, "name"));
    if options.project.as_ref().is_some_and(|project| *project != text(listener, "projectId")) {
        let fault = format!("{id} {name:?} is kept for another project: delete it, or use another --name");
        return Err(Fault::Usage(fault).into());
    }
    if options.write_secret.is_some() || options.print_secret {
        let fault = format!(
            "{id} {name:?} is kept, and its secret was shown when it was made: leave out --print-secret and --write-secret"
        );
        return Err(Fault::Usage(fault).into());
    }
    let mut events = names(listener);
    if !options.events.is_empty() && options.events != events {
        session.patch(&path(&id), &json!({ "events": options.events })).await?;
        events.clone_from(&options.events);
    }
    let secret = match &options.secret_file {
        None => None,
        Some(file) => {
            let text = input::secret_file(file)?;
            let secret = WebhookSecret::parse(text.trim());
            Some(secret.map_err(|_| Fault::Usage(format!("{file} holds no secret of the form whsec_…")))?)
        }
    };
    if let Some(since) = options.since {
        let statuses = ["failed", "skipped", "cancelled", "delivered"];
        let body = json!({ "since": since.to_string(), "statuses": statuses });
        session.post(&format!("{}/replay", path(&id)), &body).await?;
    }
    session.look.note(format_args!("{id} {name:?} is resumed"));
    Ok(Chosen { id, name, events, secret, is_kept: true })
}

async fn create(session: &mut Session, options: &ListenOptions, name: &str) -> anyhow::Result<Chosen> {
    if options.since.is_some() {
        let fault = "--since repeats what a kept listener got: a new one has got nothing yet";
        return Err(Fault::Usage(fault.to_owned()).into());
    }
    let events = if options.events.is_empty() { all_events(session).await? } else { options.events.clone() };
    let body = json!({ "name": name, "events": events, "projectId": options.project, "durable": options.keep });
    let made = session.post("/v1/listeners", &body).await?;
    let made: Value = serde_json::from_str(made.get())?;
    let (id, secret) = (text(&made, "id"), text(&made, "secret"));
    let secret = WebhookSecret::parse(&secret).ok().context("the server made a listener without a secret")?;
    if let Some(file) = &options.write_secret {
        let written = write_private(file, secret.reveal());
        if let Err(error) = written {
            session.delete(&path(&id)).await?;
            return Err(error);
        }
        session.look.note(format_args!("the secret is in {}", file.display()));
    }
    Ok(Chosen { id, name: name.to_owned(), events: names(&made), secret: Some(secret), is_kept: options.keep })
}

async fn all_events(session: &mut Session) -> anyhow::Result<Vec<String>> {
    let types = session.get("/v1/event-types").await?;
    let types: Vec<Value> = serde_json::from_str(types.get())?;
    let names = types.iter().filter(|kind| kind["retired"] != true).map(|kind| text(kind, "name"));
    Ok(names.collect())
}

/// The name of this machine.
fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "a machine".to_owned() } else { name.chars().take(60).collect() }
}

/// A secret is printed once, before anything else, where the user asked for it.
pub fn secret_line(secret: &str) -> anyhow::Result<()> {
    Ok(output::only_copy(format_args!("secret  {secret}"))?)
}
