//! The load of a run. Setup, publishers and sink all use these numbers.
//!
//! The number of an event determines its workspace and project, and so the endpoints that it must reach.

use std::time::Duration;

/// The parameters of the load.
#[derive(Clone, Debug)]
pub struct Load {
    pub workspaces: usize,
    /// Projects per workspace. Each event belongs to one of them.
    pub projects: usize,
    /// Endpoints per project. Each event of the project goes to all of them.
    pub fan_out: usize,
    pub events_per_request: usize,
    /// Rate of an open-loop load. `None`: each publisher sends its next request after the answer to the last.
    pub events_per_second: Option<u32>,
    pub publishers: usize,
    /// Bytes of `data`.
    pub payload_bytes: usize,
    pub duration: Duration,
}

/// More events than a closed-loop run can publish. Determines the size of the arrival counters.
const EVENTS_MAX: usize = 4_000_000;

impl Load {
    /// Number of projects in all workspaces. Each is a target of events.
    pub const fn targets(&self) -> usize {
        self.workspaces * self.projects
    }

    pub const fn endpoints(&self) -> usize {
        self.targets() * self.fan_out
    }

    /// Requests cycle through all targets, so that each gets the same share.
    pub const fn target_of(&self, event: usize) -> usize {
        event / self.events_per_request % self.targets()
    }

    pub const fn workspace_of(&self, target: usize) -> usize {
        target % self.workspaces
    }

    /// Whether an event must reach an endpoint.
    pub const fn is_for(&self, event: usize, endpoint: usize) -> bool {
        endpoint / self.fan_out == self.target_of(event)
    }

    /// The `projectId` of endpoints and events. It has a fixed width, so that requests can be overwritten in place.
    pub fn project_id(&self, target: usize) -> Option<String> {
        (self.projects > 1).then(|| format!("project_{:06}", target / self.workspaces))
    }

    /// Maximum number of published events.
    pub fn events_max(&self) -> usize {
        match self.events_per_second {
            None => EVENTS_MAX,
            Some(rate) => rate as usize * (self.whole_seconds() + 1),
        }
    }

    pub fn whole_seconds(&self) -> usize {
        usize::try_from(self.duration.as_secs()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_cycle_through_targets_and_match_their_endpoints() {
        let load = Load {
            workspaces: 3,
            projects: 2,
            fan_out: 2,
            events_per_request: 10,
            events_per_second: None,
            publishers: 1,
            payload_bytes: 1,
            duration: Duration::from_secs(1),
        };
        let targets: Vec<usize> = (0..70).step_by(10).map(|event| load.target_of(event)).collect();
        assert_eq!(targets, [0, 1, 2, 3, 4, 5, 0]);
        assert_eq!([load.target_of(9), load.target_of(10)], [0, 1]);
        assert_eq!([load.workspace_of(4), load.workspace_of(5)], [1, 2]);
        assert_eq!(load.project_id(4).as_deref(), Some("project_000001"));
        let reached: Vec<usize> = (0..load.endpoints()).filter(|endpoint| load.is_for(41, *endpoint)).collect();
        assert_eq!(reached, [8, 9]);
    }
}
