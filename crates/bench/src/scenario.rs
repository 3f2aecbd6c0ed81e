//! The scenarios and their names.

/// One scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One endpoint, one event per request, closed-loop publishers.
    Single,
    /// Each event goes to ten endpoints.
    FanOut,
    /// A hundred events per request.
    Batch,
    /// 200 events per second, open loop. Latency counts from the intended time.
    Rate,
    /// One answer in five is 500.
    Failing,
    /// The endpoint speaks TLS.
    Tls,
    /// 5,000 events per second to 1,000 TLS endpoints on 1,000 addresses that answer in 50 to 150 ms.
    Wan,
    /// 10,000 endpoints in 1,000 workspaces.
    Many,
    /// 1,000 events per second for a long run, one answer in twenty 500: reports what files and memory occupy.
    Soak,
    /// As `Single`, alone and with a long queue of waiting deliveries.
    Backlog,
    /// A healthy endpoint, alone and with one that answers after 14 s.
    SlowNeighbour,
    /// As `SlowNeighbour`, with an additional dead endpoint that has a long queue.
    DeadNeighbour,
    /// A healthy endpoint, alone and with a workspace of 500 endpoints that answer after 14.9 s.
    Isolation,
    /// 1,000 events per second, alone and while the server removes half of a long log.
    Retention,
}

impl Scenario {
    pub const ALL: [Self; 14] = [
        Self::Single,
        Self::FanOut,
        Self::Batch,
        Self::Rate,
        Self::Failing,
        Self::Tls,
        Self::Wan,
        Self::Many,
        Self::Soak,
        Self::Backlog,
        Self::SlowNeighbour,
        Self::DeadNeighbour,
        Self::Isolation,
        Self::Retention,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::FanOut => "fan-out",
            Self::Batch => "batch",
            Self::Rate => "rate",
            Self::Failing => "failing",
            Self::Tls => "tls",
            Self::Wan => "wan",
            Self::Many => "many",
            Self::Soak => "soak",
            Self::Backlog => "backlog",
            Self::SlowNeighbour => "slow-neighbour",
            Self::DeadNeighbour => "dead-neighbour",
            Self::Isolation => "isolation",
            Self::Retention => "retention",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == text)
    }
}

/// The variant of a scenario that a row of the report describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunVariant {
    Only,
    Alone,
    WithNeighbours,
}

impl RunVariant {
    /// The name of the row.
    pub fn name(self, scenario: Scenario) -> String {
        match self {
            Self::Only | Self::WithNeighbours => scenario.as_str().to_owned(),
            Self::Alone => format!("{} (alone)", scenario.as_str()),
        }
    }
}
