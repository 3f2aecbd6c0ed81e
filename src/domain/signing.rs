//! The `v1` signature of Standard Webhooks.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::crypto::MacKey;

/// The value of `webhook-signature`: one `v1,<base64>` for each key, in the keys' order, separated by a space.
pub fn signature_header<'k>(
    keys: impl IntoIterator<Item = &'k MacKey>,
    id: &str,
    timestamp_seconds: i64,
    body: &[u8],
) -> String {
    let timestamp = timestamp_seconds.to_string();
    let mut header = String::with_capacity(48);
    for key in keys {
        if !header.is_empty() {
            header.push(' ');
        }
        let mac = key.sign(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
        header.push_str("v1,");
        BASE64_STANDARD.encode_string(mac, &mut header);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::WebhookSecret;

    fn sign(secret: &str, id: &str, timestamp: i64, body: &str) -> String {
        let key = WebhookSecret::parse(secret).unwrap().mac_key();
        signature_header([&key], id, timestamp, body.as_bytes())
    }

    #[test]
    fn both_published_vectors_come_out_to_the_letter() {
        assert_eq!(
            sign(
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(
            sign(
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn two_keys_give_two_signatures_in_their_order() {
        let (new, old) = (MacKey::new(b"new"), MacKey::new(b"old"));
        let both = signature_header([&new, &old], "evt_x", 1, b"{}");
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(first, signature_header([&new], "evt_x", 1, b"{}"));
        assert_eq!(second, signature_header([&old], "evt_x", 1, b"{}"));
    }
}
