//! The note that published data does not fit its schema, where the catalogue only records that.
//!
//! A publisher whose every event misfits would fill the log, so each name is noted once a minute, with the count of
//! those that went unsaid. What came is never told: the note names the rule of the schema.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::WorkspaceId;
use postrider_domain::schema::SchemaViolation;
use postrider_domain::time::Timestamp;

use crate::lock::lock;

const QUIET: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct MisfitLog(Mutex<HashMap<EventTypeName, Noted>>);

struct Noted {
    at: Timestamp,
    unsaid: u64,
}

impl MisfitLog {
    /// `misfit` finds out what does not fit, which is dear, and asked for only when it is said.
    pub fn note(
        &self,
        workspace_id: WorkspaceId,
        event_type: &EventTypeName,
        now: Timestamp,
        misfit: impl FnOnce() -> Option<SchemaViolation>,
    ) {
        if let Some(unsaid) = self.due(event_type, now) {
            let rule = misfit().map(|misfit| misfit.rule).unwrap_or_default();
            tracing::warn!(
                %event_type, %workspace_id, rule, unsaid,
                "published data does not fit its schema; it was accepted"
            );
        }
    }

    /// How many went unsaid before this one, if it is time to say something.
    fn due(&self, event_type: &EventTypeName, now: Timestamp) -> Option<u64> {
        let mut noted = lock(&self.0);
        match noted.get_mut(event_type) {
            Some(last) if now.since(last.at) < QUIET => {
                last.unsaid += 1;
                None
            }
            Some(last) => {
                let unsaid = last.unsaid;
                *last = Noted { at: now, unsaid: 0 };
                Some(unsaid)
            }
            None => {
                noted.insert(event_type.clone(), Noted { at: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_noted_once_a_minute_with_a_count() {
        let (log, name, other) = (
            MisfitLog::default(),
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
