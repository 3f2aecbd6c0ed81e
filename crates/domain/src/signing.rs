//! The signatures of Standard Webhooks: `v1`, and also `v1a` for endpoints that ask for it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use postrider_crypto::{MacKey, SigningKey};

/// The keys of one version of an endpoint's secret.
#[derive(Clone, Debug)]
pub struct SignatureKeys {
    /// Signs `v1`.
    pub mac: MacKey,
    /// Signs `v1a`, if the endpoint asks for it.
    pub signing: Option<SigningKey>,
}

/// Borrowed [`SignatureKeys`]. A [`MacKey`] alone signs `v1` only.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedKeys<'k> {
    mac: &'k MacKey,
    signing: Option<&'k SigningKey>,
}

impl<'k> From<&'k MacKey> for BorrowedKeys<'k> {
    fn from(mac: &'k MacKey) -> Self {
        Self { mac, signing: None }
    }
}

impl<'k> From<&'k SignatureKeys> for BorrowedKeys<'k> {
    fn from(keys: &'k SignatureKeys) -> Self {
        Self { mac: &keys.mac, signing: keys.signing.as_ref() }
    }
}

/// The value of `webhook-signature`, its parts separated by spaces. Each version of the secret contributes
/// `v1,<base64>` and, if it has such a key, `v1a,<base64>`.
pub fn signature_header<'k, K: Into<BorrowedKeys<'k>>>(
    keys: impl IntoIterator<Item = K>,
    id: &str,
    timestamp_seconds: i64,
    body: &[u8],
) -> String {
    let timestamp = timestamp_seconds.to_string();
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let mut whole = None;
    let mut header = String::with_capacity(48);
    for BorrowedKeys { mac, signing } in keys.into_iter().map(Into::into) {
        append(&mut header, "v1,", &mac.sign(&content));
        if let Some(signing) = signing {
            // Ed25519 reads its message twice, so it needs the message in one piece.
            append(&mut header, "v1a,", &signing.sign(whole.get_or_insert_with(|| content.concat())));
        }
    }
    header
}

fn append(header: &mut String, scheme: &str, signature: &[u8]) {
    if !header.is_empty() {
        header.push(' ');
    }
    header.push_str(scheme);
    BASE64_STANDARD.encode_string(signature, header);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{SigningSecret, WebhookSecret};

    fn sign(secret: &str, id: &str, timestamp: i64, body: &str) -> String {
        let key = WebhookSecret::parse(secret).unwrap().mac_key();
        signature_header([&key], id, timestamp, body.as_bytes())
    }

    #[test]
    fn both_published_vectors_are_reproduced_exactly() {
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

    /// The published examples of both schemes sign the same message.
    #[test]
    fn the_published_asymmetric_vector_follows_the_symmetric_one() {
        let text = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
        let signing = Some(SigningSecret::parse(text).unwrap().key());
        let mac = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().mac_key();
        let (new, old) = (SignatureKeys { mac, signing }, SignatureKeys { mac: MacKey::new(b"old"), signing: None });
        let body = br#"{"test": 2432232314}"#;
        let header = signature_header([&new, &old], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        let parts: Vec<&str> = header.split(' ').collect();
        assert_eq!(
            parts[..2],
            [
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
            ]
        );
        assert!(parts.len() == 3 && parts[2].starts_with("v1,"), "{header}");
    }
}
