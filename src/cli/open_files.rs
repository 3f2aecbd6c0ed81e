//! How many files this process may have open. Each attempt and each kept connection is one; shells allow 1,024 unless told otherwise,
//! for the sake of programs that could not count further, and more to whoever asks.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Asks for as many as may be had. Where that fails it stays at what is: an attempt that finds no file is made again later.
pub fn allow_many() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_may_be_had_is_asked_for() {
        allow_many();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
