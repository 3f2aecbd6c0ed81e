//! What became of a payload: the envelope of an event, or the headers and bodies of an attempt.

/// Whether a payload is still stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadState {
    #[default]
    Kept,
    /// It grew older than the server keeps payloads.
    Expired,
    /// Somebody had it erased.
    Erased,
}

impl PayloadState {
    pub const ALL: [Self; 3] = [Self::Kept, Self::Expired, Self::Erased];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Expired => "expired",
            Self::Erased => "erased",
        }
    }

    /// The number that is stored.
    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_stay_as_they_are() {
        assert_eq!(PayloadState::ALL.map(PayloadState::code), [0, 1, 2]);
        assert_eq!(PayloadState::ALL.map(|state| PayloadState::from_code(state.code())), PayloadState::ALL.map(Some));
        assert_eq!(PayloadState::from_code(3), None);
    }
}
