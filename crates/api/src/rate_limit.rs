//! Carries the rate of a request from the inner layer, which counts it, to the outer layer, which writes the headers.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue};

use postrider_domain::rate_limit::Rate;

use super::whole_seconds::whole_seconds;

/// What the rate limiter found for one request. Stays empty when the request was not counted.
#[derive(Clone, Default)]
pub struct CountedRate(Arc<OnceLock<Rate>>);

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl CountedRate {
    /// A request is counted once. A second call changes nothing.
    pub fn set(&self, rate: Rate) {
        let _ = self.0.set(rate);
    }

    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let Some(rate) = self.0.get() else { return };
        headers.insert(LIMIT, HeaderValue::from(rate.limit));
        headers.insert(REMAINING, HeaderValue::from(rate.remaining));
        headers.insert(RESET, HeaderValue::from(whole_seconds(rate.reset)));
    }
}
