//! How long to wait before a lost server is asked again.

use std::time::Duration;

use postrider_crypto::Random;

use super::client::{ApiFailure, StatusCode};

/// Waits that double from half a second to 30 seconds, each shortened by up to a half at random, so that many clients
/// of a server that comes back do not ask at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    /// The next wait. `chance` is from 0 to 1.
    pub fn wait(&mut self, chance: f64) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(Self::LONGEST);
        longest.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }

    /// The next wait after this failure: at least as long as the server asked for.
    pub fn wait_after(&mut self, failure: &ApiFailure, random: &Random) -> Duration {
        let asked = match failure {
            ApiFailure::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        self.wait(random.unit()).max(asked)
    }
}

/// Whether the same request may succeed later: the server is away, restarts, or has too much to do.
pub fn is_passing(failure: &ApiFailure) -> bool {
    match failure {
        ApiFailure::Connect { .. } | ApiFailure::Broken(_) | ApiFailure::Timeout => true,
        ApiFailure::Refused { status, .. } | ApiFailure::Unreadable { status, .. } => {
            status.is_server_error() || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        }
        ApiFailure::Tls { .. } | ApiFailure::Request(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<f64> = (0..8).map(|_| backoff.wait(0.0).as_secs_f64()).collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(backoff.wait(1.0), Duration::from_secs(15));
        assert_eq!(Backoff::default().wait(0.5), Duration::from_millis(375));
    }

    #[test]
    fn a_wait_is_at_least_what_the_server_asked_for() {
        let refused = |status: StatusCode| ApiFailure::Refused {
            status,
            code: String::new(),
            message: String::new(),
            details: Box::default(),
            request_id: None,
            retry_after: Some(Duration::from_secs(60)),
        };
        let limited = refused(StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(Backoff::default().wait_after(&limited, &Random::default()), Duration::from_secs(60));
        assert!(is_passing(&limited) && is_passing(&ApiFailure::Timeout));
        assert!(!is_passing(&refused(StatusCode::UNAUTHORIZED)) && !is_passing(&refused(StatusCode::BAD_REQUEST)));
    }
}
