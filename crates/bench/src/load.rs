//! What a run offers and to whom: plain numbers, from which the stage is set, the publishers write and the sink checks.
//!
//! An event's number alone says which project of which workspace it is published to, and so which endpoints it must reach.

use std::time::Duration;

/// The shape of one run.
#[derive(Clone, Debug)]
pub struct Load {
    pub workspaces: usize,
    /// Projects of each workspace; an event goes to one of them.
    pub projects: usize,
    /// Endpoints of each project, all of which its events reach.
    pub fan_out: usize,
    pub events_per_request: usize,
    /// PublishResult whatever the answers; without it publishers go back to back.
    pub events_per_second: Option<u32>,
    pub publishers: usize,
    /// Bytes of `data`.
    pub payload_bytes: usize,
    pub duration: Duration,
}

/// More events than publishers back to back reach in a run; sizes what counts arrivals.
const EVENTS_MAX: usize = 4_000_000;

impl Load {
    /// Where an event may go: so many projects there are in all.
    pub const fn targets(&self) -> usize {
        self.workspaces * self.projects
    }

    pub const fn endpoints(&self) -> usize {
        self.targets() * self.fan_out
    }

    /// Requests go round all targets, so that each gets its even share.
    pub const fn target_of(&self, event: usize) -> usize {
        event / self.events_per_request % self.targets()
    }

    pub const fn workspace_of(&self, target: usize) -> usize {
        target % self.workspaces
    }

    /// Whether an endpoint is one of those that an event must reach.
    pub const fn is_for(&self, event: usize, endpoint: usize) -> bool {
        endpoint / self.fan_out == self.target_of(event)
    }

    /// The endpoints' and the events' `projectId`; of one width, so that requests can be written over.
    pub fn project_id(&self, target: usize) -> Option<String> {
        (self.projects > 1).then(|| format!("project_{:06}", target / self.workspaces))
    }

    /// No more events than this are published.
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
    fn events_go_round_all_targets_and_reach_only_their_endpoints() {
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
