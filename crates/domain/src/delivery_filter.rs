//! The filter of a list of deliveries. A parameter without values passes everything.

use std::ops::RangeInclusive;

use super::attempt::AttemptOutcome;
use super::delivery::{DeliveryCause, DeliveryStatus};
use super::endpoint::ProjectId;
use super::event_type::EventTypeName;
use super::id::{EndpointId, EventId};
use super::list_filter::{self, ListFilter, ReadEventName, add_pair, instant, values, words};
use super::time::Timestamp;

/// Stored as JSON by jobs: an object of the parameters, with the texts of a query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    pub endpoint_ids: Vec<EndpointId>,
    pub event_ids: Vec<EventId>,
    pub event_types: Vec<EventTypeName>,
    pub project_ids: Vec<ProjectId>,
    pub statuses: Vec<DeliveryStatus>,
    pub causes: Vec<DeliveryCause>,
    /// Of the last recorded attempt.
    pub outcomes: Vec<AttemptOutcome>,
    /// Of the last recorded attempt.
    pub response_statuses: Vec<ResponseStatuses>,
    /// Created at or after.
    pub since: Option<Timestamp>,
    /// Created before.
    pub until: Option<Timestamp>,
}

/// One status of a response (`503`), or a class of them (`5xx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStatuses {
    One(u16),
    /// By the first digit.
    Class(u16),
}

impl ResponseStatuses {
    /// # Errors
    /// When the text is neither a status nor a class.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FAULT: &str = "must be a status from 100 to 999, such as 503, or a class from 1xx to 9xx";
        let digits = text.strip_suffix("xx").unwrap_or(text);
        let is_class = digits.len() != text.len();
        let fits = digits.len() == if is_class { 1 } else { 3 } && digits.bytes().all(|c| c.is_ascii_digit());
        match digits.parse() {
            Ok(class @ 1..=9) if fits && is_class => Ok(Self::Class(class)),
            Ok(status @ 100..=999) if fits && !is_class => Ok(Self::One(status)),
            _ => Err(FAULT),
        }
    }

    pub const fn range(self) -> RangeInclusive<u16> {
        match self {
            Self::One(status) => status..=status,
            Self::Class(class) => class * 100..=class * 100 + 99,
        }
    }
}

impl std::fmt::Display for ResponseStatuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl DeliveryFilter {
    /// The statuses that a delivery which passes may have. The outcome and the response of its last attempt exclude
    /// some: after an answer of 2xx, for example, it is `delivered` unless the answer was incomplete.
    pub fn possible_statuses(&self) -> Vec<DeliveryStatus> {
        let may_pass = |status: DeliveryStatus| {
            (self.statuses.is_empty() || self.statuses.contains(&status))
                && (self.outcomes.is_empty() || self.outcomes.iter().any(|outcome| may_be_after(status, *outcome)))
                && (self.response_statuses.is_empty()
                    || self.response_statuses.iter().any(|of| may_answer(status, *of)))
        };
        DeliveryStatus::ALL.into_iter().filter(|status| may_pass(*status)).collect()
    }
}

/// Whether a delivery may have this status after an attempt with this outcome.
const fn may_be_after(status: DeliveryStatus, outcome: AttemptOutcome) -> bool {
    match status {
        DeliveryStatus::Delivered => matches!(outcome, AttemptOutcome::Delivered),
        DeliveryStatus::Simulated => matches!(outcome, AttemptOutcome::Simulated),
        DeliveryStatus::Skipped => false,
        DeliveryStatus::Pending | DeliveryStatus::Failed | DeliveryStatus::Cancelled => {
            !matches!(outcome, AttemptOutcome::Delivered | AttemptOutcome::Simulated)
        }
    }
}

