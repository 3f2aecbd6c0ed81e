//! `postrider trigger`: publishes the catalogue's example of an event, changed as somebody likes.

use std::io::{self, IsTerminal as _};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use postrider_domain::limits;
use postrider_domain::schema::DataSchema;

use super::super::environment::variable;
use super::super::exit::Fault;
use super::super::input;
use super::super::instant::duration;
use super::super::output;
use super::super::table::{Cell, Column, print_table};
use super::list::{print_object, with_kind};
use super::session::{ApiOptions, Session};
use super::show::text;
use super::wait::{Deliveries, WaitOptions};
use super::{endpoint_id, list};

#[derive(Debug, Args)]
pub struct TriggerOptions {
    /// Name of the event, such as post.created.
    #[arg(required_unless_present = "list")]
    event: Option<String>,
    /// List the events that can be triggered.
    #[arg(long, conflicts_with = "event")]
    list: bool,
    /// Data of the event: @FILE, - for standard input, or the JSON itself [default: the catalogue's example]
    #[arg(long, value_name = "JSON", conflicts_with = "endpoint")]
    data: Option<String>,
    /// Change a member of the data: user.name=Ann, items.0.count=3. JSON where it parses, else text. Repeatable.
    #[arg(long = "set", value_name = "PATH=VALUE", conflicts_with = "endpoint", value_parser = assignment)]
    assignments: Vec<Assignment>,
    /// Edit the data with $VISUAL or $EDITOR before it is sent.
    #[arg(long, conflicts_with = "endpoint")]
    edit: bool,
    /// Project of the event.
    #[arg(long = "project", alias = "project-id", value_name = "PROJECT", conflicts_with = "endpoint")]
    project: Option<String>,
    /// Send the catalogue's example to this endpoint alone, marked as a test.
    #[arg(long, alias = "endpoint-id", value_name = "ENDPOINT", value_parser = endpoint_id)]
    endpoint: Option<String>,
    /// Your own id of the event: a second publish with it is not done.
    #[arg(long, value_name = "ID", conflicts_with_all = ["endpoint", "count"])]
    external_id: Option<String>,
    /// Publish so many events.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TRIGGERED_EVENTS)))]
    count: u32,
    /// Pause between two events.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    every: Duration,
    /// Print what would be published, once it fits the schema.
    #[arg(long, conflicts_with_all = ["wait", "endpoint"])]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    api: ApiOptions,
}

pub async fn run(options: TriggerOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let types: Vec<EventType> = serde_json::from_str(session.get("/v1/event-types").await?.get())?;
    let Some(name) = &options.event else { return list_types(&session, &types) };
    let Some(event_type) = types.iter().find(|one| one.name == *name) else {
        let names: Vec<&str> = types.iter().filter(|one| !one.retired).map(|one| one.name.as_str()).collect();
        return Err(Fault::Usage(format!("{name:?} is not an event. The events are {}", names.join(", "))).into());
    };
    let data = data(&options, event_type)?;
    check(event_type, &data)?;
    let body = body(&options, name, &data)?;
    if options.dry_run {
        return if session.look.is_json {
            print_object("dry_run", &body)
        } else {
            let body: Value = serde_json::from_str(body.get())?;
            for line in serde_json::to_string_pretty(&body)?.lines() {
                output::line(line)?;
            }
            Ok(())
        };
    }
    let mut sent = Sent::default();
    for number in 0..options.count {
        if number > 0 {
            tokio::time::sleep(options.every).await;
        }
        match &options.endpoint {
            Some(endpoint) => send_test(&mut session, endpoint, name, &options.wait, &mut sent).await?,
            None => publish(&mut session, &body, &mut sent).await?,
        }
    }
    if options.endpoint.is_some() {
        return options.wait.wait_for(&mut session, Deliveries::Ids(&sent.deliveries)).await;
    }
    options.wait.wait_for(&mut session, Deliveries::OfEvents { ids: &sent.events, count: sent.count }).await
}

/// What was sent so far.
#[derive(Default)]
struct Sent {
    events: Vec<String>,
    /// Deliveries of these events.
    count: usize,
    /// Tests.
    deliveries: Vec<String>,
}

#[derive(serde::Deserialize)]
struct EventType {
    name: String,
    description: String,
    #[serde(default)]
    retired: bool,
    schema: Box<RawValue>,
    example: Box<RawValue>,
}

