//! Rows and fields of resources, for people.

use serde_json::Value;

use super::super::output;
use super::super::paint::{Look, Tone, tone_of};
use super::super::table::{Cell, Column, Row};

/// A member as text: an empty one for null and what is missing.
pub fn text(object: &Value, member: &str) -> String {
    match &object[member] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    }
}

/// A time without what a person does not need: `2026-05-15 08:21:00`.
pub fn time(object: &Value, member: &str) -> String {
    let text = text(object, member);
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => text,
    }
}

pub const DELIVERY_COLUMNS: [Column; 8] = [
    Column::id("id"),
    Column::fixed("status"),
    Column::fixed("answer"),
    Column::text("event"),
    Column::spare("endpoint"),
    Column::spare("attempts"),
    Column::spare("created (UTC)"),
    Column::spare("next (UTC)"),
];

pub fn delivery_row(delivery: &Value) -> Row {
    let status = text(delivery, "status");
    vec![
        Cell::plain(text(delivery, "id")),
        Cell::toned(tone_of(&status), status),
        Cell::plain(answer(delivery)),
        Cell::plain(text(delivery, "eventType")),
        Cell::plain(text(delivery, "endpointId")),
        Cell::plain(text(delivery, "attemptCount")),
        Cell::plain(time(delivery, "createdAt")),
        Cell::plain(time(delivery, "nextAttemptAt")),
    ]
}

/// The last answer in a word: its status, or why there was none.
pub fn answer(delivery: &Value) -> String {
    let status = text(delivery, "lastResponseStatus");
    if !status.is_empty() {
        return status;
    }
    let outcome = text(delivery, "lastOutcome");
    if outcome.is_empty() { text(delivery, "reason") } else { outcome }
}

/// One line for each member that has a value.
pub fn fields(look: Look, object: &Value, members: &[(&str, &str)]) -> anyhow::Result<()> {
    let width = members.iter().map(|(title, _)| title.len()).max().unwrap_or_default() + 2;
    for (title, member) in members {
        let value = text(object, member);
        if !value.is_empty() {
            let tone = if matches!(*member, "status" | "lastOutcome") { tone_of(&value) } else { Tone::Plain };
            output::painted_line(format_args!("{title:<width$}{}", look.painted(tone, value)))?;
        }
    }
    Ok(())
}
