//! How full the disk is, and what that allows. Pure: the numbers come from the caller.

/// Below this much room the store stops, whatever the limit.
const STOPPED_BYTES: u64 = 2_000_000;
/// Below this much room publishes are refused, whatever the limit.
const FULL_BYTES: u64 = 8_000_000;

/// What is used of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Without the reserve.
    pub used: u64,
    /// What is set aside for removals, whether a file holds it now or not.
    pub reserve: u64,
    pub limit: u64,
}

impl DiskSpace {
    /// What is left before the reserve.
    pub const fn left(self) -> u64 {
        self.limit.saturating_sub(self.used.saturating_add(self.reserve))
    }

    /// What is left for this state: the store stops only when the reserve is used too.
    fn left_for(self, state: DiskState) -> u64 {
        if state == DiskState::Stopped { self.limit.saturating_sub(self.used) } else { self.left() }
    }
}

/// What the disk allows, in the order of urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskState {
    #[default]
    Ok,
    /// 80 % of the limit are used: the oldest payloads and rows of the log go before their time.
    Tight,
    /// Publishes are refused. Deliveries and retention go on.
    Full,
    /// Nothing is written but outcomes and removals. No delivery is claimed.
    Stopped,
}

impl DiskState {
    pub const ALL: [Self; 4] = [Self::Ok, Self::Tight, Self::Full, Self::Stopped];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Tight => "tight",
            Self::Full => "full",
            Self::Stopped => "stopped",
        }
    }

    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|state| *state as u8 == code).unwrap_or_default()
    }

    /// The room below which this state begins.
    fn room(self, limit: u64) -> u64 {
        match self {
            Self::Ok => 0,
            Self::Tight => limit / 5,
            Self::Full => (limit / 20).max(FULL_BYTES),
            Self::Stopped => (limit / 100).max(STOPPED_BYTES),
        }
    }

    /// The state after this one. A state ends only when there is a quarter more
    /// room than where it begins, so that it does not come and go with each write.
    #[must_use]
    pub fn next(self, space: DiskSpace) -> Self {
        let holds = |state: Self| {
            let room = state.room(space.limit);
            space.left_for(state) < if self >= state { room + room / 4 } else { room }
        };
        [Self::Stopped, Self::Full, Self::Tight].into_iter().find(|state| holds(*state)).unwrap_or(Self::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    const fn space(used: u64, limit: u64) -> DiskSpace {
        DiskSpace { used, reserve: 0, limit }
    }

    #[test]
    fn the_reserve_counts_as_used_until_the_store_would_stop() {
        let space = |used| DiskSpace { used, reserve: 64_000_000, limit: GB };
        assert_eq!(DiskState::Ok.next(space(736_000_000)), DiskState::Ok);
        assert_eq!(DiskState::Ok.next(space(736_000_001)), DiskState::Tight);
        assert_eq!(DiskState::Tight.next(space(886_000_001)), DiskState::Full);
        assert_eq!(DiskState::Full.next(space(990_000_000)), DiskState::Full);
        assert_eq!(DiskState::Full.next(space(990_000_001)), DiskState::Stopped);
    }

    #[test]
    fn a_state_begins_at_its_limit_and_ends_with_more_room() {
        let from = |state: DiskState, used| state.next(space(used, GB));
        assert_eq!(from(DiskState::Ok, 800_000_000), DiskState::Ok, "a fifth is left");
        assert_eq!(from(DiskState::Ok, 800_000_001), DiskState::Tight);
        assert_eq!(from(DiskState::Tight, 750_000_001), DiskState::Tight);
        assert_eq!(from(DiskState::Tight, 750_000_000), DiskState::Ok);
        assert_eq!(from(DiskState::Tight, 950_000_000), DiskState::Tight);
        assert_eq!(from(DiskState::Tight, 950_000_001), DiskState::Full);
        assert_eq!(from(DiskState::Full, 937_500_001), DiskState::Full);
        assert_eq!(from(DiskState::Full, 937_500_000), DiskState::Tight);
        assert_eq!(from(DiskState::Full, 990_000_001), DiskState::Stopped);
        assert_eq!(from(DiskState::Stopped, 987_500_001), DiskState::Stopped);
        assert_eq!(from(DiskState::Stopped, 987_500_000), DiskState::Full);
    }

    #[test]
    fn a_jump_passes_states_and_more_than_the_limit_is_no_room() {
        assert_eq!(DiskState::Ok.next(space(2 * GB, GB)), DiskState::Stopped);
        assert_eq!(DiskState::Stopped.next(space(0, GB)), DiskState::Ok);
        assert_eq!(DiskState::Ok.next(space(0, 0)), DiskState::Stopped);
    }

    #[test]
    fn a_small_limit_keeps_room_for_some_writes() {
        let limit = 100_000_000;
        assert_eq!(DiskState::Ok.next(space(limit - 8_000_000, limit)), DiskState::Tight);
        assert_eq!(DiskState::Ok.next(space(limit - 7_999_999, limit)), DiskState::Full);
        assert_eq!(DiskState::Ok.next(space(limit - 1_999_999, limit)), DiskState::Stopped);
    }

    #[test]
    fn every_state_is_read_back_from_its_number() {
        for state in DiskState::ALL {
            assert_eq!(DiskState::from_code(state as u8), state);
        }
    }
}
