//! States: a word, an icon and a colour.

use maud::{Markup, html};

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::endpoint::{Endpoint, EndpointState};

use super::icon::{self, Icon};
use crate::language::say;

/// How a state concerns the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Waiting,
    Bad,
    Neutral,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "state state-good",
            Self::Waiting => "state state-waiting",
            Self::Bad => "state state-bad",
            Self::Neutral => "state",
        }
    }
}

pub fn state(tone: Tone, icon: Icon, word: &str) -> Markup {
    html! { span class=(tone.class()) { (icon) (word) } }
}

pub fn endpoint(endpoint: &Endpoint) -> Markup {
    let of = endpoint.state();
    let (tone, icon) = match of {
        EndpointState::Disabled => (Tone::Bad, icon::OFF),
        EndpointState::Off => (Tone::Neutral, icon::OFF),
        EndpointState::Paused => (Tone::Waiting, icon::PAUSE),
        EndpointState::Failing => (Tone::Bad, icon::WARNING),
        EndpointState::Ok => (Tone::Good, icon::CHECK),
    };
    state(tone, icon, endpoint_word(of))
}

pub fn endpoint_word(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Disabled => say!("disabled"),
        EndpointState::Off => say!("off"),
        EndpointState::Paused => say!("paused"),
        EndpointState::Failing => say!("failing"),
        EndpointState::Ok => say!("ok"),
    }
}

pub fn delivery(status: DeliveryStatus) -> Markup {
    let (tone, icon) = match status {
        DeliveryStatus::Pending => (Tone::Waiting, icon::CLOCK),
        DeliveryStatus::Delivered => (Tone::Good, icon::CHECK),
        DeliveryStatus::Failed => (Tone::Bad, icon::CROSS),
        DeliveryStatus::Skipped => (Tone::Neutral, icon::SKIP),
        DeliveryStatus::Cancelled => (Tone::Neutral, icon::OFF),
        DeliveryStatus::Simulated => (Tone::Neutral, icon::FLASK),
    };
    state(tone, icon, delivery_word(status))
}

pub fn delivery_word(status: DeliveryStatus) -> &'static str {
    match status {
        DeliveryStatus::Pending => say!("pending"),
        DeliveryStatus::Delivered => say!("delivered"),
        DeliveryStatus::Failed => say!("failed"),
        DeliveryStatus::Skipped => say!("skipped"),
        DeliveryStatus::Cancelled => say!("cancelled"),
        DeliveryStatus::Simulated => say!("simulated"),
    }
}
