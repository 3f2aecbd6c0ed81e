//! Logs that published data violates its schema, for event types whose catalogue entry records violations instead of
//! rejecting the event.
//!
//! A publisher with a faulty event type would fill the log. So each type is logged once a minute, with the number of
//! violations since the last line. The line names the rule of the schema and never shows data.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::WorkspaceId;
use postrider_domain::schema::SchemaViolation;
use postrider_domain::time::Timestamp;

use crate::lock::lock;

/// The shortest time between two lines about one event type.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct ViolationLog(Mutex<HashMap<EventTypeName, LastLine>>);

struct LastLine {
    at: Timestamp,
    /// Violations since.
    unlogged: u64,
}

impl ViolationLog {
    /// `violation` is expensive and is called only for a line that is written.
    pub fn report(
        &self,
        workspace_id: WorkspaceId,
        event_type: &EventTypeName,
        now: Timestamp,
        violation: impl FnOnce() -> Option<SchemaViolation>,
    ) {
        if let Some(unlogged) = self.due(event_type, now) {
            let rule = violation().map(|violation| violation.rule).unwrap_or_default();
            tracing::warn!(
                %event_type, %workspace_id, rule, unlogged,
                "published data violates its schema; the event was accepted"
            );
        }
    }

    /// The violations since the last line, if a line is due.
    fn due(&self, event_type: &EventTypeName, now: Timestamp) -> Option<u64> {
        let mut lines = lock(&self.0);
        match lines.get_mut(event_type) {
            Some(last) if now.since(last.at) < LINE_INTERVAL => {
                last.unlogged += 1;
                None
            }
            Some(last) => {
                let unlogged = last.unlogged;
                *last = LastLine { at: now, unlogged: 0 };
                Some(unlogged)
            }
            None => {
                lines.insert(event_type.clone(), LastLine { at: now, unlogged: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_logged_once_a_minute_with_a_count() {
        let (log, name, other) = (
            ViolationLog::default(),
            EventTypeName::from_stored("post.created"),
            EventTypeName::from_stored("job.failed"),
        );
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(log.due(&name, at(0)), Some(0));
        assert_eq!(log.due(&name, at(1)), None);
        assert_eq!(log.due(&name, at(59)), None);
        assert_eq!(log.due(&other, at(59)), Some(0));
        assert_eq!(log.due(&name, at(60)), Some(2));
        assert_eq!(log.due(&name, at(121)), Some(0));
    }
}
