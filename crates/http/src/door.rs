//! What one listener is given: its limits, whom it trusts, and how it refuses.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use ipnet::IpNet;

use postrider_crypto::Random;
use postrider_domain::id::RequestId;
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_metrics::{Counters, StatusClass};

use crate::body::BodyBudget;
use crate::certificate::Certificate;
use crate::refusal::RenderRefusal;

/// Everything that the connections of a listener share.
pub struct Door {
    pub limits: DoorLimits,
    /// The memory for bodies. Its size is [`DoorLimits::bodies_bytes`].
    pub(crate) bodies: Arc<BodyBudget>,
    /// The networks of proxies whose `X-Forwarded-For` and `Forwarded` count.
    pub trusted_proxies: Vec<IpNet>,
    /// With a certificate the listener speaks TLS only.
    pub certificate: Option<Arc<Certificate>>,
    pub render_refusal: RenderRefusal,
    /// Counts the answers.
    pub responses: Counters,
    pub random: Random,
    pub clock: Arc<dyn Clock>,
}

/// Timers and sizes. The default is the contract's.
#[derive(Clone, Debug)]
pub struct DoorLimits {
    /// Connections at a time. Further ones wait in the queue of the operating system.
    pub connections: usize,
    pub head_time: Duration,
    pub body_time: Duration,
    pub body_slow_start: Duration,
    pub body_bytes_per_second: u32,
    pub answer_time: Duration,
    pub idle_time: Duration,
    pub bodies_bytes: usize,
    pub drain_time: Duration,
    pub linger_time: Duration,
    pub linger_quiet_time: Duration,
}

impl DoorLimits {
    /// The limits of the contract, with this many connections.
    pub fn new(connections: usize) -> Self {
        Self {
            connections,
            head_time: limits::HEAD_TIME,
            body_time: limits::BODY_TIME,
            body_slow_start: limits::BODY_SLOW_START,
            body_bytes_per_second: limits::BODY_BYTES_PER_SECOND,
            answer_time: limits::ANSWER_TIME,
            idle_time: limits::IDLE_TIME,
            bodies_bytes: limits::BODIES_BYTES,
            drain_time: limits::DRAIN_TIME,
            linger_time: limits::LINGER_TIME,
            linger_quiet_time: limits::LINGER_QUIET_TIME,
        }
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Door {
    /// A door that trusts no proxy and has no certificate.
    pub fn new(limits: DoorLimits, render_refusal: RenderRefusal, random: Random, clock: Arc<dyn Clock>) -> Self {
        let bodies = Arc::new(BodyBudget::new(limits.bodies_bytes));
        Self {
            limits,
            bodies,
            trusted_proxies: Vec::new(),
            certificate: None,
            render_refusal,
            responses: Counters::default(),
            random,
            clock,
        }
    }

    pub(crate) fn new_request_id(&self) -> RequestId {
        RequestId::from_letters(self.random.alphanumeric())
    }

    /// Counts an answer, and sets the headers that every answer carries.
    pub(crate) fn complete<B>(&self, response: &mut Response<B>, id: RequestId) {
        if let Some(class) = StatusClass::of(response.status().as_u16()) {
            self.responses.increment(class);
        }
        self.set_headers(response.headers_mut(), id);
    }

    fn set_headers(&self, headers: &mut HeaderMap, id: RequestId) {
        use http::header::{STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            headers.insert(REQUEST_ID, value);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.certificate.is_some() {
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
        }
    }
}

const HSTS: &str = "max-age=31536000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_number_of_the_limit() {
        assert_eq!(HSTS, format!("max-age={}", limits::HSTS_SECONDS));
    }
}
