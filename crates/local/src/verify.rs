//! Verifies webhooks by the rules of Standard Webhooks, as every integrator must.
//!
//! Pure: time and key are arguments.

use http::HeaderMap;

use postrider_crypto::{MacKey, equal_in_constant_time};
use postrider_domain::limits;
use postrider_domain::signing::signature_header;
use postrider_domain::time::Timestamp;

pub const WEBHOOK_ID: &str = "webhook-id";
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// Why a webhook was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFault {
    #[error("the {0} header is missing or not text")]
    MissingHeader(&'static str),
    #[error("webhook-timestamp is not a number of Unix seconds")]
    InvalidTimestamp,
    #[error("webhook-timestamp is more than 5 minutes old")]
    TooOld,
    #[error("webhook-timestamp is more than 5 minutes ahead")]
    TooNew,
    #[error("no v1 signature matches the secret and the body")]
    WrongSignature,
    #[error("the receiver has no secret yet")]
    NoSecret,
}

/// Accepts a webhook if one of its `v1` signatures was made with `key` and its timestamp is within
/// [`limits::TIMESTAMP_TOLERANCE`] of `now`.
///
/// # Errors
/// The first fault found.
pub fn verify(key: &MacKey, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), VerifyFault> {
    let id = required(headers, WEBHOOK_ID)?;
    let timestamp = required(headers, WEBHOOK_TIMESTAMP)?;
    let signatures = required(headers, WEBHOOK_SIGNATURE)?;
    let timestamp: i64 = timestamp.parse().map_err(|_| VerifyFault::InvalidTimestamp)?;
    check_age(timestamp, now)?;
    let expected = signature_header([key], id, timestamp, body);
    let fits = |signature: &str| equal_in_constant_time(signature.as_bytes(), expected.as_bytes());
    if signatures.split(' ').any(fits) { Ok(()) } else { Err(VerifyFault::WrongSignature) }
}

fn check_age(timestamp_seconds: i64, now: Timestamp) -> Result<(), VerifyFault> {
    let is_far = now.seconds().abs_diff(timestamp_seconds) > limits::TIMESTAMP_TOLERANCE.as_secs();
    match is_far {
        true if timestamp_seconds < now.seconds() => Err(VerifyFault::TooOld),
        true => Err(VerifyFault::TooNew),
        false => Ok(()),
    }
}

fn required<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, VerifyFault> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(VerifyFault::MissingHeader(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::secret::WebhookSecret;

    struct Vector {
        secret: &'static str,
        id: &'static str,
        timestamp: i64,
        body: &'static str,
        signature: &'static str,
    }

    const FIRST: Vector = Vector {
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: 1_614_265_330,
        body: r#"{"test": 2432232314}"#,
        signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    };
    const SECOND: Vector = Vector {
        secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        timestamp: 1_649_367_553,
        body: r#"{"email":"test@example.com","username":"test_user"}"#,
        signature: "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    };

    impl Vector {
        fn headers(&self) -> HeaderMap {
            let timestamp = self.timestamp.to_string();
            let pairs = [(WEBHOOK_ID, self.id), (WEBHOOK_TIMESTAMP, &timestamp), (WEBHOOK_SIGNATURE, self.signature)];
            pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect()
        }

        fn with(&self, name: &'static str, value: &str) -> Result<(), VerifyFault> {
            let mut headers = self.headers();
            headers.insert(name, value.parse().unwrap());
            self.verify(&headers, 0)
        }

        fn verify(&self, headers: &HeaderMap, age_seconds: i64) -> Result<(), VerifyFault> {
            let now = Timestamp::from_millis((self.timestamp + age_seconds) * 1000);
            verify(&key(self.secret), headers, self.body.as_bytes(), now)
        }
    }

    fn key(secret: &str) -> MacKey {
        WebhookSecret::parse(secret).unwrap().mac_key()
    }

    #[test]
    fn both_published_vectors_verify() {
        for vector in [FIRST, SECOND] {
            vector.verify(&vector.headers(), 0).unwrap();
        }
    }

    #[test]
    fn another_key_body_or_id_does_not_verify() {
        let now = Timestamp::from_millis(FIRST.timestamp * 1000);
        let with_key = verify(&key(SECOND.secret), &FIRST.headers(), FIRST.body.as_bytes(), now);
        assert_eq!(with_key, Err(VerifyFault::WrongSignature));
        let with_body = verify(&key(FIRST.secret), &FIRST.headers(), SECOND.body.as_bytes(), now);
        assert_eq!(with_body, Err(VerifyFault::WrongSignature));
        assert_eq!(FIRST.with(WEBHOOK_ID, SECOND.id), Err(VerifyFault::WrongSignature));
        assert_eq!(FIRST.with(WEBHOOK_TIMESTAMP, "1614265331"), Err(VerifyFault::WrongSignature));
    }

    #[test]
    fn one_matching_signature_among_several_is_enough() {
        let both = |first: &str, second: &str| FIRST.with(WEBHOOK_SIGNATURE, &format!("{first} {second}"));
        both(FIRST.signature, SECOND.signature).unwrap();
        both(SECOND.signature, FIRST.signature).unwrap();
        assert_eq!(both(SECOND.signature, "v1,"), Err(VerifyFault::WrongSignature));
        let other_version = FIRST.signature.replace("v1,", "v1a,");
        assert_eq!(both(&other_version, ""), Err(VerifyFault::WrongSignature));
    }

    #[test]
    fn a_timestamp_is_accepted_within_five_minutes() {
        let headers = FIRST.headers();
        for age_seconds in [-300, 0, 300] {
            FIRST.verify(&headers, age_seconds).unwrap();
        }
        assert_eq!(FIRST.verify(&headers, 301), Err(VerifyFault::TooOld));
        assert_eq!(FIRST.verify(&headers, -301), Err(VerifyFault::TooNew));
        assert_eq!(FIRST.with(WEBHOOK_TIMESTAMP, "soon"), Err(VerifyFault::InvalidTimestamp));
        assert_eq!(FIRST.with(WEBHOOK_TIMESTAMP, &i64::MIN.to_string()), Err(VerifyFault::TooOld));
    }

    #[test]
    fn each_missing_header_is_named() {
        for name in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
            let mut headers = FIRST.headers();
            headers.remove(name);
            assert_eq!(FIRST.verify(&headers, 0), Err(VerifyFault::MissingHeader(name)));
        }
    }
}
