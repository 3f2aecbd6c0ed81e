//! Commands that call a server over its API, with a key, as any client does.
//!
//! Flags bear the names of the API's fields. Data goes to standard output, everything else to standard error; the exit
//! codes are those of [`super::exit`].

pub mod deliveries;
pub mod endpoints;
pub mod events;
mod list;
pub mod listen;
mod listen_screen;
pub mod listeners;
pub mod parked;
pub mod portal;
mod profile;
pub mod replay;
mod session;
mod show;
pub mod sources;
pub mod tail;
pub mod trigger;
mod wait;

use postrider_domain::id::{DeliveryId, EndpointId, EventId, ParkedMessageId, ReplayId};

/// The ids stand in paths, so each is checked before.
fn endpoint_id(text: &str) -> Result<String, String> {
    text.parse::<EndpointId>().map(|id| id.to_string()).map_err(|_| expected("whe_…, the id of an endpoint"))
}

fn listener_id(text: &str) -> Result<String, String> {
    let id = text.parse::<EndpointId>().ok().filter(|id| id.is_listener());
    id.map(|id| id.to_string()).ok_or_else(|| expected("lst_…, the id of a listener"))
}

fn event_id(text: &str) -> Result<String, String> {
    text.parse::<EventId>().map(|id| id.to_string()).map_err(|_| expected("evt_…, the id of an event"))
}

fn delivery_id(text: &str) -> Result<String, String> {
    text.parse::<DeliveryId>().map(|id| id.to_string()).map_err(|_| expected("dlv_…, the id of a delivery"))
}

fn replay_id(text: &str) -> Result<String, String> {
    text.parse::<ReplayId>().map(|id| id.to_string()).map_err(|_| expected("rpl_…, the id of a replay"))
}

fn parked_message_id(text: &str) -> Result<String, String> {
    let expected = || expected("pkm_…, the id of a parked message");
    text.parse::<ParkedMessageId>().map(|id| id.to_string()).map_err(|_| expected())
}

fn expected(what: &str) -> String {
    format!("expected {what}")
}