async fn publish(session: &mut Session, body: &RawValue, sent: &mut Sent) -> anyhow::Result<()> {
    let raw = session.post_raw("/v1/events", body).await?;
    let receipt: Value = serde_json::from_str(raw.get())?;
    let (id, count) = (text(&receipt, "id"), receipt["deliveries"].as_u64().unwrap_or_default());
    if session.look.is_json {
        print_object("event", &raw)?;
    } else {
        let deliveries = if count == 1 { "delivery" } else { "deliveries" };
        let page = session.page_url(&format!("/events/{id}"));
        output::line(format_args!("{id}  {count} {deliveries}  {page}"))?;
    }
    if count == 0 {
        session.look.note("no endpoint gets this event: none subscribes to it for this project, or all are off");
    }
    sent.count += usize::try_from(count).unwrap_or(usize::MAX);
    sent.events.push(id);
    Ok(())
}

async fn send_test(
    session: &mut Session,
    endpoint: &str,
    event: &str,
    wait: &WaitOptions,
    sent: &mut Sent,
) -> anyhow::Result<()> {
    let raw = session.post(&format!("/v1/webhook-endpoints/{endpoint}/test"), &json!({ "event": event })).await?;
    let id = text(&serde_json::from_str(raw.get())?, "id");
    if wait.until().is_none() {
        if session.look.is_json {
            print_object("delivery", &raw)?;
        } else {
            output::line(format_args!("{id}  {}", session.page_url(&format!("/deliveries/{id}"))))?;
        }
    }
    sent.deliveries.push(id);
    Ok(())
}

fn list_types(session: &Session, types: &[EventType]) -> anyhow::Result<()> {
    if session.look.is_json {
        for one in types {
            let EventType { name, description, retired, schema, example } = one;
            let head = json!({ "name": name, "description": description, "retired": retired }).to_string();
            let line =
                format!("{},\"schema\":{},\"example\":{}}}", head.trim_end_matches('}'), schema.get(), example.get());
            output::json_line(&with_kind("event_type", &RawValue::from_string(line)?))?;
        }
        return Ok(());
    }
    let row = |one: &EventType| vec![Cell::plain(one.name.as_str()), Cell::plain(one.description.as_str())];
    let rows = types.iter().filter(|one| !one.retired).map(row).collect();
    Ok(print_table(&[Column::id("event"), Column::text("description")], rows, session.look)?)
}

/// The data in its final form, on one line. Tokens stay as they were given, unless a member is set.
fn data(options: &TriggerOptions, event_type: &EventType) -> anyhow::Result<Box<RawValue>> {
    let given = match &options.data {
        Some(data) => input::text(input::bytes(data)?)?,
        None => event_type.example.get().to_owned(),
    };
    let mut data: Box<RawValue> = parsed(&given, "--data")?;
    if !options.assignments.is_empty() {
        let mut value: Value = serde_json::from_str(data.get())?;
        for Assignment { path, value: new } in &options.assignments {
            set(&mut value, path, new.clone())
                .map_err(|fault| Fault::Usage(format!("--set {}: {fault}", path.join("."))))?;
        }
        data = to_raw_value(&value)?;
    }
    if options.edit {
        data = parsed(&edited(&data)?, "the edited text")?;
    }
    Ok(data)
}

fn parsed(text: &str, source: &str) -> anyhow::Result<Box<RawValue>> {
    let fault = |error| Fault::Usage(format!("{source} is no JSON object: {error}"));
    serde_json::from_str::<Map<String, Value>>(text).map_err(fault)?;
    // A line break of Windows between tokens says nothing, and would be signed.
    Ok(RawValue::from_string(output::one_line(text)).map_err(fault)?)
}

fn check(event_type: &EventType, data: &RawValue) -> anyhow::Result<()> {
    let Ok(schema) = DataSchema::compile(&event_type.schema) else { return Ok(()) };
    let violations = schema.violations(data);
    if violations.is_empty() {
        return Ok(());
    }
    let faults: Vec<String> = violations.iter().map(|one| format!("{}: {}", one.path, one.text)).collect();
    bail!("the data does not fit the schema of {}, so nothing was sent\n  {}", event_type.name, faults.join("\n  "))
}