/// Whether a delivery of this status may have got one of these answers last.
fn may_answer(status: DeliveryStatus, answers: ResponseStatuses) -> bool {
    match status {
        DeliveryStatus::Delivered => (200..300).contains(answers.range().start()),
        DeliveryStatus::Simulated | DeliveryStatus::Skipped => false,
        DeliveryStatus::Pending | DeliveryStatus::Failed | DeliveryStatus::Cancelled => true,
    }
}

impl ListFilter for DeliveryFilter {
    const NAMES: &'static [&'static str] = &[
        "endpointId",
        "eventId",
        "eventType",
        "projectId",
        "status",
        "cause",
        "outcome",
        "responseStatus",
        "since",
        "until",
    ];

    fn set(&mut self, name: &str, text: &str, read_event: ReadEventName<'_>) -> Result<(), String> {
        match name {
            "endpointId" => self.endpoint_ids = values(text, str::parse)?,
            "eventId" => self.event_ids = values(text, str::parse)?,
            "eventType" => self.event_types = values(text, read_event)?,
            "projectId" => self.project_ids = values(text, ProjectId::parse)?,
            "status" => self.statuses = words(text, &DeliveryStatus::ALL, DeliveryStatus::as_str)?,
            "cause" => self.causes = words(text, &DeliveryCause::ALL, DeliveryCause::as_str)?,
            "outcome" => self.outcomes = words(text, &AttemptOutcome::ALL, AttemptOutcome::as_str)?,
            "responseStatus" => self.response_statuses = values(text, ResponseStatuses::parse)?,
            "since" => self.since = Some(instant(text)?),
            "until" => self.until = Some(instant(text)?),
            _ => return Err("is not a known parameter".to_owned()),
        }
        Ok(())
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        add_pair(&mut pairs, "endpointId", &self.endpoint_ids, ToString::to_string);
        add_pair(&mut pairs, "eventId", &self.event_ids, ToString::to_string);
        add_pair(&mut pairs, "eventType", &self.event_types, ToString::to_string);
        add_pair(&mut pairs, "projectId", &self.project_ids, |project| project.as_str().to_owned());
        add_pair(&mut pairs, "status", &self.statuses, |status| status.as_str().to_owned());
        add_pair(&mut pairs, "cause", &self.causes, |cause| cause.as_str().to_owned());
        add_pair(&mut pairs, "outcome", &self.outcomes, |outcome| outcome.as_str().to_owned());
        add_pair(&mut pairs, "responseStatus", &self.response_statuses, ToString::to_string);
        add_pair(&mut pairs, "since", self.since.as_slice(), ToString::to_string);
        add_pair(&mut pairs, "until", self.until.as_slice(), ToString::to_string);
        pairs
    }
}

impl serde::Serialize for DeliveryFilter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        list_filter::serialize(self, serializer)
    }
}

impl<'d> serde::Deserialize<'d> for DeliveryFilter {
    fn deserialize<D: serde::Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        list_filter::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list_filter::filter_from_pairs;

    fn read(pairs: &[(&str, &str)]) -> Result<DeliveryFilter, Vec<(String, String)>> {
        filter_from_pairs(pairs.iter().copied(), &|name| Ok(EventTypeName::from_stored(name)))
    }

