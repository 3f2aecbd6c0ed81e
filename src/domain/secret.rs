//! Secrets in the clear: webhook secrets and API keys, as short-lived as can be and mute in every print.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::crypto::{MacKey, Random};

use super::access::Mode;
use super::event_type::Brand;

/// An endpoint's signing secret: `whsec_` and base64. Ours are 64 lowercase hex letters, which are base64 too.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<String>);

/// The text is not `whsec_` followed by base64.
#[derive(Debug, thiserror::Error)]
#[error("a webhook secret is whsec_ followed by base64")]
pub struct InvalidSecret;

const PREFIX: &str = "whsec_";
const RANDOM_BYTES: usize = 32;

impl WebhookSecret {
    pub fn generate(random: &Random) -> Self {
        let bytes = Zeroizing::new(random.bytes::<RANDOM_BYTES>());
        Self(Zeroizing::new(format!("{PREFIX}{}", hex(bytes.as_slice()))))
    }

    /// # Errors
    /// When the text is not `whsec_` followed by base64.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The secret itself. For the one answer that shows it, and for sealing.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn last4(&self) -> String {
        last4(&self.0)
    }

    /// The key of the signature: the base64 decoding of what follows `whsec_`.
    pub fn mac_key(&self) -> MacKey {
        let encoded = self.0.strip_prefix(PREFIX).unwrap_or_default();
        let key = Zeroizing::new(BASE64_STANDARD.decode(encoded).unwrap_or_default());
        MacKey::new(&key)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// An API key in the clear: `<brand>_sk_live_` or `<brand>_sk_test_` and 40 random letters.
#[derive(Clone)]
pub struct ApiKeySecret(Zeroizing<String>);

impl ApiKeySecret {
    pub fn generate(random: &Random, brand: &Brand, mode: Mode) -> Self {
        let letters = Zeroizing::new(random.alphanumeric::<40>());
        let letters = std::str::from_utf8(letters.as_slice()).unwrap_or_default();
        Self(Zeroizing::new(format!("{}{letters}", brand.key_prefix(mode))))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn last4(&self) -> String {
        last4(&self.0)
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeySecret(…)")
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn last4(text: &str) -> String {
    text[text.len().saturating_sub(4)..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_has_the_published_shape_and_is_valid_base64() {
        let secret = WebhookSecret::generate(&Random::default());
        let letters = secret.reveal().strip_prefix("whsec_").unwrap();
        assert_eq!(letters.len(), 64);
        assert!(letters.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)));
        assert_eq!(BASE64_STANDARD.decode(letters).unwrap().len(), 48);
        assert!(letters.ends_with(&secret.last4()));
        assert!(WebhookSecret::parse(secret.reveal()).is_ok());
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = WebhookSecret::generate(&Random::default());
        let key = ApiKeySecret::generate(&Random::default(), &Brand::default(), Mode::Test);
        assert!(key.reveal().starts_with("scripe_sk_test_"));
        let printed = format!("{secret:?} {key:?}");
        assert!(!printed.contains(&secret.last4()) && !printed.contains(&key.last4()), "{printed}");
    }
}
