//! The gate that counts requests, and the headers that tell every answer of a limited bucket where it stands.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use postrider_domain::access::Principal;
use postrider_domain::rate_limit::{Rate, RateBucket};
use postrider_service::{Service, ServiceError};

/// The bucket that a request counts in, on its way to the gate, and what the gate found, on its way back.
#[derive(Clone)]
pub struct Counted {
    bucket: RateBucket,
    rate: Arc<OnceLock<Rate>>,
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

fn bucket_of(method: &Method, path: &str) -> RateBucket {
    match path {
        "/v1/events" | "/v1/events/batch" if method == Method::POST => RateBucket::Publishing,
        _ => RateBucket::Management,
    }
}

/// Marks a request that will be counted once its key is known. Nothing happens to one whose bucket is not limited.
pub fn mark(service: &Service, request: &mut Request) -> Option<Counted> {
    let bucket = bucket_of(request.method(), request.uri().path());
    if !service.is_rate_limited(bucket) {
        return None;
    }
    let counted = Counted { bucket, rate: Arc::default() };
    request.extensions_mut().insert(counted.clone());
    Some(counted)
}

/// Lets a request pass, or not.
pub fn pass(service: &Service, principal: &Principal, parts: &Parts) -> Result<(), ServiceError> {
    let Some(counted) = parts.extensions.get::<Counted>() else { return Ok(()) };
    let bucket = counted.bucket;
    let Some(outcome) = service.admit(principal, bucket) else { return Ok(()) };
    let (Ok(rate) | Err(rate)) = outcome;
    // Nobody else sets it: a request passes the gate once.
    let _ = counted.rate.set(rate);
    match outcome {
        Ok(_) => Ok(()),
        Err(rate) => Err(ServiceError::RateLimited { bucket, limit: rate.limit, retry_after: rate.reset }),
    }
}

/// Tells the caller where the bucket stands; nothing when the request never came to be counted.
pub fn tell(counted: Option<&Counted>, headers: &mut HeaderMap) {
    let Some(rate) = counted.and_then(|counted| counted.rate.get()) else { return };
    headers.insert(LIMIT, HeaderValue::from(rate.limit));
    headers.insert(REMAINING, HeaderValue::from(rate.remaining));
    headers.insert(RESET, HeaderValue::from(whole_seconds(rate.reset)));
}

/// Rounded up, so that whoever waits that long is let through.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_publishes_count_as_publishing() {
        assert_eq!(bucket_of(&Method::POST, "/v1/events"), RateBucket::Publishing);
        assert_eq!(bucket_of(&Method::POST, "/v1/events/batch"), RateBucket::Publishing);
        assert_eq!(bucket_of(&Method::GET, "/v1/events"), RateBucket::Management);
        assert_eq!(bucket_of(&Method::POST, "/v1/webhook-endpoints"), RateBucket::Management);
    }

    #[test]
    fn a_wait_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_secs(60)), 60);
        assert_eq!(whole_seconds(Duration::from_millis(59_001)), 60);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
    }
}
