//! Why an endpoint did not get an event: from the endpoint as it is now, and the event.
//!
//! The former configuration of an endpoint is not kept. When it has not changed since the event was accepted, it is the
//! one that decided. Otherwise the answer is about the present one, and says so.

use super::endpoint::Endpoint;
use super::event::Event;
use super::limits;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReached {
    /// It was created after the event.
    CreatedLater,
    /// It belongs to a project that is not the event's.
    OtherProject,
    /// It does not subscribe to the event's type.
    OtherTypes,
    /// The event was a test of one endpoint.
    TestOfOther,
    /// It matches the event, but did not when the event was accepted.
    ChangedSince,
}

/// Which configuration of the endpoint the reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfiguredAs {
    AtAccept,
    Now,
}

impl NotReached {
    pub const ALL: [Self; 5] =
        [Self::CreatedLater, Self::OtherProject, Self::OtherTypes, Self::TestOfOther, Self::ChangedSince];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreatedLater => "created_later",
            Self::OtherProject => "other_project",
            Self::OtherTypes => "other_types",
            Self::TestOfOther => "test_of_other",
            Self::ChangedSince => "changed_since",
        }
    }

    /// `is_test` says that the event was a test. The endpoint has no delivery of the event.
    pub fn of(endpoint: &Endpoint, event: &Event, is_test: bool) -> (Self, ConfiguredAs) {
        let accepted_at = event.id.created_at();
        if is_test {
            return (Self::TestOfOther, ConfiguredAs::AtAccept);
        }
        if endpoint.created_at > accepted_at {
            return (Self::CreatedLater, ConfiguredAs::AtAccept);
        }
        // An event has its instant before it is accepted, and a change before it is committed. So a change around that
        // time may have come before or after.
        let is_unchanged = endpoint.updated_at.plus(limits::CHANGE_SETTLES) < accepted_at;
        let configured = if is_unchanged { ConfiguredAs::AtAccept } else { ConfiguredAs::Now };
        let project = event.project_id.as_deref();
        if endpoint.project_id.as_deref().is_some_and(|own| Some(own) != project) {
            (Self::OtherProject, configured)
        } else if endpoint.matches(&event.event_type, project) {
            (Self::ChangedSince, ConfiguredAs::Now)
        } else {
            (Self::OtherTypes, configured)
        }
    }
}

impl ConfiguredAs {
    pub const ALL: [Self; 2] = [Self::AtAccept, Self::Now];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtAccept => "at_accept",
            Self::Now => "now",
        }
    }
}
