//! What is measured: each scenario as a load, receivers, neighbours, and flags of the server.

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One endpoint, one event a request, publishers back to back.
    Single,
    /// Each event goes to ten endpoints.
    FanOut,
    /// A hundred events a request.
    Batch,
    /// 200 events a second whatever the answers; latency counts from the intended time.
    Rate,
    /// One answer in five is 500.
    Failing,
    /// The endpoint speaks TLS.
    Tls,
    /// 5,000 events a second to 1,000 endpoints at 1,000 addresses that speak TLS and answer in 50 to 150 ms.
    Wan,
    /// 10,000 endpoints in 1,000 workspaces.
    Many,
    /// As `Rate`, for as long as one likes: what does memory do?
    Soak,
    /// As `Single`, alone and beside a long queue of deliveries that wait for later.
    Backlog,
    /// A healthy endpoint beside one that answers after 14 s.
    SlowNeighbour,
    /// The same, and a dead endpoint with a long queue.
    DeadNeighbour,
    /// A healthy endpoint beside a workspace of 500 endpoints that answer after 14.9 s.
    Isolation,
}

impl Scenario {
    pub const ALL: [Self; 13] = [
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
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == text)
    }
}

/// Which part of a scenario a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunVariant {
    Only,
    Alone,
    WithNeighbours,
}

impl RunVariant {
    /// What this variant of a scenario is called.
    pub fn name(self, scenario: Scenario) -> String {
        match self {
            Self::Only | Self::WithNeighbours => scenario.as_str().to_owned(),
            Self::Alone => format!("{} (alone)", scenario.as_str()),
        }
    }
}