fn body(options: &TriggerOptions, name: &str, data: &RawValue) -> anyhow::Result<Box<RawValue>> {
    let mut body = format!("{{\"type\":{},\"data\":{}", json!(name), data.get());
    for (member, value) in [("projectId", &options.project), ("externalId", &options.external_id)] {
        if let Some(value) = value {
            body.push_str(&format!(",\"{member}\":{}", json!(value)));
        }
    }
    body.push('}');
    Ok(RawValue::from_string(body)?)
}

/// One `--set`.
#[derive(Clone, Debug)]
pub struct Assignment {
    path: Vec<String>,
    value: Value,
}

fn assignment(text: &str) -> Result<Assignment, String> {
    let (path, value) = text.split_once('=').ok_or("expected PATH=VALUE, as in user.name=Ann")?;
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err("a part of the path is empty".to_owned());
    }
    Ok(Assignment { path, value: serde_json::from_str(value).unwrap_or_else(|_| value.into()) })
}

/// Sets a member. Objects that are missing on the way are made.
fn set(target: &mut Value, path: &[String], new: Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *target = new;
        return Ok(());
    };
    if target.is_null() {
        *target = Value::Object(Map::new());
    }
    match target {
        Value::Object(members) => set(members.entry(first.as_str()).or_insert(Value::Null), rest, new),
        Value::Array(items) => {
            let index: usize = first.parse().map_err(|_| format!("{first} is no index of a list"))?;
            if index == items.len() {
                items.push(Value::Null);
            }
            let count = items.len();
            let item = items.get_mut(index).ok_or_else(|| format!("the list has {count} items, so no item {index}"))?;
            set(item, rest, new)
        }
        _ => Err(format!("{first} is below a value that is no object and no list")),
    }
}

/// What a person makes of the data in an editor.
fn edited(data: &RawValue) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return Err(Fault::Usage("--edit needs a terminal".to_owned()).into());
    }
    let editor = variable("VISUAL").or_else(|| variable("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(data.get())?)?;
    let path = std::env::temp_dir().join(format!("postrider-data-{}.json", std::process::id()));
    list::write_private(&path, &pretty)?;
    // Through a shell, because the variable may have arguments: "code --wait".
    let outcome = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&path).status();
    let text = std::fs::read(&path);
    drop(std::fs::remove_file(&path));
    if !outcome.with_context(|| format!("cannot start the editor {editor}"))?.success() {
        bail!("the editor {editor} failed, so nothing was sent");
    }
    input::text(text.context("cannot read the edited file")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(data: &str, assignments: &[&str]) -> Result<String, String> {
        let mut value: Value = serde_json::from_str(data).unwrap();
        for text in assignments {
            let Assignment { path, value: new } = assignment(text)?;
            set(&mut value, &path, new)?;
        }
        Ok(value.to_string())
    }

    #[test]
    fn a_path_sets_a_member_of_objects_and_lists() {
        let data = r#"{"a":{"b":1},"c":[1,{"d":2}]}"#;
        assert_eq!(changed(data, &["a.b=x"]).unwrap(), r#"{"a":{"b":"x"},"c":[1,{"d":2}]}"#);
        assert_eq!(changed(data, &["c.1.d=true", "c.2=null"]).unwrap(), r#"{"a":{"b":1},"c":[1,{"d":true},null]}"#);
        assert_eq!(changed("{}", &["a.b.c={\"x\": [1]}"]).unwrap(), r#"{"a":{"b":{"c":{"x":[1]}}}}"#);
        assert_eq!(changed("{}", &["a=", "b=1=2", "c=\"1\""]).unwrap(), r#"{"a":"","b":"1=2","c":"1"}"#);
        for (assignment, fault) in [
            ("a", "PATH=VALUE"),
            ("a..b=1", "is empty"),
            ("a.b.c=1", "no object and no list"),
            ("c.x=1", "no index"),
            ("c.9=1", "has 2 items"),
        ] {
            let said = changed(data, &[assignment]).unwrap_err();
            assert!(said.contains(fault), "{said}");
        }
    }

    #[test]
    fn line_ends_of_windows_are_no_part_of_the_data() {
        let data = parsed("{\r\n  \"a\": 1.0,\r\n  \"b\": \"x\\r\\ny\"\r\n}\r\n", "--data").unwrap();
        assert_eq!(data.get(), r#"{"a":1.0,"b":"x\r\ny"}"#);
        assert!(parsed("[1]", "--data").unwrap_err().to_string().contains("no JSON object"));
    }
}
