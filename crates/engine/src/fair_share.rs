//! How the permits of one process are shared among workspaces, and between fast endpoints and all others.
//!
//! - A workspace may take permits only while enough stay free for another (a *dynamic threshold*): what it holds may
//!   grow to a multiple of what is free. So a workspace that holds none always finds one, and the number of workspaces
//!   need not be known.
//! - Endpoints that are not known to be fast (new ones included) share half of all permits, plus the first permit of
//!   each workspace. So receivers that hang cannot use up the permits of receivers that answer.
//!
//! Pure counting: no lock, no clock, no endpoint. Which endpoint is fast is decided in `domain::adaptive_limit`.

use std::collections::HashMap;

use postrider_domain::id::RowKey;

/// The permits in use, in total and by workspace.
#[derive(Debug)]
pub struct FairShare {
    total: usize,
    in_use: PermitCount,
    /// Only workspaces that hold a permit.
    by_workspace: HashMap<RowKey, PermitCount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PermitCount {
    pub all: usize,
    /// Of these, held for endpoints that are not known to be fast.
    pub slow: usize,
}

/// A workspace may hold up to twice what is free: two thirds of all permits when it is alone.
const WORKSPACE_MULTIPLE: usize = 2;
/// Of the slow half, a workspace may hold as much as is free of it: half of that half when it is alone.
const SLOW_MULTIPLE: usize = 1;
/// One permit in 16 is kept for workspaces that hold none yet.
const KEPT_FOR_NEWCOMERS: usize = 16;

impl FairShare {
    pub fn new(total: usize) -> Self {
        Self { total, in_use: PermitCount::default(), by_workspace: HashMap::new() }
    }

    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.in_use.all)
    }

    /// How many more permits the workspace may take for an endpoint that is, or is not, known to be fast.
    pub fn quota(&self, workspace_key: RowKey, fast: bool) -> usize {
        let workspace = self.by_workspace.get(&workspace_key).copied().unwrap_or_default();
        let quota = share_left(self.free(), self.total / KEPT_FOR_NEWCOMERS, workspace.all, WORKSPACE_MULTIPLE);
        if fast {
            return quota;
        }
        let free_slow = (self.total / 2).max(1).saturating_sub(self.in_use.slow);
        let left = share_left(free_slow, 0, workspace.slow, SLOW_MULTIPLE);
        // The half may be full of what others took while they were alone. A workspace that holds nothing does not wait
        // for them, up to three quarters of all permits.
        let is_newcomer = workspace.all == 0 && self.in_use.slow < self.total * 3 / 4;
        quota.min(if is_newcomer { left.max(1) } else { left })
    }

    pub fn take(&mut self, workspace_key: RowKey, fast: bool) {
        let workspace = self.by_workspace.entry(workspace_key).or_default();
        for count in [workspace, &mut self.in_use] {
            count.all += 1;
            count.slow += usize::from(!fast);
        }
    }

    pub fn give_back(&mut self, workspace_key: RowKey, fast: bool) {
        let workspace = self.by_workspace.entry(workspace_key).or_default();
        for count in [&mut *workspace, &mut self.in_use] {
            count.all = count.all.saturating_sub(1);
            count.slow = count.slow.saturating_sub(usize::from(!fast));
        }
        if *workspace == PermitCount::default() {
            self.by_workspace.remove(&workspace_key);
        }
    }

    /// Moves the permits of an endpoint that has become fast, or is fast no more, between the halves.
    pub fn reclassify(&mut self, workspace_key: RowKey, permits: usize, fast: bool) {
        let workspace = self.by_workspace.entry(workspace_key).or_default();
        for count in [workspace, &mut self.in_use] {
            count.slow = if fast { count.slow.saturating_sub(permits) } else { count.slow + permits };
        }
    }

    pub fn in_use(&self) -> PermitCount {
        self.in_use
    }

    #[cfg(test)]
    pub fn by_workspace(&self) -> &HashMap<RowKey, PermitCount> {
        &self.by_workspace
    }
}

/// How many more permits may be taken so that the holder then holds at most `multiple` times what is free then. `kept`
/// of the free permits do not count. A holder of none gets one as long as there is one.
fn share_left(free: usize, kept: usize, held: usize, multiple: usize) -> usize {
    let more = (multiple * free.saturating_sub(kept)).saturating_sub(held) / (multiple + 1);
    if held == 0 { more.max(1).min(free) } else { more }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workspace(number: i64) -> RowKey {
        RowKey::from_i64(number)
    }

    /// Takes all that the workspace may have. Returns how many that is.
    fn fill(shares: &mut FairShare, workspace_key: RowKey, fast: bool) -> usize {
        let mut taken = 0;
        while shares.quota(workspace_key, fast) > 0 {
            shares.take(workspace_key, fast);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_workspace_alone_gets_two_thirds_or_a_quarter_if_slow() {
        assert_eq!(fill(&mut FairShare::new(512), workspace(1), true), 320);
        assert_eq!(fill(&mut FairShare::new(512), workspace(1), false), 128);
    }

    #[test]
    fn permits_that_are_given_back_leave_nothing_behind() {
        let mut shares = FairShare::new(8);
        shares.take(workspace(1), false);
        shares.reclassify(workspace(1), 1, true);
        shares.give_back(workspace(1), true);
        assert_eq!((shares.in_use(), shares.free()), (PermitCount::default(), 8));
        assert!(shares.by_workspace().is_empty());
    }

    proptest! {
        #[test]
        fn no_more_permits_are_taken_than_there_are(
            total in 1_usize..100,
            takes in proptest::collection::vec((0_i64..10, any::<bool>()), 1..200),
        ) {
            let mut shares = FairShare::new(total);
            for (number, fast) in takes {
                let quota = shares.quota(workspace(number), fast);
                prop_assert!(quota <= shares.free());
                if quota > 0 {
                    shares.take(workspace(number), fast);
                }
            }
        }
    }
}
