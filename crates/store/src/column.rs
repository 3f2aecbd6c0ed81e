//! How values are encoded in columns, in either database.

use std::net::IpAddr;

use crate::UnexpectedValue;
use postrider_domain::access::{Mode, Scope, Scopes};
use postrider_domain::audit::Actor;
use postrider_domain::caller::CallerAddress;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::private_options::HeaderName;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::tenant::Tenant;

pub const fn mode_code(mode: Mode) -> i64 {
    match mode {
        Mode::Live => 0,
        Mode::Test => 1,
    }
}

pub const fn mode_from_code(code: i64) -> Option<Mode> {
    match code {
        0 => Some(Mode::Live),
        1 => Some(Mode::Test),
        _ => None,
    }
}

const UNKNOWN_ACTOR: &str = "unknown";
const SOURCE_ACTOR: &str = "source";

/// The id of a key or a session, nothing for the command line, or a word for a caller that nobody knows.
pub fn actor_to_text(actor: Actor) -> Option<String> {
    match actor {
        Actor::ApiKey(_) | Actor::Session(_) | Actor::Portal(_) => actor.id_text(),
        Actor::CommandLine => None,
        Actor::Source => Some(SOURCE_ACTOR.to_owned()),
        Actor::Unknown => Some(UNKNOWN_ACTOR.to_owned()),
    }
}

pub fn actor_from_text(text: Option<&str>) -> Result<Actor, UnexpectedValue> {
    match text {
        None => Ok(Actor::CommandLine),
        Some(UNKNOWN_ACTOR) => Ok(Actor::Unknown),
        Some(SOURCE_ACTOR) => Ok(Actor::Source),
        Some(id) => {
            let key = id.parse().map(Actor::ApiKey);
            let found = key.or_else(|_| id.parse().map(Actor::Session)).or_else(|_| id.parse().map(Actor::Portal));
            found.map_err(|_| UnexpectedValue("audit.actor"))
        }
    }
}

pub fn address_from_text(text: Option<&str>) -> Result<Option<CallerAddress>, UnexpectedValue> {
    let address = text.map(|text| text.parse().map(CallerAddress).map_err(|_| UnexpectedValue("audit.address")));
    address.transpose()
}

/// The modes whose keys a tenant manages and whose audit entries it reads, as a condition on the column `mode`. The
/// number stands in the text, so that the planner sees that a partial index fits.
pub const fn managed_modes(tenant: Tenant) -> &'static str {
    match tenant.managed_modes() {
        [] => "mode < 0",
        [Mode::Test] => "mode = 1",
        _ => "mode IN (0, 1)",
    }
}

pub fn join_events(events: &[EventTypeName]) -> String {
    let mut joined = String::new();
    for event in events {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(event.as_str());
    }
    joined
}

/// Names separated by spaces.
pub fn header_names_from(names: &str) -> Result<Vec<HeaderName>, UnexpectedValue> {
    names
        .split_ascii_whitespace()
        .map(|name| HeaderName::parse(name).map_err(|_| UnexpectedValue("endpoints.header_names")))
        .collect()
}

/// Seconds separated by spaces.
pub fn schedule_from(text: &str) -> Result<RetrySchedule, UnexpectedValue> {
    let seconds: Option<Vec<u64>> = text.split_ascii_whitespace().map(|wait| wait.parse().ok()).collect();
    let schedule = seconds.and_then(|seconds| RetrySchedule::from_seconds(&seconds).ok());
    schedule.ok_or(UnexpectedValue("endpoints.retry_schedule"))
}

/// Names separated by spaces. `column` names the column in an error.
pub fn scopes_from(text: &str, column: &'static str) -> Result<Scopes, UnexpectedValue> {
    let scopes: Result<Vec<Scope>, _> = text.split_ascii_whitespace().map(str::parse).collect();
    scopes.map(|scopes| Scopes::of(&scopes)).map_err(|_| UnexpectedValue(column))
}

pub fn joined<T: ToString>(words: impl Iterator<Item = T>) -> String {
    words.map(|word| word.to_string()).collect::<Vec<_>>().join(" ")
}

/// A JSON array of `[name, value]`.
pub fn headers_to_text(headers: &[(String, String)]) -> Option<String> {
    if headers.is_empty() { None } else { serde_json::to_string(headers).ok() }
}

/// `None` when the text is not such an array.
pub fn headers_from_text(text: Option<&str>) -> Option<Vec<(String, String)>> {
    match text {
        None => Some(Vec::new()),
        Some(text) => serde_json::from_str(text).ok(),
    }
}

/// Who made a key, as a column holds it: the text of the actor, or `command_line`.
pub fn maker_text(maker: Actor) -> String {
    actor_to_text(maker).unwrap_or_else(|| COMMAND_LINE.to_owned())
}

/// # Errors
/// When the text is neither an actor nor `command_line`.
pub fn maker_from(text: &str) -> Result<Actor, UnexpectedValue> {
    actor_from_text(Some(text).filter(|text| *text != COMMAND_LINE)).map_err(|_| UnexpectedValue("api_keys.created_by"))
}

const COMMAND_LINE: &str = "command_line";

/// The 4 or 16 bytes of an address.
pub fn address_to_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `None` when there are neither 4 nor 16 bytes.
pub fn address_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
