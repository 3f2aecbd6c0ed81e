//! Verifies a received webhook with independent implementations: the `standardwebhooks` library, and `ed25519-dalek`
//! for `v1a`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

use super::receiver::Received;

/// Runs the whole check of the library, as an integrator does. It includes the age of the timestamp by the machine's
/// clock, so the sender must run on that clock.
///
/// # Errors
/// The error text of the library.
pub fn verify_as_integrator(secret: &str, received: &Received) -> Result<(), String> {
    library(secret)?.verify(&received.body, &received.headers).map_err(|error| error.to_string())
}

/// Checks that one of the signatures was made with `secret`. Accepts any timestamp, because the clock may be manual.
///
/// # Errors
/// When a header is missing or no signature matches.
pub fn verify_signature(secret: &str, received: &Received) -> Result<(), String> {
    let id = required(received, HEADER_WEBHOOK_ID)?;
    let timestamp = required(received, HEADER_WEBHOOK_TIMESTAMP)?.parse().map_err(|_| "the timestamp is no number")?;
    let expected = library(secret)?.sign(id, timestamp, &received.body).map_err(|error| error.to_string())?;
    let signatures = required(received, HEADER_WEBHOOK_SIGNATURE)?;
    if signatures.split(' ').any(|signature| signature == expected) {
        Ok(())
    } else {
        Err(format!("none of {signatures:?} is {expected:?}"))
    }
}

/// Checks that one of the `v1a` signatures was made with the private key of this public key. The standard libraries do
/// not support the scheme yet, so `ed25519-dalek` checks it.
///
/// # Errors
/// When a header is missing or no signature matches.
pub fn verify_public(public_key: &str, received: &Received) -> Result<(), String> {
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|error| error.to_string());
    let key = decode(public_key.strip_prefix("whpk_").ok_or("a public key begins with whpk_")?)?;
    let key = VerifyingKey::from_bytes(&key.try_into().map_err(|_| "a public key has 32 bytes")?);
    let key = key.map_err(|error| error.to_string())?;
    let (id, timestamp) = (required(received, HEADER_WEBHOOK_ID)?, required(received, HEADER_WEBHOOK_TIMESTAMP)?);
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &received.body].concat();
    let signatures = required(received, HEADER_WEBHOOK_SIGNATURE)?;
    for signature in signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1a,")) {
        let signature = Signature::from_slice(&decode(signature)?).map_err(|error| error.to_string())?;
        if key.verify_strict(&content, &signature).is_ok() {
            return Ok(());
        }
    }
    Err(format!("none of {signatures:?} is made with the key of {public_key}"))
}

fn library(secret: &str) -> Result<Webhook, String> {
    if !secret.starts_with("whsec_") {
        return Err("a secret begins with whsec_".to_owned());
    }
    Webhook::new(secret).map_err(|error| error.to_string())
}

fn required<'a>(received: &'a Received, name: &str) -> Result<&'a str, String> {
    received.header(name).ok_or_else(|| format!("there is no {name} header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn published_vector() -> Received {
        Received::for_test(
            &[
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ],
            br#"{"test": 2432232314}"#,
        )
    }

    #[test]
    fn the_published_vector_fails_with_another_body_or_secret() {
        let good = published_vector();
        verify_signature(SECRET, &good).unwrap();
        let changed = Received { body: br#"{"test": 2432232315}"#.to_vec(), ..good.clone() };
        verify_signature(SECRET, &changed).unwrap_err();
        verify_signature("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", &good).unwrap_err();
        verify_signature("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &good).unwrap_err();
    }

    /// The vector of the sender's own test, which this implementation must accept too.
    #[test]
    fn the_published_asymmetric_vector_fails_with_another_body() {
        let key = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
        let signature = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ];
        let good = Received::for_test(&headers, br#"{"test": 2432232314}"#);
        verify_public(key, &good).unwrap();
        verify_public(key, &Received { body: b"{}".to_vec(), ..good }).unwrap_err();
    }

    #[test]
    fn an_integrator_refuses_an_old_timestamp_and_a_missing_header() {
        let refusal = verify_as_integrator(SECRET, &published_vector()).unwrap_err();
        assert_eq!(refusal, "signature timestamp too old");
        let bare = Received::for_test(&[], b"{}");
        assert_eq!(verify_signature(SECRET, &bare).unwrap_err(), "there is no webhook-id header");
    }
}
