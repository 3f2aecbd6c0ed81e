//! Event names that callers give, looked up in the catalogue.

use postrider_domain::event_type::{Catalogue, EventTypeName};

use crate::fields::cut;

/// A name that accepts subscriptions and publishes. Retired names do not.
///
/// # Errors
/// The fault of the parameter.
pub fn subscribable_event(catalogue: &Catalogue, name: &str) -> Result<EventTypeName, String> {
    let event = catalogue.find(name).ok_or_else(|| unknown_event(catalogue, name))?;
    Ok(event.name.clone())
}

/// Any name of the catalogue, including retired ones: their events stay in the log.
///
/// # Errors
/// The fault of the parameter.
pub fn known_event(catalogue: &Catalogue, name: &str) -> Result<EventTypeName, String> {
    let known = catalogue.types().iter().find(|event| event.name.as_str() == name);
    known.map(|event| event.name.clone()).ok_or_else(|| unknown_event(catalogue, name))
}

fn unknown_event(catalogue: &Catalogue, name: &str) -> String {
    let known: Vec<&str> = catalogue.names().map(EventTypeName::as_str).collect();
    let name = cut(name);
    format!("{name:?} is not an event name; the event names are {}", known.join(", "))
}