    #[test]
    fn a_filter_with_every_parameter_survives_its_json() {
        let pairs = [
            ("endpointId", "whe_a1b2c3d4e5f6g7h8,whe_a1b2c3d4e5f6g7h9"),
            ("eventId", "evt_00cw4xjg7q2000n5r8k3"),
            ("eventType", "post.created,job.failed"),
            ("projectId", "proj_a,proj-b"),
            ("status", "failed,skipped"),
            ("cause", "retry,replay"),
            ("outcome", "timeout,http_error"),
            ("responseStatus", "503,4xx"),
            ("since", "2026-05-15T08:21:00.000Z"),
            ("until", "2026-05-16T08:21:00.000Z"),
        ];
        assert_eq!(pairs.map(|(name, _)| name), *DeliveryFilter::NAMES);
        let filter = read(&pairs).unwrap();
        assert_eq!(filter.pairs(), pairs.map(|(name, text)| (name, text.to_owned())));
        let json = serde_json::to_string(&filter).unwrap();
        assert!(json.contains(r#""status":"failed,skipped""#), "{json}");
        assert_eq!(serde_json::from_str::<DeliveryFilter>(&json).unwrap(), filter);
        assert_eq!(serde_json::from_str::<DeliveryFilter>("{}").unwrap(), DeliveryFilter::default());
        assert!(serde_json::from_str::<DeliveryFilter>(r#"{"state":"failed"}"#).is_err());
    }

    #[test]
    fn each_fault_names_its_parameter_and_the_accepted_values() {
        for (name, text, fault) in [
            ("status", "failed,gone", "must be one of pending, delivered, failed, skipped, cancelled, simulated"),
            ("status", "", "must be one of pending, delivered, failed, skipped, cancelled, simulated"),
            ("cause", "manual", "must be one of event, retry, replay, test"),
            ("responseStatus", "5x", "must be a status from 100 to 999, such as 503, or a class from 1xx to 9xx"),
            ("endpointId", "whe_x", "not an id of this kind"),
            ("state", "failed", "is not a known parameter"),
        ] {
            assert_eq!(read(&[(name, text)]).unwrap_err(), [(name.to_owned(), fault.to_owned())], "{text}");
        }
        let outcomes = read(&[("outcome", "503")]).unwrap_err();
        assert!(outcomes[0].1.contains("timeout") && outcomes[0].1.contains("delivered"), "{outcomes:?}");
        assert_eq!(read(&[("status", "failed"), ("status", "failed")]).unwrap_err()[0].1, "is given twice");
        let many: Vec<String> = (0..51).map(|n| format!("p{n}")).collect();
        assert_eq!(read(&[("projectId", &many.join(","))]).unwrap_err()[0].1, "must have at most 50 values");
        assert_eq!(read(&[("projectId", &many[..50].join(","))]).unwrap().project_ids.len(), 50);
        assert_eq!(read(&[("projectId", "p,p,p")]).unwrap().project_ids.len(), 1, "a repeated value is taken once");
        let repeated = ["p"; 51].join(",");
        assert_eq!(read(&[("projectId", &repeated)]).unwrap_err()[0].1, "must have at most 50 values");
    }

    #[test]
    fn a_response_status_is_three_digits_or_a_class() {
        assert_eq!(ResponseStatuses::parse("503").unwrap().range(), 503..=503);
        assert_eq!(ResponseStatuses::parse("5xx").unwrap().range(), 500..=599);
        for bad in ["", "xx", "5", "50", "99", "099", "5xxx", "0xx", "10xx", "+50", "5XX", "1000", "500xx"] {
            assert!(ResponseStatuses::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_outcome_and_a_response_exclude_statuses() {
        use DeliveryStatus::{Cancelled, Delivered, Failed, Pending, Simulated};
        let possible = |pairs: &[(&str, &str)]| read(pairs).unwrap().possible_statuses();
        assert_eq!(possible(&[]), DeliveryStatus::ALL);
        assert_eq!(possible(&[("outcome", "timeout")]), [Pending, Failed, Cancelled]);
        assert_eq!(possible(&[("outcome", "timeout,simulated")]), [Pending, Failed, Cancelled, Simulated]);
        assert_eq!(possible(&[("outcome", "delivered")]), [Delivered]);
        assert_eq!(possible(&[("responseStatus", "5xx")]), [Pending, Failed, Cancelled]);
        assert_eq!(possible(&[("responseStatus", "204")]), [Pending, Delivered, Failed, Cancelled]);
        assert_eq!(possible(&[("outcome", "timeout"), ("status", "failed,delivered")]), [Failed]);
        assert_eq!(possible(&[("outcome", "timeout"), ("status", "skipped")]), []);
    }
}
